"""Paths are an API: Copier drops a user's edits in silence when a template renames or removes a file."""

from __future__ import annotations

import itertools
from pathlib import Path

from tests.rendering import compiled_once, files_of, render
from tests.variants import AXES, ROOT, RUN, Answers, choices_of

PATHS = Path(__file__).parent / "paths.txt"


def listed() -> tuple[set[str], dict[str, str]]:
    """The paths that services have, and those that they had: path -> document that tells users what to do."""
    lines = [line for line in PATHS.read_text().splitlines() if line and not line.startswith("#")]
    gone = dict(line.split(" gone: ") for line in lines if " gone: " in line)
    return {line for line in lines if " gone: " not in line}, gone


def test_no_path_of_a_service_disappears_without_a_way_for_its_users(template: Path, tmp_path: Path) -> None:
    here, gone = listed()
    rendered = set[str]()
    with compiled_once():
        for serving, features in itertools.product(choices_of("serving"), choices_of("features")):
            answers = {"serving": serving, "features": features}
            rendered |= set(files_of(render(template, tmp_path / f"{serving}-{features}", answers)))
        for serving, (label, database) in itertools.product(choices_of("serving"), AXES["vector_db"].items()):
            answers = {"serving": serving, **database, **AXES["models"]["two"]}
            rendered |= set(files_of(render(template, tmp_path / f"{serving}-{label}-search", answers)))
        rendered |= set(files_of(render(template, tmp_path / "gpu", RUN["ray-shared-gpu"])))
        cluster: tuple[Answers, ...] = (
            {"features": "redis", "vector_db": "pinecone", "head_fault_tolerance": True, "ingress": "gateway"},
            {"gpu_type": "l4", "gpu_sharing": "dra", "weights": "cache", "ingress": "ingress"},
        )
        for number, some in enumerate(cluster):
            answers = {**some, "serving": "ray", "platform": "gke", "secrets": "external"}
            answers["gitops"] = ["argocd", "flux"][number]
            rendered |= set(files_of(render(template, tmp_path / f"kubernetes-{number}", answers)))
    lost, new = sorted(here - rendered), sorted(rendered - here)
    assert not lost, (
        f"{lost} would vanish from services at their next update, with every edit that a team made there. Keep the "
        f"path; or, if it must go, write in docs/ what a team has to do, and in {PATHS.name}: PATH gone: docs/FILE.md"
    )
    assert not new, f"new paths, which we promise to keep from now on: add to {PATHS.name} {new}"
    for path, document in gone.items():
        assert path not in rendered, f"{path} is rendered again: it is not gone"
        assert path in (ROOT / document).read_text(), f"{document} does not say what to do about {path}"


def test_the_list_is_sorted_so_that_changes_to_it_merge() -> None:
    lines = [line for line in PATHS.read_text().splitlines() if not line.startswith("#")]
    assert lines == sorted(lines)
