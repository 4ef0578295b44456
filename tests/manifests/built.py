"""Overlays as they are applied: built by kustomize, read, and their pods found wherever a kind of object keeps them."""

from __future__ import annotations

import functools
import json
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from tests.render.checks import BIN, pins_of
from tests.rendering import recorded_answers
from tests.variants import Answers

Object = dict[str, Any]
Objects = dict[str, Object]  # by "Kind/name"
Faults = list[str]
BUILD_S = 60


def build(folder: Path, environment: str) -> str:
    """`kubectl kustomize` of one overlay of a render. Raises RuntimeError with kustomize's words."""
    command = [str(BIN / "kubectl"), "kustomize", f"deploy/overlays/{environment}"]
    done = subprocess.run(command, cwd=folder, check=False, capture_output=True, text=True, timeout=BUILD_S)
    if done.returncode or done.stderr:
        raise RuntimeError(f"{folder.name}, overlay {environment}: {done.stderr}")
    return done.stdout


def environments(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "deploy/overlays").iterdir())


@functools.cache
def parse(text: str) -> Object:
    """One object. Overlays of a variant have most in common, dashboards above all: nobody may change what is given."""
    thing: Object = yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506 a SafeLoader
    return thing


def read(text: str) -> Objects:
    """Raises ValueError where two objects have one kind and name."""
    objects: Objects = {}
    for thing in map(parse, text.split("\n---\n")):
        key = f"{thing['kind']}/{thing['metadata']['name']}"
        if key in objects:
            raise ValueError(f"{key} is there twice")
        objects[key] = thing
    return objects


@dataclass(frozen=True)
class Overlay:
    """One built overlay, and the render that it belongs to. Checks take it and give faults."""

    name: str  # variant/environment
    folder: Path
    objects: Objects

    @property
    def environment(self) -> str:
        return self.name.rpartition("/")[2]

    @property
    def answers(self) -> Answers:
        return answers_in(self.folder)

    @property
    def ray(self) -> str:
        """The version of Ray that constraints.txt pins."""
        return pins_in(self.folder)["ray"]

    def of_kind(self, *kinds: str) -> Iterator[tuple[str, Object]]:
        return ((key, thing) for key, thing in self.objects.items() if thing["kind"] in kinds)

    def names(self, kind: str) -> set[str]:
        return {thing["metadata"]["name"] for _, thing in self.of_kind(kind)}

    def pods(self) -> Iterator[Pod]:
        for key, thing in self.objects.items():
            yield from pods_of(key, thing)


answers_in = functools.cache(recorded_answers)
pins_in = functools.cache(pins_of)


@dataclass(frozen=True)
class Pod:
    """A pod template, with the labels that its pods have in the end."""

    where: str
    spec: Object
    labels: dict[str, str]
    claims: frozenset[str] = frozenset()  # volumes that a StatefulSet makes for each pod
    group: Object | None = None  # of Ray: headGroupSpec or one of workerGroupSpecs
    cluster: Object | None = None  # of Ray: the spec of its cluster

    @property
    def is_head(self) -> bool:
        return self.labels.get("ray.io/node-type") == "head"

    @property
    def is_worker(self) -> bool:
        return self.labels.get("ray.io/node-type") == "worker"

    @property
    def containers(self) -> list[Object]:
        """All of them, those that run before included."""
        return [*self.spec["containers"], *self.spec.get("initContainers", [])]

    @property
    def ports(self) -> dict[str, int]:
        return {
            port["name"]: port["containerPort"]
            for container in self.spec["containers"]
            for port in container.get("ports", [])
        }


def cluster_of(thing: Object) -> Object | None:
    """The spec of the Ray cluster that an object makes."""
    keys = {"RayService": "rayClusterConfig", "RayJob": "rayClusterSpec"}
    found: Object | None = thing["spec"].get(keys[thing["kind"]]) if thing["kind"] in keys else None
    return found


def pods_of(key: str, thing: Object) -> Iterator[Pod]:
    """Every pod template of an object; for Ray with the labels that KubeRay adds to its pods."""
    spec = thing.get("spec", {})
    if thing["kind"] == "CronJob":
        spec = spec["jobTemplate"]["spec"]
    if thing["kind"] in ("CronJob", "DaemonSet", "Deployment", "Job", "StatefulSet"):
        template = spec["template"]
        claims = frozenset(claim["metadata"]["name"] for claim in spec.get("volumeClaimTemplates", []))
        yield Pod(key, template["spec"], template["metadata"].get("labels", {}), claims)
    if template := spec.get("submitterPodTemplate"):
        yield Pod(f"{key}, submitter", template["spec"], template["metadata"].get("labels", {}))
    cluster = cluster_of(thing)
    if cluster is not None:
        groups = [("head", "headgroup", cluster["headGroupSpec"])]
        groups += [("worker", group["groupName"], group) for group in cluster.get("workerGroupSpecs", [])]
        for node, name, group in groups:
            added = {
                "app.kubernetes.io/created-by": "kuberay-operator",
                "app.kubernetes.io/name": "kuberay",
                "ray.io/cluster": f"{thing['metadata']['name']}-0",
                "ray.io/group": name,
                "ray.io/is-ray-node": "yes",
                "ray.io/node-type": node,
            }
            template = group["template"]
            own = template.get("metadata", {}).get("labels", {})
            where = f"{key}, {node}" + (f" {name}" if node == "worker" else "")
            yield Pod(where, template["spec"], {**added, **own}, frozenset(), group, cluster)


def by_hand(folder: Path) -> Objects:
    """Every object under deploy/ of a render that is in no overlay, by its path there."""
    files = sorted(path for pattern in ("jobs/*.yaml", "qdrant/*.yaml") for path in (folder / "deploy").glob(pattern))
    return {path.relative_to(folder / "deploy").as_posix(): yaml.safe_load(path.read_text()) for path in files}


def with_files(overlay: Overlay) -> Overlay:
    """All that is in a namespace in the end: the overlay, a database of one's own, and each job, as `make job` does."""
    own = f"{overlay.answers['image_registry']}/{overlay.answers['service_name']}"
    (image,) = {c["image"] for pod in overlay.pods() for c in pod.containers if re.match(rf"{own}[:@]", c["image"])}
    objects = dict(overlay.objects)
    for path, thing in by_hand(overlay.folder).items():
        placed = json.loads(json.dumps(thing).replace(f'"{own}"', f'"{image}"'))
        meta = placed["metadata"]
        meta["namespace"] = f"{overlay.answers['service_name']}-{overlay.environment}"
        meta["name"] += "-a1b2c3" if path.startswith("jobs/") else ""
        objects[f"{placed['kind']}/{meta['name']}"] = placed
    return replace(overlay, objects=objects)


def environment_of(container: Object, objects: Objects) -> dict[str, str | None]:
    """The variables of a container and their values; None where those stand in a Secret or elsewhere."""
    found: dict[str, str | None] = {}
    for source in container.get("envFrom", []):
        data = objects.get(f"ConfigMap/{source.get('configMapRef', {}).get('name')}", {}).get("data", {})
        found |= {f"{source.get('prefix', '')}{name}": value for name, value in data.items()}
    return found | {each["name"]: each.get("value") for each in container.get("env", [])}
