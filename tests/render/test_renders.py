"""Every variant is rendered and read: nothing is left over, missing, unused, or against the rules of its own tools."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import pytest

from tests.render.checks import (
    BIN,
    CHECKS,
    Check,
    declared,
    distinct,
    hooks,
    imports_of,
    join,
    mypy,
    name_of,
    pins_of,
    ruff,
    run,
)
from tests.rendering import files_of, recorded_answers
from tests.variants import AXES, NAMED, RUN, choices_of, labels_of, pairs_of


def test_every_choice_occurs_in_a_variant(renders: dict[str, Path], digests: list[dict[str, str]]) -> None:
    kept = [labels_of(recorded_answers(folder)) for folder in renders.values()]
    for axis, labels in AXES.items():
        assert {of[axis] for of in kept} == set(labels), axis
    pairs = set[object]().union(*(pairs_of(labels) for labels in kept))
    print(f"\n{len(renders)} variants hold {len(pairs)} pairs of choices")
    assert set(NAMED) <= set(renders)


def test_every_serving_mode_is_run_with_every_task_and_with_several_models() -> None:
    for serving in choices_of("serving"):
        mine = [answers for answers in RUN.values() if answers["serving"] == serving]
        assert {answers["model_task"] for answers in mine if "model_task" in answers} == set(choices_of("model_task"))
        assert any("more_models" in answers for answers in mine)


def test_feast_is_neither_installed_nor_imported_unless_it_was_chosen(renders: dict[str, Path]) -> None:
    """Its import alone takes 5 s and 186 MB. That nothing else brings it is for constraints.txt to say."""
    with_feast = {name for name, folder in renders.items() if recorded_answers(folder)["features"] == "feast"}
    found = set()
    for name, folder in renders.items():
        pinned = "feast==" in (folder / "constraints.txt").read_text()
        imported = any("feast" in dotted.split(".")[0] for _, dotted in imports_of(folder, "*.py"))
        found |= {name} if pinned or imported else set()
    assert found == with_feast


@pytest.mark.parametrize(
    ("source", "written"), [("additions", "."), ("kubernetes/manifests", "deploy"), ("alerts/runbooks", "runbooks")]
)
def test_every_addition_every_manifest_and_every_runbook_is_written_for_some_answers(
    source: str, written: str, template: Path, renders: dict[str, Path]
) -> None:
    found = set[str]().union(*(files_of(folder / written) for folder in renders.values()))
    forgotten = {name.removesuffix(".jinja") for name in files_of(template / "extensions" / source)} - found
    assert not forgotten, f"no answers bring these files of extensions/{source}: list or delete them"


def test_an_addition_without_jinja_is_written_as_it_stands(template: Path, renders: dict[str, Path]) -> None:
    """It is included by Jinja all the same: two braces in Python would be taken for an expression."""
    additions = files_of(template / "extensions" / "additions")
    plain = {name for name in additions if not name.endswith(".jinja") and f"{name}.jinja" not in additions}
    assert len(plain) > 30
    for folder in renders.values():
        for name in plain.intersection(files_of(folder)):
            assert (folder / name).read_bytes() == additions[name].read_bytes(), f"{name} in {folder.name}"


def test_two_renders_of_the_same_answers_have_the_same_bytes(digests: list[dict[str, str]]) -> None:
    first, second = digests
    assert first == second


def test_make_lock_pins_anew_and_brings_no_cuda(copy_of: Callable[[str], Path]) -> None:
    folder = copy_of("default")
    pins = folder / "constraints.txt"
    before = pins.read_text().splitlines()
    pins.write_text(re.sub("^fastapi==.*", "fastapi==0.1.0", pins.read_text(), flags=re.M))
    (folder / ".venv").mkdir()
    (folder / ".venv/bin").symlink_to(BIN)
    # uv does not read the settings of pip.
    uv = {"UV_DEFAULT_INDEX": os.environ.get("PIP_INDEX_URL"), "UV_FIND_LINKS": os.environ.get("PIP_FIND_LINKS")}
    with patch.dict(os.environ, {name: value for name, value in uv.items() if value}):
        done = run(folder, "make", "-s", "--old-file", ".venv/.installed", "lock")
    assert done.returncode == 0, done.stdout + done.stderr
    after = pins.read_text().splitlines()
    assert after[:2] == before[:2]
    assert after[2:] == sorted(after[2:])
    pinned = pins_of(folder)
    assert {name_of(each) for part in declared(folder) for each in part} <= pinned.keys()
    assert not {name for name in pinned if name.startswith(("cuda-", "nvidia-", "triton"))}
    assert pinned["fastapi"] != "0.1.0"


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_every_variant_passes(check: Check, renders: dict[str, Path]) -> None:
    faults: dict[str, list[str]] = {}
    for name, folder in distinct(renders, *CHECKS[check]).items():
        for fault in check(folder):
            faults.setdefault(fault, []).append(name)
    assert not faults, "\n".join(f"{fault} (in {', '.join(names)})" for fault, names in faults.items())


def test_the_python_of_every_variant_is_clean_by_its_own_ruff_settings(renders: dict[str, Path]) -> None:
    faults = ruff(next(iter(renders.values())).parent)
    assert not faults, "\n".join(faults)


def test_the_types_of_every_variant_are_right(renders: dict[str, Path], tmp_path: Path) -> None:
    """The files of a service with Feast differ from those of one without, and so do the settings of its mypy."""
    for feast in (False, True):
        some = {
            name: folder
            for name, folder in renders.items()
            if (folder / "service/runtime/features_feast.py").exists() == feast
        }
        faults = mypy(join(some, tmp_path / str(feast))) if some else []
        assert not faults, "\n".join(faults)


@pytest.mark.parametrize("variant", ["default", "ray-with-context", "external"])
def test_the_hooks_of_a_service_that_was_just_generated_pass(variant: str, copy_of: Callable[[str], Path]) -> None:
    faults = hooks(copy_of(variant))
    assert not faults, "\n".join(faults)
