"""The manifests of a self-hosted database are valid, whole and strict, and each check fails on a planted break."""

from __future__ import annotations

import copy
import itertools
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.manifests import checks
from tests.manifests.schemas import crd_folder
from tests.rendering import render
from tests.variants import AXES, ROOT

POD = ("spec", "template", "spec")
NODE = (*POD, "containers", 0)
JOB = ("spec", "jobTemplate", "spec", "template", "spec")
GONE = object()
NODES, MONITOR, POLICY = "qdrant/statefulset.yaml", "qdrant/servicemonitor.yaml", "qdrant/networkpolicy.yaml"
BACKUP, CONFIG = "qdrant/cronjob-backup.yaml", "qdrant/configmap.yaml"

# (check, file, where in it, planted value, words of the fault)
PLANTED: list[tuple[Any, str, tuple[str | int, ...], Any, str]] = [
    (checks.schemas, NODES, ("spec", "replica"), 3, "'replica' was unexpected"),
    (checks.schemas, NODES, (*NODE, "readinessProbe", "httpGet", "schema"), "HTTPS", "'schema' was unexpected"),
    (checks.schemas, MONITOR, ("spec", "endpoints", 0, "tls"), {}, "'tls' was unexpected"),
    (checks.schemas, MONITOR, ("spec", "endpoints", 0, "interval"), "often", "does not match"),
    (checks.schemas, "qdrant/prometheusrule.yaml", ("spec", "groups", 0, "rules", 0, "expr"), GONE, "'expr' is a req"),
    (checks.schemas, "qdrant/prometheusrule.yaml", ("kind",), "PrometheusRules", "no CustomResourceDefinition"),
    (checks.schemas, BACKUP, ("spec", "schedule"), 5, "5 is not of type 'string'"),
    (checks.names_that_pods_use, BACKUP, (*JOB, "serviceAccountName"), "backup", "the service account backup"),
    (checks.names_that_pods_use, NODES, (*POD, "volumes", 0, "configMap", "name"), "other", "the ConfigMap other"),
    (checks.names_that_pods_use, NODES, (*NODE, "volumeMounts", 0, "name"), "data", "mounts data, which is no"),
    (checks.names_that_pods_use, NODES, (*NODE, "livenessProbe", "httpGet", "port"), "http", "asks port http"),
    (checks.secrets, NODES, (*NODE, "env", 2, "valueFrom", "secretKeyRef", "key"), "key", "makes the key key of"),
    (checks.secrets, MONITOR, ("spec", "endpoints", 0, "tlsConfig", "ca", "secret", "name"), "tls", "Secret tls"),
    (checks.secrets, BACKUP, (*JOB, "containers", 0, "envFrom", 0, "secretRef", "name"), "aws", "the Secret aws"),
    (checks.secrets, NODES, (*NODE, "env", 2), {"name": "API_KEY", "value": "0123"}, "API_KEY stands in the file"),
    (checks.selectors, "qdrant/service.yaml", ("spec", "selector", "app.kubernetes.io/name"), "q", "selects 0 kinds"),
    (checks.selectors, "qdrant/service.yaml", ("spec", "ports", 0, "targetPort"), "http", "port http is none"),
    (checks.selectors, MONITOR, ("spec", "endpoints", 0, "port"), "metrics", "port metrics is none"),
    (checks.selectors, MONITOR, ("spec", "endpoints", 0, "authorization"), GONE, "need TLS and the key"),
    (checks.selectors, MONITOR, ("spec", "selector", "matchLabels", "monitored"), "yes", "selects 0 Services"),
    (
        checks.selectors,
        "qdrant/poddisruptionbudget.yaml",
        ("spec", "selector", "matchLabels", "app.kubernetes.io/component"),
        "db",
        "not select exactly the nodes",
    ),
    (
        checks.selectors,
        NODES,
        (*POD, "affinity", "podAntiAffinity"),
        {"preferredDuringSchedulingIgnoredDuringExecution": []},
        "two nodes may run on one machine",
    ),
    (checks.traffic, "qdrant/service-headless.yaml", ("spec", "publishNotReadyAddresses"), GONE, "before they are"),
    (checks.traffic, NODES, ("spec", "serviceName"), "qdrant", "the Service qdrant gives nodes no name"),
    (checks.traffic, NODES, (*NODE, "ports", 1, "containerPort"), 6336, "has the ports"),
    (checks.traffic, NODES, (*NODE, "volumeMounts", 1, "mountPath"), "/snapshots", "is on no volume that stays"),
    (checks.traffic, NODES, (*NODE, "volumeMounts", 3, "mountPath"), "/tls", "is not in the Secret"),
    (
        checks.traffic,
        POLICY,
        ("spec", "ingress", 0, "from", 0, "podSelector", "matchLabels"),
        {"app": "x"},
        "cronjob-backup.yaml does not reach the nodes",
    ),
    (checks.traffic, POLICY, ("spec", "ingress", 2, "from"), [{"podSelector": {}}], "holds for everybody"),
    (checks.traffic, POLICY, ("spec", "egress", 0, "ports", 0, "port"), 6336, "do not reach each other"),
    (checks.restricted, NODES, (*POD, "securityContext", "runAsNonRoot"), GONE, "runs as root"),
    (checks.restricted, NODES, (*POD, "automountServiceAccountToken"), GONE, "gets a token"),
    (checks.restricted, NODES, (*NODE, "securityContext", "capabilities", "add"), ["SYS_PTRACE"], "keeps capab"),
    (checks.restricted, NODES, (*NODE, "image"), "qdrant/qdrant", "has no pinned image"),
    (checks.restricted, NODES, (*NODE, "resources", "requests", "memory"), "1Gi", "its memory is not reserved"),
    (checks.restricted, BACKUP, (*JOB, "containers", 0, "securityContext"), {}, "may write to its image"),
    (checks.restricted, BACKUP, (*JOB, "hostNetwork"), True, "shares a namespace"),
    (checks.restricted, BACKUP, (*JOB, "volumes", 0), {"name": "tls", "hostPath": {"path": "/"}}, "not allowed"),
    (checks.outage, NODES, ("spec", "replicas"), 1, "three nodes are the least"),
    (checks.outage, NODES, (*NODE, "readinessProbe", "httpGet", "path"), "/", "does not ask /readyz over HTTPS"),
    (checks.outage, NODES, (*NODE, "startupProbe"), GONE, "a probe is missing"),
    (checks.outage, "qdrant/poddisruptionbudget.yaml", ("spec", "maxUnavailable"), 2, "drains may take [2] nodes"),
    (checks.outage, BACKUP, ("spec", "concurrencyPolicy"), "Allow", "two backups may run at once"),
]


@pytest.fixture(scope="module")
def objects(service: Path) -> checks.Objects:
    return checks.load(service)


@pytest.mark.parametrize("check", checks.CHECKS, ids=lambda check: check.__name__)
def test_the_manifests_pass(check: Any, objects: checks.Objects) -> None:
    assert len(objects) >= 12
    faults = check(objects)
    assert not faults, "\n".join(faults)


def test_the_index_job_of_each_serving_mode_and_database_passes(template: Path, tmp_path: Path) -> None:
    """A Job for the container, a RayJob for Ray; with and without cards."""
    faults = []
    databases = [label for label in AXES["vector_db"] if label != "none"]
    for serving, database, card in itertools.product(("container", "ray"), databases, ("none", "l4")):
        answers = {"serving": serving, "gpu_type": card, **AXES["vector_db"][database]}
        objects = checks.load(render(template, tmp_path / f"{serving}-{database}-{card}", answers))
        kinds = {path: thing["kind"] for path, thing in objects.items() if path.startswith("jobs/")}
        assert list(kinds.values()) == [{"container": "Job", "ray": "RayJob"}[serving]]
        for check in (checks.schemas, checks.names_that_pods_use, checks.secrets, checks.restricted):
            faults += check(objects)
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize(
    ("check", "file", "where", "planted", "words"),
    PLANTED,
    ids=[f"{row[0].__name__}-{'.'.join(map(str, row[2][-2:]))}" for row in PLANTED],
)
def test_a_planted_break_is_found(
    check: Any, file: str, where: tuple[str | int, ...], planted: Any, words: str, objects: checks.Objects
) -> None:
    broken: Any = copy.deepcopy(objects)
    place = broken[file]
    for key in where[:-1]:
        place = place[key]
    if planted is GONE:
        del place[where[-1]]
    else:
        place[where[-1]] = planted
    found = check(broken)
    assert any(words in fault for fault in found), found


def test_every_check_has_been_seen_to_fail() -> None:
    assert {row[0] for row in PLANTED} == set(checks.CHECKS)


def test_one_object_is_in_one_file(service: Path) -> None:
    for path in (service / "deploy").rglob("*.yaml"):
        assert len(list(yaml.safe_load_all(path.read_text()))) == 1, path.name


def test_without_crds_the_check_fails_and_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAYPATH_CRDS", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="download them with `make crds`, and set RAYPATH_CRDS"):
        crd_folder()


def test_the_jobs_know_the_nodes_by_their_names(service: Path, objects: checks.Objects) -> None:
    text = (service / "jobs/qdrant_backups.py").read_text()
    found = re.search(r'PODS = \[f"https://(\w+)-\{number\}\.([\w-]+):(\d+)" for number in range\((\d)\)\]', text)
    assert found is not None
    nodes = objects[NODES]
    (container,) = nodes["spec"]["template"]["spec"]["containers"]
    assert found.groups() == (
        nodes["metadata"]["name"],
        nodes["spec"]["serviceName"],
        str(container["ports"][0]["containerPort"]),
        str(nodes["spec"]["replicas"]),
    )


def test_the_jobs_of_the_manifests_are_there(service: Path, objects: checks.Objects) -> None:
    for path, pod in checks.pods(objects):
        container = pod["spec"]["containers"][0]
        if container["command"] == ["python", "-m"]:
            module = container["args"][0].replace(".", "/")
            assert (service / f"{module}.py").exists(), path


def test_every_secret_is_made_by_the_how_to() -> None:
    pages = ("run-qdrant-yourself.md", "search-documents.md")
    how_to = "".join((ROOT / "docs/how-to" / page).read_text() for page in pages)
    for name, keys in checks.SECRETS.items():
        assert f"kubectl create secret generic {name} " in how_to
        for key in keys:
            assert f"={key}" in how_to, key
