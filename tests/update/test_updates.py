"""`copier update` costs nobody work: from one release of the template to the next, with a team's edits everywhere."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.rendering import ANSWERS_FILE
from tests.update import services
from tests.update.services import MARK, NEW, NEW_FILE, OLD, answers_of, commit, contents, copy, git, status, team_files
from tests.variants import choices_of, second_model

SECOND = second_model()
CONFLICT = "service/runtime/logs.py"
OURS, MERGED = "# our own change\n", "# our own first line\n"


@pytest.fixture(params=choices_of("serving"))
def answers(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Each serving mode, with different features."""
    features = choices_of("features")
    features = features[choices_of("serving").index(request.param) % len(features)]
    return {"serving": request.param, "features": features, "more_models": [SECOND]}


def edit_the_platform(folder: Path) -> None:
    """One change at the very place that the next release changes, and one that is far from it."""
    (folder / CONFLICT).write_text((folder / CONFLICT).read_text() + OURS)
    (folder / ".gitignore").write_text(MERGED + (folder / ".gitignore").read_text())
    commit(folder, "changes to the platform's files")


def test_no_line_of_the_team_is_lost_and_the_conflict_is_seen(
    answers: dict[str, Any], releases: Path, tmp_path: Path
) -> None:
    folder = services.service(releases, tmp_path / "service", **answers)
    before = services.edit_as_the_team(folder)
    edit_the_platform(folder)
    services.update(folder)

    assert team_files(folder) == before
    changed = status(folder)
    assert [path for path, letters in changed.items() if "U" in letters] == [CONFLICT]
    assert [path for path, content in contents(folder).items() if b"\n<<<<<<< " in content] == [CONFLICT]
    conflict = (folder / CONFLICT).read_text()
    assert OURS in conflict
    assert MARK in conflict
    assert not [path for path in changed if path.endswith(".rej")]
    merged = (folder / ".gitignore").read_text()
    assert merged.startswith(MERGED)
    assert merged.endswith(MARK)
    assert (folder / NEW_FILE).exists()
    assert answers_of(folder)["new_question"] == "as before"


def test_an_update_without_edits_equals_a_fresh_copy(answers: dict[str, Any], releases: Path, tmp_path: Path) -> None:
    """But for the files of the team, which stay as they are, to the byte."""
    folder = services.service(releases, tmp_path / "service", **answers)
    old = contents(folder)
    services.update(folder)
    fresh, updated = contents(copy(releases, tmp_path / "fresh", NEW, **answers)), contents(folder)
    assert updated.keys() == fresh.keys()
    assert [path for path in fresh if updated[path] != fresh[path]] == sorted(team_files(folder))
    assert all(updated[path] == old[path] for path in team_files(folder))
    unmarked = [path for path, content in fresh.items() if MARK.encode() not in content]
    assert unmarked == [ANSWERS_FILE], "the new release of this test should change every other file"


def test_a_second_update_changes_nothing(releases: Path, tmp_path: Path) -> None:
    folder = services.service(releases, tmp_path / "service")
    services.update(folder)
    commit(folder, "updated")
    services.update(folder)
    assert status(folder) == {}


def test_what_the_team_deleted_stays_deleted(answers: dict[str, Any], releases: Path, tmp_path: Path) -> None:
    folder = services.service(releases, tmp_path / "service", **answers)
    for path in team_files(folder):
        (folder / path).unlink()
    commit(folder, "without the team's files")
    services.update(folder)
    assert team_files(folder) == {}


def test_a_platform_file_that_was_deleted_stays_deleted(releases: Path, tmp_path: Path) -> None:
    folder = services.service(releases, tmp_path / "service")
    (folder / "ARCHITECTURE.md").unlink()
    commit(folder, "without the architecture")
    services.update(folder)
    assert not (folder / "ARCHITECTURE.md").exists()


@pytest.mark.parametrize("version", [OLD, NEW])
def test_a_new_model_brings_its_files_and_touches_no_other_of_the_team(
    version: str, releases: Path, tmp_path: Path
) -> None:
    """With the release that the service is on, and together with the next one."""
    folder = services.service(releases, tmp_path / "service")
    before = services.edit_as_the_team(folder)
    services.update(folder, version, more_models=[SECOND])
    after = team_files(folder)
    assert after.keys() - before.keys() == {"service/models/second_model.py", "tests/models/test_second_model.py"}
    assert {path: after[path] for path in before} == before
    fresh = copy(releases, tmp_path / "fresh", version, more_models=[SECOND], serving=answers_of(folder)["serving"])
    new = after.keys() - before.keys()
    assert {path: after[path] for path in new} == {path: contents(fresh)[path] for path in new}
    assert "name: second-model" in (folder / "config/service.yaml").read_text()


def test_a_load_that_a_model_cannot_carry_is_refused_and_the_model_is_not_dropped(
    releases: Path, tmp_path: Path
) -> None:
    """Of a recorded answer that is refused at its own question, an update takes the default: no further models."""
    folder = services.service(releases, tmp_path / "service", more_models=[{**SECOND, "max_replicas": 2}])
    with pytest.raises(
        ValueError, match=r"more_models entry 1 \('second-model'\), max_replicas is 2: expected_rps 200 / 2"
    ):
        services.update(folder, expected_rps=200, model_max_replicas=9)
    assert status(folder) == {}
    services.update(folder, expected_rps=200, model_max_replicas=9, more_models=[{**SECOND, "max_replicas": 9}])
    assert "name: second-model" in (folder / "config/serve.yaml").read_text()


def test_a_promise_that_a_recorded_model_cannot_keep_is_refused_and_the_model_is_not_dropped(
    releases: Path, tmp_path: Path
) -> None:
    slow = {**SECOND, "max_batch_size": 1, "max_batch_tokens": 1500}
    folder = services.service(releases, tmp_path / "service", model_max_batch_tokens=1500, more_models=[slow])
    with pytest.raises(ValueError, match=r"model_max_batch_tokens is 1500: .* not under latency_objective_ms 200"):
        services.update(folder, latency_objective_ms=200)
    first: dict[str, Any] = {"model_max_batch_tokens": 256, "model_max_batch_size": 8}
    with pytest.raises(ValueError, match=r"more_models entry 1 .*, max_batch_tokens is 1500"):
        services.update(folder, latency_objective_ms=200, **first)
    assert status(folder) == {}
    services.update(folder, latency_objective_ms=200, **first, more_models=[{**slow, "max_batch_tokens": 256}])
    assert "name: second-model" in (folder / "config/serve.yaml").read_text()


def test_a_model_that_leaves_the_answers_leaves_its_code_to_the_team(
    answers: dict[str, Any], releases: Path, tmp_path: Path
) -> None:
    folder = services.service(releases, tmp_path / "service", **answers)
    before = services.edit_as_the_team(folder)
    services.update(folder, more_models=[])
    assert team_files(folder) == before
    assert not any("second-model" in path.read_text() for path in (folder / "config").iterdir())


def test_a_model_that_comes_back_finds_its_code_as_the_team_left_it(releases: Path, tmp_path: Path) -> None:
    folder = services.service(releases, tmp_path / "service", more_models=[SECOND], serving="container")
    before = services.edit_as_the_team(folder)
    for models in ([], [SECOND]):
        services.update(folder, OLD, more_models=models)
        commit(folder, f"{len(models)} more models")
    assert team_files(folder) == before


def test_a_new_model_does_not_replace_a_file_of_the_team_with_its_name(releases: Path, tmp_path: Path) -> None:
    folder = services.service(releases, tmp_path / "service")
    (folder / "service/models/second_model.py").write_text(services.TEAM_LINE)
    commit(folder, "the team's own second model")
    services.update(folder, OLD, more_models=[SECOND])
    assert (folder / "service/models/second_model.py").read_text() == services.TEAM_LINE


def test_a_renamed_model_gets_new_files_and_the_old_ones_stay(
    answers: dict[str, Any], releases: Path, tmp_path: Path
) -> None:
    folder = services.service(releases, tmp_path / "service", **answers)
    before = services.edit_as_the_team(folder)
    services.update(folder, model_name="renamed")
    after = team_files(folder)
    features = {"service/features/renamed.py"} if answers["features"] != "none" else set()
    assert after.keys() - before.keys() == {"service/models/renamed.py", "tests/models/test_renamed.py"} | features
    assert {path: after[path] for path in before} == before


def test_the_serving_mode_can_change_and_change_back(releases: Path, tmp_path: Path) -> None:
    folder = services.service(releases, tmp_path / "service", serving="container")
    before = services.edit_as_the_team(folder)
    for serving in ("ray", "container"):
        services.update(folder, OLD, serving=serving)
        assert team_files(folder) == before
        fresh = contents(copy(releases, tmp_path / serving, serving=serving))
        now = contents(folder)
        assert now.keys() - before.keys() == fresh.keys() - before.keys()
        assert [path for path in fresh if now[path] != fresh[path] and path not in before] == []
        commit(folder, serving)


@pytest.mark.parametrize("store", [store for store in choices_of("features") if store != "none"])
def test_features_can_be_taken_up_given_up_and_taken_up_again(store: str, releases: Path, tmp_path: Path) -> None:
    """The team's views stay when features go, and are found as they were when features come back."""
    folder = services.service(releases, tmp_path / "service")
    models = services.edit_as_the_team(folder)
    services.update(folder, OLD, features=store)
    fresh = contents(copy(releases, tmp_path / "fresh", features=store))
    now = contents(folder)
    assert [path for path in fresh if path not in models and now[path] != fresh[path]] == []
    assert {path: now[path] for path in models} == models
    commit(folder, "features")
    before = services.edit_as_the_team(folder)
    assert before.keys() - models.keys() >= {"service/features/views.py", "jobs/example_features.jsonl"}
    for features in ("none", store):
        services.update(folder, OLD, features=features)
        commit(folder, features)
        now = contents(folder)
        assert {path: now[path] for path in before} == before
        assert ("service/runtime/features.py" in now) == (features != "none")


def mypy_of(folder: Path) -> list[str]:
    done = subprocess.run([sys.executable, "-m", "mypy"], cwd=folder, check=False, capture_output=True, text=True)
    return done.stdout.splitlines() if done.returncode else []


@pytest.mark.parametrize("database", ["qdrant_cloud", "pinecone"])
def test_a_search_can_be_taken_up_given_up_and_taken_up_again(database: str, releases: Path, tmp_path: Path) -> None:
    """The team's documents, and how its models use them, stay when the search goes, and are found as they were."""
    folder = services.service(releases, tmp_path / "service", more_models=[SECOND])
    models = services.edit_as_the_team(folder)
    services.update(folder, OLD, vector_db=database)
    fresh = contents(copy(releases, tmp_path / "fresh", vector_db=database, more_models=[SECOND]))
    now = contents(folder)
    assert [path for path in fresh if path not in models and now[path] != fresh[path]] == []
    assert {path: now[path] for path in models} == models
    commit(folder, "search")
    before = services.edit_as_the_team(folder)
    new = {"jobs/example_documents.jsonl", "service/retrieval/embedder.py", "service/retrieval/second_model.py"}
    assert before.keys() - models.keys() >= new
    for answer in ("none", database):
        services.update(folder, OLD, vector_db=answer)
        commit(folder, answer)
        now = contents(folder)
        assert {path: now[path] for path in before} == before
        assert ("service/runtime/search.py" in now) == (answer != "none")
        if database == "qdrant_cloud":  # what is kept of the search is no fault of a service without one
            assert mypy_of(folder) == []


def test_another_model_that_embeds_leaves_each_model_with_its_way_to_read_documents(
    releases: Path, tmp_path: Path
) -> None:
    """The old one reads documents from now on, so it gets the file in which the team says which."""
    more = [{**SECOND, "task": "embedding"}]
    both: dict[str, Any] = {"vector_db": "qdrant_cloud", "more_models": more, "serving": "container"}
    folder = services.service(releases, tmp_path / "service", **both)
    assert not (folder / "service/retrieval/minilm.py").exists()
    before = services.edit_as_the_team(folder)
    services.update(folder, OLD, embedder=SECOND["name"])
    assert (folder / "service/retrieval/minilm.py").exists()
    assert team_files(folder).items() >= before.items()
    with (folder / "service/retrieval/minilm.py").open("a") as file:
        file.write("# ours\n")
    commit(folder, "another embeds")
    for name in ("minilm", SECOND["name"]):
        services.update(folder, OLD, embedder=name)
        commit(folder, name)
    assert (folder / "service/retrieval/minilm.py").read_text().endswith("# ours\n")


def test_a_model_that_embeds_and_goes_is_not_replaced_by_another_without_a_word(releases: Path, tmp_path: Path) -> None:
    more = [{**SECOND, "task": "embedding"}]
    search: dict[str, Any] = {"vector_db": "qdrant_cloud", "embedder": SECOND["name"], "serving": "container"}
    folder = services.service(releases, tmp_path / "service", more_models=more, **search)
    renamed = [{**more[0], "name": "another"}]
    with pytest.raises(ValueError, match="embedder is ''"):
        services.update(folder, OLD, more_models=renamed)
    services.update(folder, OLD, more_models=renamed, embedder="another")
    assert answers_of(folder)["embedder"] == "another"


def test_copying_anew_over_a_service_keeps_the_files_of_the_team(releases: Path, tmp_path: Path) -> None:
    """`copier recopy` discards changes to the platform's files; it is the way out when an update went wrong."""
    import copier

    folder = services.service(releases, tmp_path / "service")
    before = services.edit_as_the_team(folder)
    edit_the_platform(folder)
    copier.run_recopy(folder, defaults=True, overwrite=True, quiet=True, vcs_ref=NEW)
    assert team_files(folder) == before
    assert OURS not in (folder / CONFLICT).read_text()


@pytest.mark.parametrize("conflicts", [False, True])
def test_make_update_fails_when_there_is_a_conflict_and_only_then(
    conflicts: bool, releases: Path, tmp_path: Path
) -> None:
    """The command of the service itself, as Copier ends with 0 either way."""
    folder = services.service(releases, tmp_path / "service")
    services.edit_as_the_team(folder)
    if conflicts:
        edit_the_platform(folder)
    done = services.make_update(folder)
    assert answers_of(folder)["_commit"] == NEW, done.stderr
    assert (done.returncode != 0) == conflicts, done.stdout + done.stderr
    assert (CONFLICT in done.stdout) == conflicts
    assert "Traceback" not in done.stderr


@pytest.mark.run
def test_a_service_that_gives_up_feast_works_with_redis_and_its_team_is_told_what_remains(
    releases: Path, tmp_path: Path
) -> None:
    folder = services.service(releases, tmp_path / "service", features="feast")
    before = services.edit_as_the_team(folder)
    services.update(folder, OLD, features="redis")
    told = (folder / "FEAST-LEFTOVERS.md").read_text()
    assert all(
        path.startswith(("README", "deploy/overlays/", "service/models/", "tests/models/"))
        or path.split("/")[0] in told
        for path in before
    )
    assert {path: contents(folder)[path] for path in before} == before
    left = [path for path in contents(folder) if "feast" in path or path.startswith(("jobs/build", "jobs/mat"))]
    assert left == []
    assert "feast" not in (folder / "pyproject.toml").read_text() + (folder / "constraints.txt").read_text()
    start_and_check(folder)
    commit(folder, "given up")
    (folder / "FEAST-LEFTOVERS.md").unlink()
    commit(folder, "read")
    services.update(folder)
    assert not (folder / "FEAST-LEFTOVERS.md").exists()


@pytest.mark.run
def test_a_service_with_edits_still_answers_after_an_update_and_a_move_to_ray(releases: Path, tmp_path: Path) -> None:
    folder = services.service(releases, tmp_path / "service", serving="container")
    before = services.edit_as_the_team(folder)
    services.update(folder)
    start_and_check(folder)
    commit(folder, "updated")
    services.update(folder, serving="ray")
    assert team_files(folder) == before
    start_and_check(folder)


def start_and_check(folder: Path) -> None:
    """Start the service in `folder` and run the contract suite that it ships."""
    from tests.run.service import contract

    contract(folder)


def test_the_tests_of_this_file_see_a_release_that_costs_the_team_its_work(releases: Path, tmp_path: Path) -> None:
    """The guard rail bites: a release that forgets to leave the team's files out would be caught above."""
    forgetful = tmp_path / "template"
    git(tmp_path, "clone", "--quiet", str(releases), str(forgetful))
    text = (forgetful / "copier.yml").read_text()
    start, end = text.index("    {% if _copier_operation == 'update' %}"), text.index("_external_data:")
    (forgetful / "copier.yml").write_text(text[:start] + "    {# nothing #}\n" + text[end:])
    commit(forgetful, "forgets the team")
    git(forgetful, "tag", "v1.2.0")
    folder = services.service(forgetful, tmp_path / "service")
    services.edit_as_the_team(folder)
    services.update(folder, "v1.2.0")
    assert "service/models/minilm.py" in [path for path, letters in status(folder).items() if "U" in letters]
