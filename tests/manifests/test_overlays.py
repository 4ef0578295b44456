"""Every overlay of every variant, as kustomize builds it, passes every check."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from tests.manifests import pod_checks, ray_checks, reference_checks
from tests.manifests.built import Faults, Overlay, environments
from tests.manifests.checks import load
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
    things, where = {}, {}
    for overlay in overlays.values():
        if overlay.environment == "local":
            continue
        policies = [policy for _, policy in overlay.of_kind("NetworkPolicy")]
        for pod in overlay.pods():
            for thing in lifted(pod, policies):
                key = (thing["metadata"]["namespace"], thing["kind"], thing["metadata"]["name"])
                things[key], where[key[0]] = thing, f"{overlay.name}: {pod.where}"
    found = scan(things.values(), tmp_path)
    variants = len({overlay.folder for overlay in overlays.values()})
    print(f"\n{len(where)} different pods in {len(overlays)} overlays of {variants} variants; not {', '.join(ALLOWED)}")
    faults = told((where[resource.split(".")[1]], f"{check}: {words}") for resource, check, words in found)
    assert not faults, faults


def test_few_checks_of_the_scanner_are_left_out_and_each_says_why() -> None:
    assert len(ALLOWED) <= 5
    assert all(len(why.split()) > 8 for why in ALLOWED.values())


JOB_CHECKS = [
    operator_rules,
    ray_checks.one_version_of_ray,
    ray_checks.one_image,
    ray_checks.written_out,
    ray_checks.groups_have_names_of_their_own,
    ray_checks.head_works_for_nobody,
    ray_checks.left_to_kuberay,
    ray_checks.strings,
    pod_checks.jobs,
]


def test_jobs_that_are_applied_by_hand_keep_the_rules_of_ray_too(renders: dict[str, Path]) -> None:
    found = []
    seen = 0
    for name, folder in renders.items():
        files = Overlay(f"{name}/production", folder, load(folder))
        jobs = replace(
            files, objects={path: thing for path, thing in files.objects.items() if thing["kind"] == "RayJob"}
        )
        seen += len(jobs.objects)
        found += [(name, fault) for check in JOB_CHECKS for fault in check(jobs)]
    assert seen > 3
    assert not found, told(found)


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
