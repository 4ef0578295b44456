"""Every bad answer ends in one line that names the value and says what to change."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from questionnaire import ASKED, COMPUTED, QUESTIONS, Questionnaire

from tests.variants import AXES

L4 = {"gpu_type": "l4"}
OK = {"name": "tox", "source": "./w", "revision": "v1"}
CLASSIFIES = {"task": "text-classification"}
HALF = L4 | {"model_gpu_share": 0.5}
MIG = {"gpu_type": "a100-80gb", "model_gpu_share": 0.2, "gpu_sharing": "mig"}
SELF_HOSTED = AXES["vector_db"]["qdrant_self_hosted"]
DNS = "use lower-case letters, digits and -"
COMMIT = "Give the full 40-digit commit"

# answers -> what the message must say: the value, then the remedy
REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"servce_name": "x"}, "servce_name is 'x'", "there is no such question"),
    ({"needs_features": "nope"}, "needs_features is 'nope'", "give true or false"),
    ({"model_min_replicas": "two"}, "model_min_replicas is 'two'", "give a whole number from 1"),
    ({"service_name": "Text Service"}, "service_name is 'Text Service'", DNS),
    ({"service_name": "9lives"}, "service_name is '9lives'", DNS),
    ({"service_name": "text-service-"}, "service_name is 'text-service-'", DNS),
    ({"service_name": "a" * 41}, "service_name is 'aaaa", "at most 40 characters"),
    ({"service_name": ""}, "service_name is ''", DNS),
    ({"service_name": "text\nservice"}, r"service_name is 'text\nservice'", DNS),
    ({"service_name": "on"}, "service_name is 'on'", "for example on-service"),
    ({"description": "two\nlines"}, r"description is 'two\nlines'", "write one line"),
    ({"description": 'a "quoted" word'}, "quoted", "without double quotes"),
    ({"description": " "}, "description is ' '", "write one line"),
    ({"owner": "@ml"}, "owner is '@ml'", "name a team"),
    (
        {"image_registry": "https://registry.example.com"},
        "'https://registry.example.com'",
        "without https://",
    ),
    (
        {"image_registry": "registry.example.com/ml/"},
        "'registry.example.com/ml/'",
        "without a slash at the end",
    ),
    ({"expected_rps": 0}, "expected_rps is 0", "give a number from 0.001"),
    ({"expected_rps": "many"}, "expected_rps is 'many'", "give a number from 0.001"),
    ({"expected_rps": True}, "expected_rps is True", "give a number"),
    ({"expected_rps": float("nan")}, "expected_rps is nan", "give a number"),
    ({"expected_rps": float("inf")}, "expected_rps is inf", "give a number"),
    ({"expected_rps": None}, "expected_rps is None", "give a number"),
    ({"expected_rps": [5]}, "expected_rps is [5]", "give a number"),
    ({"latency_objective_ms": 0.5}, "latency_objective_ms is 0.5", "give a whole number from 10"),
    ({"latency_objective_ms": 9}, "latency_objective_ms is 9", "give a whole number from 10"),
    ({"latency_objective_ms": "500ms"}, "latency_objective_ms is '500ms'", "give a whole number from 10"),
    ({"availability_objective": 100}, "availability_objective is 100", "90 to below 100"),
    ({"availability_objective": 0.999}, "availability_objective is 0.999", "90 to below 100"),
    ({"availability_objective": "99,9"}, "availability_objective is '99,9'", "90 to below 100"),
    ({"gpu_type": "b200"}, "'b200'", "not in ['none', 't4', 'l4'"),
    ({"vector_db": "milvus"}, "'milvus'", "not in ['none', 'qdrant_cloud', 'pinecone', 'qdrant_self_hosted']"),
    ({"vector_db": "qdrant_self_hosted"}, "qdrant_storage_gib is None", "give a whole number from 1 to 16384 GiB"),
    ({**SELF_HOSTED, "qdrant_storage_gib": "big"}, "qdrant_storage_gib is 'big'", "give a whole number"),
    ({**SELF_HOSTED, "qdrant_memory_gib": None}, "qdrant_memory_gib is None", "or choose a managed vector_db"),
    (
        {**SELF_HOSTED, "qdrant_replication_factor": 1},
        "qdrant_replication_factor is 1",
        "from 2 to 3 of the three nodes",
    ),
    ({**SELF_HOSTED, "qdrant_backup_bucket": ""}, "qdrant_backup_bucket is ''", "name the bucket that backups go to"),
    ({**SELF_HOSTED, "qdrant_backup_bucket": "s3://b"}, "'s3://b'", "without s3:// and without a path"),
    ({**SELF_HOSTED, "qdrant_on_call": ""}, "qdrant_on_call is ''", "name the team that is paged for the database"),
    (
        {"vector_db": "pinecone", "model_task": "text-classification"},
        "embedder is ''",
        "add one to more_models, choose model_task embedding",
    ),
    ({"vector_db": "pinecone", "embedder": "tox"}, "embedder is 'tox'", "choose one of minilm"),
    ({"model_name": "MiniLM"}, "model_name is 'MiniLM'", DNS),
    ({"model_name": "a" * 31}, "model_name is 'aaa", "at most 30 characters"),
    ({"model_name": "import"}, "model_name is 'import'", "for example import-model"),
    ({"model_name": "init"}, "model_name is 'init'", "for example init-model"),
    ({"model_name": "aux"}, "model_name is 'aux'", "for example aux-model"),
    ({"model_name": "null"}, "model_name is 'null'", "lengthen it"),
    ({"model_task": "translation"}, "'translation'", "not in ['embedding', 'text-classification']"),
    ({"model_source": "../weights"}, "model_source is '../weights'", "a path that starts with / or ./"),
    ({"model_source": "https://hub/x"}, "model_source is 'https://hub/x'", "give a hub id such as"),
    ({"model_source": "a/b/c"}, "model_source is 'a/b/c'", "give a hub id such as"),
    ({"model_revision": "main"}, "model_revision is 'main'", COMMIT),
    ({"model_revision": "c9745ed"}, "model_revision is 'c9745ed'", COMMIT),
    ({"model_source": "intfloat/e5-small"}, "model_revision is ''", COMMIT + " of intfloat/e5-small"),
    ({"model_source": "./weights", "model_revision": "a b"}, "model_revision is 'a b'", "for example v1"),
    ({"model_parameters_millions": -1}, "model_parameters_millions is -1", "give a number from 0.001"),
    ({"model_parameters_millions": "7B"}, "model_parameters_millions is '7B'", "give a number from 0.001"),
    ({"model_parameters_millions": 70000}, "is 70000", "or a longer latency_objective_ms"),
    (
        L4 | {"model_parameters_millions": 70000},
        "in bfloat16 take 130.39 GiB",
        "choose a smaller model, a larger gpu_type",
    ),
    ({"model_dtype": "float16"}, "model_dtype is 'float16'", "choose float32 or bfloat16"),
    ({"gpu_type": "t4", "model_dtype": "bfloat16"}, "'bfloat16': a t4", "choose float16 or float32"),
    ({"model_dtype": "int8"}, "'int8'", "not in ['float32', 'bfloat16']"),
    (
        L4 | {"model_parameters_millions": 8000, "model_dtype": "float32"},
        "model_dtype is 'float32'",
        "choose bfloat16",
    ),
    ({"model_gpu_share": 0.5}, "model_gpu_share is 0.5", "give 0 or choose a gpu_type"),
    (L4 | {"model_gpu_share": 1.5}, "model_gpu_share is 1.5", "give a number from 0 to 1"),
    (L4 | {"model_gpu_share": "half"}, "model_gpu_share is 'half'", "give a number from 0 to 1"),
    (L4 | {"model_gpu_share": 0.00001}, "model_gpu_share is 1e-05", "steps of 0.0001"),
    (
        {"gpu_type": "t4", "model_gpu_share": 0},
        "model_gpu_share is 0",
        "give a share above 0 or change model_dtype",
    ),
    (
        L4 | {"model_gpu_share": 0.03},
        "a share of 0.03 is 0.59 GiB",
        "raise model_gpu_share to at least 0.0325",
    ),
    (L4 | {"model_parameters_millions": 3000, "model_gpu_share": 0.3}, "5.94 GiB", "to at least 0.3137"),
    ({"model_max_batch_size": 0}, "model_max_batch_size is 0", "give a whole number from 1"),
    ({"model_max_batch_size": 2.5}, "model_max_batch_size is 2.5", "give a whole number from 1"),
    ({"model_max_batch_size": 512}, "4096 tokens", "lower model_max_batch_size to at most 262"),
    (
        {"model_max_batch_tokens": 100},
        "32 x 8 tokens (a short text) is 256",
        "lower model_max_batch_size to 12",
    ),
    (
        {"model_max_batch_tokens": 3000},
        "712.2 ms for a batch of 3000",
        "model_max_batch_tokens to at most 2101",
    ),
    (
        L4 | {"model_parameters_millions": 400, "model_gpu_share": 0.1, "model_max_batch_tokens": 3000},
        "1.14 GiB, 2.49 GiB in all, while 0.9 x 22.0 GiB (l4) x a share of 0.1 is 1.98 GiB",
        "raise model_gpu_share to at least 0.1258",
    ),
    ({"model_batch_wait_ms": 100}, "100 ms of waiting and an estimated 487.4 ms", "wait less than 12.554 ms"),
    ({"model_batch_wait_ms": -1}, "model_batch_wait_ms is -1", "give a number from 0"),
    ({"model_batch_wait_ms": "5ms"}, "model_batch_wait_ms is '5ms'", "give a number from 0"),
    ({"model_long_text": "drop"}, "'drop'", "not in ['truncate', 'refuse']"),
    ({"model_min_replicas": 0}, "model_min_replicas is 0", "give a whole number from 1"),
    (
        {"model_min_replicas": 3, "model_max_replicas": 2},
        "fewer than model_min_replicas 3",
        "give at least 3",
    ),
    ({"more_models": "toxicity"}, "more_models is 'toxicity'", "give a YAML list"),
    ({"more_models": OK}, "more_models is {'name': 'tox'", "give a YAML list"),
    ({"more_models": None}, "more_models is None", "or [] for none"),
    ({"more_models": 3}, "more_models is 3", "or [] for none"),
    ({"more_models": ["toxicity"]}, "more_models entry 1 is 'toxicity'", "give a mapping"),
    ({"more_models": [OK, [OK]]}, "more_models entry 2 is [{", "give a mapping"),
    ({"more_models": [{}]}, "more_models entry 1 is {}: it has no name", "add it"),
    ({"more_models": [{"name": "tox"}]}, "it has no source", "add it"),
    ({"more_models": [{"name": "tox", "source": "./w"}]}, "it has no revision", "add it"),
    (
        {"more_models": [OK | {"model_task": "embedding"}]},
        "unknown key 'model_task'",
        "the keys are name, task",
    ),
    ({"more_models": [OK | {1: 2}]}, "unknown key 1", "the keys are name, task"),
    (
        {"more_models": [OK | {"name": "minilm"}]},
        "name is 'minilm': another model has that name",
        "choose another",
    ),
    ({"more_models": [OK, OK]}, "more_models entry 2 ('tox'), name is 'tox'", "names must differ"),
    ({"more_models": [OK | {"name": True}]}, "name is True", DNS),
    (
        {"more_models": [OK | {"task": "translate"}]},
        "task is 'translate'",
        "choose one of embedding, text-classification",
    ),
    ({"more_models": [OK | {"source": None}]}, "source is None", "give a hub id"),
    ({"more_models": [OK | {"source": "a/b", "revision": "main"}]}, "revision is 'main'", COMMIT + " of a/b"),
    ({"more_models": [OK | {"dtype": "float16"}]}, "dtype is 'float16'", "choose float32 or bfloat16"),
    (
        {"more_models": [OK | {"max_batch_size": {"a": 1}}]},
        "max_batch_size is {'a': 1}",
        "give a whole number",
    ),
    (
        {"more_models": [OK | {"batch_wait_ms": 400}]},
        "('tox'), batch_wait_ms is 400",
        "lower max_batch_tokens to at most",
    ),
    ({"more_models": [OK | {"long_text": 1}]}, "long_text is 1", "choose one of truncate, refuse"),
    (L4 | {"model_gpu_share": 0.5, "serving": "container"}, "minilm has gpu_share 0.5", "Choose ray"),
    (
        L4 | {"more_models": [OK], "serving": "container"},
        "minilm, tox all have a gpu_share above 0",
        "Choose ray",
    ),
    ({"serving": "lambda"}, "'lambda'", "not in ['container', 'ray']"),
    (
        {"expected_rps": 250, "model_max_replicas": 2},
        "model_max_replicas is 2: expected_rps 250 needs 7 replicas, as one is estimated to answer 61.6 requests/s",
        "give --data model_max_replicas=7, or lower expected_rps",
    ),
    (
        {"expected_rps": 250, "more_models": [OK | {"max_replicas": 2}]},
        "more_models entry 1 ('tox'), max_replicas is 2: expected_rps 250 / 2 models needs 4 replicas",
        "give it max_replicas: 4, or lower expected_rps",
    ),
    (
        {"expected_rps": 100000},
        "model_max_replicas is 1000: expected_rps 100000 needs 2706 replicas",
        "choose a gpu_type or a smaller model, as a model may have 1000 replicas at most, or lower expected_rps",
    ),
    (
        L4 | {"expected_rps": 10**6},
        "model_max_replicas is 1000: expected_rps 1000000 needs 2219 replicas",
        "choose a larger gpu_type or a smaller model",
    ),
    (
        {"vector_db": "pinecone", "expected_rps": 100, "model_max_replicas": 2, "more_models": [OK | CLASSIFIES]},
        "model_max_replicas is 2: expected_rps 100 needs 3 replicas",
        "give --data model_max_replicas=3",
    ),
    (L4 | {"gpu_sharing": "kai"}, "'kai'", "not in ['exclusive', 'dra']"),
    (
        HALF | {"gpu_sharing": "exclusive"},
        "but minilm has gpu_share 0.5",
        "Choose ray-fraction, or give model_gpu_share 1",
    ),
    (
        L4 | {"gpu_sharing": "exclusive", "more_models": [OK | {"gpu_share": 0.5}]},
        "but tox has gpu_share 0.5",
        "or give its gpu_share in more_models 1",
    ),
    (
        L4 | {"gpu_sharing": "ray-fraction"},
        "gpu_sharing is 'ray-fraction': serving is 'container'",
        "Choose exclusive or dra",
    ),
    ({"gpu_sharing": "mps"}, "gpu_sharing is 'mps': no model has a gpu_share above 0", "leave it out"),
    (L4 | {"gpu_sharing": "mps"}, "gpu_sharing is 'mps': serving is 'container'", "or serving ray"),
    (
        HALF | {"gpu_sharing": "mps", "more_models": [OK | {"gpu_share": 0.25}]},
        "minilm has gpu_share 0.5 and tox 0.25",
        "Give both the same, or choose ray-fraction",
    ),
    (
        L4 | {"model_gpu_share": 0.3, "gpu_sharing": "time-slice"},
        "gpu_sharing is 'time-slice': it divides a card into equal parts, but 1 / gpu_share 0.3 (minilm) is no whole",
        "Give model_gpu_share 0.3333 (3 on a card) or 0.25 (4)",
    ),
    (
        L4 | {"serving": "ray", "gpu_sharing": "mps"},
        "into two parts or more, but minilm has gpu_share 1.0",
        "or give model_gpu_share 0.5 or less",
    ),
    (HALF | {"gpu_sharing": "mig"}, "gpu_type l4 cannot be divided by MIG", "a100-40gb or a100-80gb or h100-80gb"),
    (HALF | {"gpu_type": "t4", "gpu_sharing": "mig"}, "gpu_type t4 cannot", "Choose ray-fraction, mps or time-slice"),
    (HALF | {"gpu_type": "a10g", "gpu_sharing": "mig"}, "gpu_type a10g cannot", "or the gpu_type a100-40gb"),
    (MIG | {"mig_profile": "1g.5gb"}, "gpu_type a100-80gb has no such slices", "choose one of 1g.10gb, 1g.20gb"),
    (MIG | {"mig_profile": ""}, "mig_profile is ''", "choose one of 1g.10gb"),
    (
        MIG | {"mig_profile": "1g.10gb"},
        "a process sees 9.5 GiB of it, but minilm has gpu_share 0.2, which is 15.82 GiB of gpu_type a100-80gb",
        "choose 1g.20gb, or lower model_gpu_share to at most 0.1201",
    ),
    (
        MIG | {"mig_profile": "1g.20gb", "expected_rps": 15000, "model_max_replicas": 36},
        "it has 1/7 of the card to compute with, and minilm max_replicas 36. expected_rps 15000 needs 37 replicas",
        "choose 2g.20gb, or raise max_replicas",
    ),
]


@pytest.mark.parametrize(("data", "value", "remedy"), REFUSED, ids=lambda item: str(item)[:60])
def test_a_bad_answer_is_refused_in_words_that_name_the_value_and_the_remedy(
    questionnaire: Questionnaire, data: dict[str, Any], value: str, remedy: str
) -> None:
    message = questionnaire.refusal(**data)
    assert value in message, message
    assert remedy in message, message
    assert "\n" not in message
    assert message.startswith(("Validation error for question '", "Invalid choice for '"))


@pytest.mark.parametrize("key", COMPUTED)
def test_a_value_that_is_worked_out_cannot_be_given(questionnaire: Questionnaire, key: str) -> None:
    assert f"{key} is 'x': it is worked out" in questionnaire.refusal(**{key: "x"})


def test_nothing_is_written_when_an_answer_is_refused(questionnaire: Questionnaire) -> None:
    before = set(questionnaire.folder.iterdir())
    questionnaire.refusal(serving="lambda")
    assert set(questionnaire.folder.iterdir()) == before


def test_what_is_known_of_keys_that_are_given_is_what_the_questions_say(render_macro: Callable[..., str]) -> None:
    """Else a new question could not be given, or a word in place of its number would be answered by Python."""
    names = "ASKED, COMPUTED, NUMBERS, YES_OR_NO"
    text = f"{{% from 'extensions/checks/given.jinja' import {names} with context %}}{{{{ [{names}] | tojson }}}}"
    asked, computed, numbers, yes_or_no = json.loads(render_macro(text))
    assert asked.split() == ASKED
    assert computed.split() == COMPUTED
    assert numbers == [key for key in ASKED if QUESTIONS[key]["type"] == "json"]
    assert yes_or_no == [key for key in ASKED if QUESTIONS[key]["type"] == "bool"]


def test_the_answers_of_another_service_may_be_given_whole(questionnaire: Questionnaire) -> None:
    """As `--data-file .copier-answers.yml`, which has keys of Copier's own."""
    assert questionnaire.answers(_commit="v1", _src_path="x", service_name="other")["service_name"] == "other"
