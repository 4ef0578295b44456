"""What kustomize does to a RayService, whose fields it does not know, unless deploy/base tells it: with and without."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from tests.manifests.built import Faults, Overlay, build, read
from tests.manifests.reference_checks import names_that_pods_use

SAMPLE = "two-groups"
BASE = "deploy/base/kustomization.yaml"
OVERLAY = "deploy/overlays/production/kustomization.yaml"
PATCH = """
patches:
  - patch: |
      apiVersion: ray.io/v1
      kind: RayService
      metadata: {name: text-service}
      spec:
        rayClusterConfig:
          headGroupSpec:
            template:
              spec:
                containers:
                  - name: ray-head
                    env: [{name: ADDED, value: "1"}]
                    resources: {limits: {memory: 6Gi}}
          workerGroupSpecs:
            - groupName: second-model
              maxReplicas: 7
              template:
                spec:
                  containers:
                    - name: ray-worker
                      env: [{name: ADDED, value: "1"}]
                      resources: {limits: {memory: 9Gi}}
"""


@pytest.fixture
def folder(samples: dict[str, Path], tmp_path: Path) -> Path:
    """A render to spoil: two models in two groups of workers."""
    return Path(shutil.copytree(samples[SAMPLE], tmp_path / SAMPLE))


def overlay(folder: Path) -> Overlay:
    return Overlay(f"{SAMPLE}/production", folder, read(build(folder, "production")))


def edit(path: Path, pattern: str, new: str) -> None:
    text, times = re.subn(pattern, new, path.read_text(), flags=re.MULTILINE)
    assert times == 1, pattern
    path.write_text(text)


def lost(folder: Path) -> Faults:
    """What a team's patch of some containers' memory changes beyond that."""
    before = overlay(folder)
    with (folder / OVERLAY).open("a") as file:
        file.write(PATCH)
    after = overlay(folder)
    memory = {"head": "6Gi", "worker second-model": "9Gi"}
    faults = []
    pods = {pod.where: pod for pod in after.pods()}
    for old in before.pods():
        new = pods.get(old.where)
        if new is None:
            faults.append(f"{old.where} is gone")
            continue
        wanted = memory.get(old.where.partition(", ")[2])
        had, has = dict(old.spec["containers"][0]), dict(new.spec["containers"][0])
        had["resources"], has["resources"] = had["resources"]["limits"], has.get("resources", {}).get("limits", {})
        if wanted is not None:
            had["resources"] = {**had["resources"], "memory": wanted}
            had["env"] = sorted([*had["env"], {"name": "ADDED", "value": "1"}], key=lambda each: each["name"])
            has["env"] = sorted(has.get("env", []), key=lambda each: each["name"])
        faults += [f"{old.where}: {key} is now {has.get(key)}" for key in had if has.get(key) != had[key]]
        if {**new.spec, "containers": 0} != {**old.spec, "containers": 0}:
            faults.append(f"{old.where}: other fields of the pod have changed")
    groups = after.objects["RayService/text-service"]["spec"]["rayClusterConfig"].get("workerGroupSpecs", [])
    if [group["maxReplicas"] for group in groups if group["groupName"] == "second-model"] != [7]:
        faults.append("second-model has not 7 pods at most")
    return faults


def test_a_patch_of_a_team_changes_only_what_it_names(folder: Path) -> None:
    assert lost(folder) == []


def test_without_the_lists_that_are_merged_a_patch_takes_images_and_variables_along(folder: Path) -> None:
    edit(folder / BASE, r"^openapi:.*\n", "")
    faults = lost(folder)
    assert any("head: image is now None" in fault for fault in faults), faults
    assert any("envFrom is now None" in fault for fault in faults), faults


def test_without_the_type_of_the_lists_only_the_outermost_is_merged(folder: Path) -> None:
    lists = folder / "deploy/base/rayservice-lists.json"
    lists.write_text(re.sub(r',\s*"type": "array"', "", lists.read_text()))
    faults = lost(folder)
    assert any("worker second-model: image is now None" in fault for fault in faults), faults
    assert any("head: env is now" in fault for fault in faults), faults


def switches(folder: Path) -> set[str]:
    """The names under which Ray's pods ask for their switches."""
    return {
        source["configMapRef"]["name"]
        for pod in overlay(folder).pods()
        for source in pod.spec["containers"][0].get("envFrom", [])
        if "configMapRef" in source
    }


def test_a_change_of_the_switches_reaches_the_pods(folder: Path) -> None:
    before = switches(folder)
    with (folder / "config/ray.env").open("a") as file:
        file.write("RAY_SERVE_OTHER=1\n")
    after = switches(folder)
    assert len(before) == len(after) == 1
    assert before != after
    assert names_that_pods_use(overlay(folder)) == []


def test_without_the_fields_that_hold_names_pods_ask_for_what_is_not_there(folder: Path) -> None:
    edit(folder / BASE, r"^configurations:.*\n", "")
    faults = names_that_pods_use(overlay(folder))
    assert any("the ConfigMap text-service-ray-env is not there" in fault for fault in faults), faults


@pytest.mark.parametrize("prefix", ["namePrefix: team-\n", "nameSuffix: -two\n"])
def test_a_team_may_give_all_names_a_prefix(folder: Path, prefix: str) -> None:
    with (folder / OVERLAY).open("a") as file:
        file.write(prefix)
    assert names_that_pods_use(overlay(folder)) == []


def test_the_serve_config_of_an_overlay_is_the_file_as_it_stands(folder: Path) -> None:
    with (folder / "config/serve.yaml").open("a") as file:
        file.write("# ': a line to quote, ü\n")
    service = overlay(folder).objects["RayService/text-service"]
    assert service["spec"]["serveConfigV2"] == (folder / "config/serve.yaml").read_text()


def test_a_digest_of_an_overlay_reaches_head_and_workers(folder: Path) -> None:
    digest = f"sha256:{'1' * 64}"
    edit(folder / OVERLAY, r"digest: sha256:0+$", f"digest: {digest}")
    images = {pod.spec["containers"][0]["image"] for pod in overlay(folder).pods()}
    assert images == {f"registry.example.com/ml/text-service@{digest}"}


def test_a_build_that_fails_says_why(folder: Path) -> None:
    edit(folder / BASE, r"^  - rayservice.yaml\n", "  - rayservices.yaml\n")
    with pytest.raises(RuntimeError, match=r"overlay production: .*rayservices\.yaml"):
        build(folder, "production")


def test_two_objects_of_one_name_are_found() -> None:
    one = "kind: Service\nmetadata: {name: a}"
    with pytest.raises(ValueError, match="Service/a is there twice"):
        read(f"{one}\n---\n{one}\n# other\n")
