"""checkov on every pod: those of a RayService are lifted into Deployments first, as no scanner looks inside one.

It runs from an environment of its own (see the Makefile), offline.
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

import yaml

from tests.manifests.built import Object, Pod
from tests.manifests.reference_checks import selects

CHECKOV = Path(sys.prefix, "policy", "bin", "checkov")
SCAN_S = 300

# What is not followed, by which pods, and why. Five at most: a sixth wants a change of the manifests.
EVERY = ""
ALLOWED: dict[str, tuple[str, str]] = {
    "CKV_K8S_15": (
        EVERY,
        "pull always: a tag or digest of ours never moves, and a registry that is away stops no restart",
    ),
    "CKV_K8S_35": (
        EVERY,
        "secrets as files: the libraries that need them read variables, and pods get no files of others",
    ),
    "CKV_K8S_38": (
        EVERY,
        "no token of the API: Ray's autoscaler, on the head, needs one; pod_checks.restricted bars others",
    ),
    "CKV_K8S_43": (EVERY, "digests: production has them, as pod_checks.images sees to; staging follows versions"),
    "CKV_K8S_40": ("StatefulSet/qdrant", "a user above 10000: the files in the image of Qdrant belong to user 1000"),
}

# What KubeRay adds to Ray's own container in the pods of a RayService, for this version of Ray.
PROBE = {"httpGet": {"path": "/api/healthz", "port": 52365}}


def lifted(pod: Pod, policies: Iterable[Object]) -> list[Object]:
    """A Deployment with the template of a pod (a Job, if its work ends), and the NetworkPolicies that hold for it."""
    spec = copy.deepcopy(pod.spec)
    if pod.where.startswith("RayService/"):
        spec["containers"][0] |= {"livenessProbe": PROBE, "readinessProbe": PROBE}
    mine = [each for each in policies if selects(each["spec"]["podSelector"], pod.labels)]
    digest = hashlib.sha256(json.dumps([spec, pod.labels, mine], sort_keys=True).encode()).hexdigest()[:12]
    metadata = {"name": f"pod-{digest}", "namespace": f"lifted-{digest}"}
    labels = {**pod.labels, "lifted": digest}  # a policy of another pod with the same labels is not this one's
    template = {"metadata": {"labels": labels}, "spec": spec}
    ends = pod.where.startswith(("Job/", "CronJob/", "RayJob/"))
    body = {"template": template} if ends else {"selector": {"matchLabels": labels}, "template": template}
    kind = {"apiVersion": "batch/v1", "kind": "Job"} if ends else {"apiVersion": "apps/v1", "kind": "Deployment"}
    selector = {"podSelector": {"matchLabels": labels}}
    return [
        {**kind, "metadata": metadata, "spec": body},
        *(
            {**each, "metadata": {**metadata, "name": each["metadata"]["name"]}, "spec": {**each["spec"], **selector}}
            for each in mine
        ),
    ]


def scan(things: Mapping[str, Iterable[Object]], folder: Path) -> list[tuple[str, str, str]]:
    """(where, id of the check, what it asks for) of every finding outside ALLOWED. things: by their pod."""
    names, where = set(), {}
    for pod, thing in ((pod, thing) for pod, its in things.items() for thing in its):
        where[thing["metadata"]["namespace"]] = pod
        name = f"{thing['metadata']['namespace']}-{thing['kind']}-{thing['metadata']['name']}"
        names.add(name)
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(thing))
    every = [check for check, (pods, _) in ALLOWED.items() if pods == EVERY]
    command = [str(CHECKOV), "--directory", str(folder), "--framework", "kubernetes", "--output", "json"]
    command += ["--skip-download", "--compact", "--quiet", "--skip-check", ",".join(every) or "none"]
    environment = {**os.environ, "LOG_LEVEL": "ERROR", "CHECKOV_RUN_SCA_PACKAGE_SCAN_V2": "false"}
    done = subprocess.run(
        command, env=environment, check=False, capture_output=True, text=True, timeout=SCAN_S, cwd=folder
    )
    report = json.loads(done.stdout)
    assert done.returncode == bool(report["summary"]["failed"]), done.stderr
    if report["summary"]["resource_count"] < len(names) or report["summary"]["parsing_errors"]:
        raise AssertionError(f"checkov read {report['summary']} of {len(names)} objects")
    findings = [
        (where[found["resource"].split(".")[1]], found["check_id"], found["check_name"])
        for found in report["results"]["failed_checks"]
    ]
    return [
        (pod, check, words)
        for pod, check, words in findings
        if check not in ALLOWED or not pod.endswith(ALLOWED[check][0])
    ]
