"""Every overlay of every variant, as kustomize builds it, passes every check."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
import yaml

from tests.manifests import database_checks, gitops_checks, pod_checks, ray_checks, reference_checks
from tests.manifests.built import Faults, Object, Overlay, environments
from tests.manifests.operator_rules import operator_rules
from tests.manifests.policy import ALLOWED, lifted, scan
from tests.manifests.schemas import schemas
from tests.rendering import recorded_answers

CHECKS: list[Callable[[Overlay], Faults]] = [
    schemas,
    operator_rules,
    *ray_checks.CHECKS,
    *reference_checks.CHECKS,
    *pod_checks.CHECKS,
    *database_checks.CHECKS,
    *gitops_checks.CHECKS,
]


def told(found: Iterable[tuple[str, str]]) -> str:
    """(overlay, fault) as lines: each fault once, with some of the overlays that have it."""
    faults: dict[str, list[str]] = {}
    for name, fault in found:
        faults.setdefault(fault, []).append(name)
    return "\n".join(f"{fault} (in {len(names)}: {', '.join(names[:3])})" for fault, names in faults.items())


def test_every_variant_has_an_overlay_for_a_laptop_and_for_each_environment(renders: dict[str, Path]) -> None:
    for name, folder in renders.items():
        wanted = {"local", *recorded_answers(folder)["environments"].split("-")}
        assert set(environments(folder)) == wanted, name


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_every_overlay_passes(check: Callable[[Overlay], Faults], overlays: dict[str, Overlay]) -> None:
    faults = told((name, fault) for name, overlay in overlays.items() for fault in check(overlay))
    assert not faults, faults


def test_the_scanner_of_policies_finds_nothing_that_is_not_allowed(
    overlays: dict[str, Overlay], tmp_path: Path
) -> None:
    pods: dict[str, tuple[str, list[Object]]] = {}
    for overlay in overlays.values():
        if overlay.environment == "local":
            continue
        policies = [policy for _, policy in overlay.of_kind("NetworkPolicy")]
        for pod in overlay.pods():
            things = lifted(pod, policies)
            pods[things[0]["metadata"]["namespace"]] = f"{overlay.name}: {pod.where}", things
    kinds = {where.partition(": ")[2].partition("/")[0] for where, _ in pods.values()}
    assert kinds == {"RayService", "Deployment", "StatefulSet", "RayJob", "Job", "CronJob"}
    found = scan(dict(pods.values()), tmp_path)
    variants = len({overlay.folder for overlay in overlays.values()})
    print(f"\n{len(pods)} different pods in {len(overlays)} overlays of {variants} variants; not {', '.join(ALLOWED)}")
    faults = told((where, f"{check}: {words}") for where, check, words in found)
    assert not faults, faults


def test_few_checks_of_the_scanner_are_left_out_and_each_says_why() -> None:
    assert len(ALLOWED) <= 5
    assert all(len(why.split()) > 8 for _, why in ALLOWED.values())


def test_the_controller_of_gitops_brings_each_overlay_into_its_namespace(renders: dict[str, Path]) -> None:
    kept = {name: folder for name, folder in renders.items() if (folder / "deploy/gitops").exists()}
    assert len(kept) > 3
    for name, folder in kept.items():
        objects = [yaml.safe_load(path.read_text()) for path in sorted((folder / "deploy/gitops").glob("*.yaml"))]
        answers = recorded_answers(folder)
        specs = {thing["metadata"]["name"]: thing["spec"] for thing in objects if "spec" in thing}
        sources = {spec["url"] for spec in specs.values() if "url" in spec}
        sources |= {spec["source"]["repoURL"] for spec in specs.values() if "source" in spec}
        assert sources == {answers["repository_url"]}, name
        for environment in set(environments(folder)) - {"local"}:
            spec = specs[f"{answers['service_name']}-{environment}"]
            path = spec["source"]["path"] if "source" in spec else spec["path"]
            assert (folder / path / "kustomization.yaml").exists(), name
            assert Path(path).name == environment, name
            namespace = f"{answers['service_name']}-{environment}"
            assert spec.get("destination", {}).get("namespace", namespace) == namespace, name
