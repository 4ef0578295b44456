"""What is applied file by file, a database of one's own and jobs, fits what the service's code says of it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from tests.manifests.built import Objects, by_hand, pods_of
from tests.manifests.schemas import crd_folder


@pytest.fixture(scope="module")
def objects(service: Path) -> Objects:
    return by_hand(service)


def test_one_object_is_in_one_file(service: Path) -> None:
    for path in (service / "deploy").rglob("*.yaml"):
        assert len(list(yaml.safe_load_all(path.read_text()))) == 1, path.name


def test_without_crds_the_check_fails_and_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAYPATH_CRDS", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="download them with `make crds`, and set RAYPATH_CRDS"):
        crd_folder()


def test_the_jobs_know_the_nodes_by_their_names(service: Path, objects: Objects) -> None:
    text = (service / "jobs/qdrant_backups.py").read_text()
    found = re.search(r'PODS = \[f"https://(\w+)-\{number\}\.([\w-]+):(\d+)" for number in range\((\d)\)\]', text)
    assert found is not None
    nodes = objects["qdrant/statefulset.yaml"]
    (container,) = nodes["spec"]["template"]["spec"]["containers"]
    assert found.groups() == (
        nodes["metadata"]["name"],
        nodes["spec"]["serviceName"],
        str(container["ports"][0]["containerPort"]),
        str(nodes["spec"]["replicas"]),
    )


def test_the_modules_that_jobs_run_are_there(service: Path, objects: Objects) -> None:
    backup = yaml.safe_load((service / "deploy/cloud/cronjob-qdrant-backup.yaml").read_text())
    commands = [
        container["command"]
        for path, thing in {**objects, "cronjob": backup}.items()
        for pod in pods_of(path, thing)
        for container in pod.containers
        if container.get("command", [])[:2] == ["python", "-m"]
    ]
    assert len(commands) == 3
    for command in commands:
        assert (service / f"{command[2].replace('.', '/')}.py").exists(), command
