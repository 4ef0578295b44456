"""Answers are kept: what an update may not keep it refuses, and never replaces without a word."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest.mock import patch

import copier
import jinja2
import pytest
from jinja2 import nodes

from tests.update import services
from tests.update.services import NEW, OLD, answers_of, commit, copy, git, status
from tests.variants import QUESTIONS, second_model

SECOND = second_model()
L4 = {"gpu_type": "l4"}
HALF = L4 | {"model_gpu_share": 0.5, "serving": "ray"}
# Answers of the first releases, which any service has.
OLDEST = {"serving", "gpu_type", "features", "models"}


@pytest.mark.parametrize(
    ("before", "given", "said"),
    [
        (
            {"serving": "ray", "ingress": "gateway", "host": "text.acme.com"},
            {"spare_gpus_on_upgrade": "some"},
            "ingress is 'none' and was 'gateway', .* --data ingress=none to take that, or --data ingress=gateway to",
        ),
        (L4 | {"platform": "gke"}, {"gpu_type": "a10g"}, "platform is 'generic' and was 'gke'"),
        (HALF | {"gpu_sharing": "mps"}, {"model_gpu_share": 1}, "gpu_sharing is 'exclusive' and was 'mps'"),
        (
            L4 | {"serving": "container"},
            {"more_models": [SECOND | {"gpu_share": 1}]},
            "serving is 'ray' and was 'container'",
        ),
        (
            {},
            {"model_source": "acme/large"},
            "model_source is 'acme/large' and was .*: give --data model_revision=",
        ),
        ({}, L4, "gpu_type is 'l4' and was 'none', but no model has a share of it"),
        (
            {"vector_db": "qdrant_cloud", "embedder": SECOND["name"], "serving": "container"}
            | {"more_models": [SECOND | {"task": "embedding"}]},
            {"more_models": []},
            f"embedder is 'minilm' and was '{SECOND['name']}'",
        ),
    ],
)
def test_an_answer_that_a_change_makes_impossible_is_refused_and_not_replaced(
    before: dict[str, Any], given: dict[str, Any], said: str, releases: Path, tmp_path: Path
) -> None:
    folder = services.service(releases, tmp_path / "service", **before)
    with pytest.raises(ValueError, match=said):
        services.update(folder, OLD, **given)
    assert status(folder) == {}


def test_what_the_refusal_says_to_give_is_taken(releases: Path, tmp_path: Path) -> None:
    folder = services.service(releases, tmp_path / "service", serving="ray", ingress="gateway")
    services.update(folder, OLD, spare_gpus_on_upgrade="some", ingress="none")
    assert answers_of(folder)["ingress"] == "none"


def test_in_a_folder_whose_name_is_a_pattern_answers_are_kept_all_the_same(releases: Path, tmp_path: Path) -> None:
    folder = services.service(releases, tmp_path / "[w]" / "service*", more_models=[SECOND])
    with pytest.raises(ValueError, match="model_max_batch_size is 32"):
        services.update(folder, OLD, latency_objective_ms=30)


def test_who_is_asked_anew_is_not_told_off_for_the_old_answer(releases: Path, tmp_path: Path) -> None:
    folder = services.service(releases, tmp_path / "service")
    asked: list[str] = []

    def answer(questions: Any, answers: dict[str, Any]) -> dict[str, Any]:
        asked.extend(answers)
        return answers

    with patch("copier._main.unsafe_prompt", answer):
        copier.run_update(
            folder, data={"latency_objective_ms": 30}, skip_answered=True, overwrite=True, quiet=True, vcs_ref=OLD
        )
    assert "model_max_batch_size" in asked
    assert answers_of(folder)["model_max_batch_size"] < 32


def test_what_is_left_out_can_be_worked_out_from_the_answers_of_the_first_releases() -> None:
    """Copier renders the new list with the old answers, inside the old template: else no update would ever begin."""
    environment = jinja2.Environment(autoescape=True)
    for text in QUESTIONS["_exclude"]:
        tree = environment.parse(text)
        assert not list(tree.find_all((nodes.Import, nodes.FromImport, nodes.Include))), text
        own = {name.name for name in tree.find_all(nodes.Name) if name.ctx == "store"}
        with_default = {
            each.node.name
            for each in tree.find_all(nodes.Filter)
            if each.name == "default" and isinstance(each.node, nodes.Name)
        }
        read = {name.name for name in tree.find_all(nodes.Name) if name.ctx == "load"}
        newer = {name for name in read - own - with_default - OLDEST if not name.startswith("_")}
        assert not newer, f"give {newer} a default: services of the first releases do not have it"


def test_a_setting_of_git_for_spaces_costs_no_edit_of_a_platform_file(releases: Path, tmp_path: Path) -> None:
    folder = copy(releases, tmp_path / "service")
    git(tmp_path / "service", "init", "--quiet")
    git(folder, "config", "apply.whitespace", "error")
    commit(folder, "as it came")
    makefile = folder / "Makefile"
    makefile.write_text(makefile.read_text().replace("PORT ?= 8000", "PORT ?= 8123"))
    (folder / "notes.md").write_text("two spaces at the end  \n")
    commit(folder, "ours")
    done = services.make_update(folder)
    assert done.returncode == 0, done.stdout + done.stderr
    assert answers_of(folder)["_commit"] == NEW
    assert "PORT ?= 8123" in makefile.read_text()
