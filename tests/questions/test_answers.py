"""What good answers lead to: defaults, each choice, and the values worked out from them."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from questionnaire import ASKED, COMPUTED, QUESTIONS, ROOT, TABLES, Questionnaire

from tests.variants import AXES

L4 = {"gpu_type": "l4"}
TOXICITY = {
    "name": "toxicity",
    "task": "text-classification",
    "source": "./weights/toxicity",
    "revision": "v1",
}


def test_every_question_has_a_default_a_line_of_help_and_a_check() -> None:
    for key in ASKED:
        question = QUESTIONS[key]
        assert "default" in question, key
        help_text = " ".join(line for line in question["help"].splitlines() if "{%" not in line)
        assert 20 < len(help_text) < 300, key
        assert help_text.endswith("."), key
        assert "validator" in question or "choices" in question or question["type"] == "bool", key


def test_no_setting_needs_trust() -> None:
    settings = yaml.safe_load((ROOT / "copier.yml").read_text())
    assert not {"_tasks", "_migrations", "_jinja_extensions"} & set(settings)
    assert settings["_envops"]["undefined"] == "jinja2.StrictUndefined"


def test_the_defaults_are_a_small_embedding_model_on_cpu_in_a_container(questionnaire: Questionnaire) -> None:
    answers = questionnaire.answers()
    (model,) = answers["models"]
    assert (answers["serving"], answers["gpu_type"], answers["more_models"]) == ("container", "none", [])
    assert model == {
        "name": "minilm",
        "module": "minilm",
        "task": "embedding",
        "source": "sentence-transformers/all-MiniLM-L6-v2",
        "revision": "c9745ed1d9f207416be6d2e6f8de32d1f16199bf",
        "dtype": "float32",
        "parameters_millions": 23,
        "gpu_share": 0.0,
        "replicas_per_gpu": 0,
        "max_batch_size": 32,
        "max_batch_tokens": 2048,
        "batch_wait_ms": 0,
        "long_text": "truncate",
        "max_queue_length": 128,
        "max_ongoing_requests": 192,
        "target_ongoing_requests": 32,
        "min_replicas": 1,
        "max_replicas": 2,
        "estimated_batch_ms": 487.45,
    }
    assert (answers["request_timeout_s"], answers["graceful_shutdown_timeout_s"]) == (5, 10)


def test_only_what_was_asked_is_recorded(questionnaire: Questionnaire) -> None:
    recorded = yaml.safe_load((questionnaire.render() / ".copier-answers.yml").read_text())
    always = {key for key in ASKED if "when" not in QUESTIONS[key]}
    assert {key for key in recorded if not key.startswith("_")} == always
    assert not set(COMPUTED) & set(recorded)


@pytest.mark.parametrize("gpu_type", TABLES["gpu_table"])
def test_each_card_is_answered_with_a_whole_card_and_its_first_dtype(
    questionnaire: Questionnaire, gpu_type: str
) -> None:
    answers = questionnaire.answers(gpu_type=gpu_type)
    (model,) = answers["models"]
    assert model["dtype"] == TABLES["gpu_table"][gpu_type]["dtypes"][0]
    assert model["gpu_share"] == (0 if gpu_type == "none" else 1)
    assert answers["serving"] == "container"


@pytest.mark.parametrize("task", TABLES["task_table"])
@pytest.mark.parametrize("long_text", ["truncate", "refuse"])
@pytest.mark.parametrize("serving", ["container", "ray"])
def test_each_choice_is_taken(questionnaire: Questionnaire, task: str, long_text: str, serving: str) -> None:
    answers = questionnaire.answers(model_task=task, model_long_text=long_text, serving=serving)
    assert (answers["models"][0]["task"], answers["models"][0]["long_text"]) == (task, long_text)
    assert answers["serving"] == serving


@pytest.mark.parametrize(
    ("gpu_type", "dtype"),
    [(card, dtype) for card, row in TABLES["gpu_table"].items() for dtype in row["dtypes"]],
)
def test_each_dtype_of_each_card_is_taken(questionnaire: Questionnaire, gpu_type: str, dtype: str) -> None:
    assert questionnaire.answers(gpu_type=gpu_type, model_dtype=dtype)["models"][0]["dtype"] == dtype


@pytest.mark.parametrize(
    ("data", "serving"),
    [
        ({"expected_rps": 9.9}, "container"),
        ({"expected_rps": 10}, "ray"),
        ({"more_models": [TOXICITY]}, "ray"),
        ({"gpu_type": "l4"}, "container"),
        ({"gpu_type": "l4", "model_gpu_share": 0.5}, "ray"),
    ],
)
def test_the_serving_mode_is_worked_out(questionnaire: Questionnaire, data: dict[str, Any], serving: str) -> None:
    assert questionnaire.answers(**data)["serving"] == serving


def test_a_shared_card_is_divided_rounding_down(questionnaire: Questionnaire) -> None:
    answers = questionnaire.answers(gpu_type="l4", model_gpu_share=0.33339)
    (model,) = answers["models"]
    assert (model["gpu_share"], model["replicas_per_gpu"]) == (0.3333, 3)
    fact = answers["plan"]["models"]["minilm"]
    assert fact["num_gpus"] == 0.3333
    assert fact["gpu_memory_fraction"] == 0.2726  # 0.9 x 0.3333 - 0.6 / 22, cut at four decimals


@pytest.mark.parametrize(
    ("data", "sharing"),
    [
        ({}, "exclusive"),
        (L4, "exclusive"),
        (L4 | {"model_gpu_share": 0.5}, "ray-fraction"),
        (L4 | {"more_models": [TOXICITY]}, "exclusive"),
        (L4 | {"more_models": [TOXICITY | {"gpu_share": 0.5}]}, "ray-fraction"),
        (L4 | {"more_models": [TOXICITY | {"gpu_share": 0, "dtype": "float32"}]}, "exclusive"),
    ],
)
def test_cards_are_shared_by_rays_count_where_a_share_is_below_one(
    questionnaire: Questionnaire, data: dict[str, Any], sharing: str
) -> None:
    assert questionnaire.answers(**data)["gpu_sharing"] == sharing


@pytest.mark.parametrize(
    ("sharing", "answers"), [(sharing, AXES["gpu_sharing"][sharing]) for sharing in AXES["gpu_sharing"]]
)
def test_each_way_to_share_cards_is_taken(questionnaire: Questionnaire, sharing: str, answers: dict[str, Any]) -> None:
    given = questionnaire.answers(**answers)
    assert given["gpu_sharing"] == sharing
    assert given["mig_profile"] == ("1g.20gb" if sharing == "mig" else "")


def test_the_plan_of_the_defaults_is_one_process_that_may_become_two(questionnaire: Questionnaire) -> None:
    plan = questionnaire.answers()["plan"]
    (group,) = plan["groups"]
    assert group == {
        "name": "service",
        "gpu": False,
        "slots": {"minilm": 1},
        "cpus": 1,
        "num_cpus": 1,
        "memory_gib": 3,
        "min_pods": 1,
        "expected_pods": 1,
        "max_pods": 2,
    }
    assert plan["models"]["minilm"] == {
        "num_gpus": 0,
        "gpu_memory_gib": None,
        "gpu_memory_fraction": None,
        "replica_rps": 61.6,  # 32 texts of 64 tokens in 487.45 ms, and 32 ms beside
        "needed_replicas": 1,
    }
    assert plan["cards_max"] == 0


def test_values_given_on_the_command_line_arrive_as_text(questionnaire: Questionnaire) -> None:
    answers = questionnaire.answers(
        expected_rps="2.5",
        latency_objective_ms="1200",
        more_models="[{name: tox, source: ./w, revision: v1}]",
    )
    assert (answers["expected_rps"], answers["latency_objective_ms"]) == (2.5, 1200)
    assert answers["request_timeout_s"] == 12
    assert [model["name"] for model in answers["models"]] == ["minilm", "tox"]


def test_an_entry_of_more_models_takes_the_defaults_of_the_first_model(questionnaire: Questionnaire) -> None:
    bare = {"name": "the-other", "source": "./weights", "revision": "v1"}
    first, second = questionnaire.answers(gpu_type="t4", more_models=[bare])["models"]
    differs = {"name": "the-other", "module": "the_other", "source": "./weights", "revision": "v1"}
    assert second == first | differs


def test_an_entry_of_more_models_keeps_what_it_says(questionnaire: Questionnaire) -> None:
    said = TOXICITY | {
        "parameters_millions": 110,
        "dtype": "float16",
        "gpu_share": 0.25,
        "max_batch_size": 16,
    }
    said |= {"max_batch_tokens": 1024, "batch_wait_ms": 2.5, "long_text": "refuse", "min_replicas": 3}
    model = questionnaire.answers(gpu_type="a10g", more_models=[said])["models"][1]
    assert {key: model[key] for key in said} == said
    assert model["max_replicas"] == 3


@pytest.mark.parametrize("objective", [10, 30, 100])
def test_a_tight_promise_lowers_the_default_batch_instead_of_refusing_it(
    questionnaire: Questionnaire, objective: int
) -> None:
    (model,) = questionnaire.answers(latency_objective_ms=objective)["models"]
    assert model["estimated_batch_ms"] <= objective
    assert model["max_batch_tokens"] >= 8 * model["max_batch_size"]


def test_a_path_needs_no_commit(questionnaire: Questionnaire) -> None:
    for source in ("/mnt/weights/minilm", "./weights"):
        assert questionnaire.answers(model_source=source)["model_revision"] == "v1"
    assert questionnaire.answers(model_source="./weights", model_revision="2026-08")["model_revision"] == "2026-08"


def test_another_hub_model_is_taken_with_its_commit(questionnaire: Questionnaire) -> None:
    for source in ("bert-base-uncased", "BAAI/bge-small-en-v1.5"):
        assert questionnaire.answers(model_source=source, model_revision="0" * 40)["model_source"] == source


def test_a_managed_database_is_the_default_once_anything_is_searched(questionnaire: Questionnaire) -> None:
    assert questionnaire.answers()["vector_db"] == "none"
    answers = questionnaire.answers(needs_retrieval=True)
    assert (answers["vector_db"], answers["embedder"], answers["documents_as_context"]) == (
        "qdrant_cloud",
        "minilm",
        False,
    )


def test_the_first_model_that_embeds_makes_the_vectors_and_the_others_read_documents(
    questionnaire: Questionnaire,
) -> None:
    embedding = {"name": "e5", "task": "embedding", "source": "./weights/e5", "revision": "v1"}
    answers = questionnaire.answers(
        vector_db="pinecone", model_task="text-classification", model_name="tox", more_models=[TOXICITY, embedding]
    )
    assert (answers["embedder"], answers["documents_as_context"]) == ("e5", True)


@pytest.mark.parametrize(("objective_ms", "deadline_ms"), [(40, 20), (500, 125), (60000, 1000)])
def test_documents_are_waited_for_a_quarter_of_the_promise(
    questionnaire: Questionnaire, objective_ms: int, deadline_ms: int
) -> None:
    answers = questionnaire.answers(latency_objective_ms=objective_ms, gpu_type="h100-80gb")
    assert answers["retrieval_deadline_ms"] == deadline_ms
