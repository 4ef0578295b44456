"""The variants that tests render and start, derived from copier.yml: a new choice there cannot be forgotten here.

An axis is a question that offers choices, or the number and the sharing of the models. The matrix is every label of
every axis alone, every pair of labels, and a few named variants; what the questionnaire refuses is left out, and the
questionnaire itself is asked. `python -m tests.variants` prints the names of RUN for a CI matrix, `... NAME` the
answers of one variant.
"""

from __future__ import annotations

import itertools
import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jinja2
import yaml

ROOT = Path(__file__).resolve().parents[1]
QUESTIONS: dict[str, Any] = yaml.safe_load((ROOT / "copier.yml").read_text())
Answers = dict[str, Any]
Pair = tuple[tuple[str, str], tuple[str, str]]
MODELS = "models"


def choices_of(key: str) -> list[Any]:
    """The values that a question offers; a text of choices is Jinja over the tables, as Copier reads it."""
    choices = QUESTIONS[key].get("choices", [True, False] if QUESTIONS[key].get("type") == "bool" else None)
    if isinstance(choices, str):
        choices = yaml.safe_load(jinja2.Template(choices, trim_blocks=True, lstrip_blocks=True).render(tables()))
    values = list(choices.values()) if isinstance(choices, dict) else choices
    return [value["value"] if isinstance(value, dict) else value for value in values]


def tables() -> dict[str, Any]:
    """The computed questions of copier.yml that hold a file of extensions/."""
    found = {}
    for key, question in QUESTIONS.items():
        words = question["default"].split("'") if isinstance(question, dict) and question.get("when") is False else []
        if len(words) > 1 and words[0].endswith("include ") and words[1].endswith(".yml"):
            found[key] = yaml.safe_load((ROOT / words[1]).read_text())
    return found


def second_model(**more: Any) -> Answers:
    """An entry of more_models, of another task than the first model's default."""
    return {"name": "second-model", "task": TASKS[-1], "source": "./weights/second", "revision": "v1", **more}


def is_choice(key: str) -> bool:
    question = QUESTIONS[key]
    return (
        not key.startswith("_")
        and question.get("when") is not False
        and ("choices" in question or question.get("type") == "bool")
    )


def label_of(key: str, value: Any) -> str:
    """How a choice is called in the names of variants."""
    return str(value) if not isinstance(value, bool) else key if value else f"not_{key}"


# Answers that let each way of sharing cards be given: whole cards, shares of any size, equal parts, MIG.
SHARING: dict[str, Answers] = {
    "exclusive": {"gpu_type": "l4"},
    "ray-fraction": {"serving": "ray", "gpu_type": "l4", "model_gpu_share": 0.4},
    "mps": {"serving": "ray", "gpu_type": "l4", "model_gpu_share": 0.25},
    "time-slice": {"serving": "ray", "gpu_type": "l4", "model_gpu_share": 0.5},
    "mig": {"serving": "ray", "gpu_type": "a100-80gb", "model_gpu_share": 0.2},
    "dra": {"gpu_type": "l4"},
}


def asked_with(key: str) -> Answers:
    """The answers with which the question `key` is asked, by its `when`: `{{ other }}` or `{{ other == 'value' }}`."""
    when = QUESTIONS[key].get("when")
    if when is None or key == "gpu_sharing":
        return {}
    other, value = re.fullmatch(r"\{\{ (\w+)(?: == '(\w+)')? \}\}", when).groups()  # type: ignore[union-attr]
    return {other: value or True}


TASKS: list[str] = choices_of("model_task")
# Axis -> label -> answers.
AXES: dict[str, dict[str, Answers]] = {
    key: {
        label_of(key, value): {**(asked_with(key) if value != QUESTIONS[key]["default"] else {}), key: value}
        for value in choices_of(key)
    }
    for key in QUESTIONS
    if is_choice(key)
}
AXES["gpu_sharing"] = {label: {**SHARING[label], **answers} for label, answers in AXES["gpu_sharing"].items()}
# What running a database takes: the questionnaire refuses it while that is blank.
AXES["vector_db"]["qdrant_self_hosted"] |= {
    "qdrant_storage_gib": 50,
    "qdrant_memory_gib": 4,
    "qdrant_backup_bucket": "backups-of-search",
    "qdrant_on_call": "data-platform",
}
AXES[MODELS] = {
    "one": {},
    "two": {"more_models": [second_model()]},
    "half": {"model_gpu_share": 0.5},
    "two-halves": {"model_gpu_share": 0.5, "more_models": [second_model(gpu_share=0.5)]},
}


def unasked(axis: str) -> Any:
    """The value of a question that was not asked: its default, which is the first choice where it is worked out."""
    default = QUESTIONS[axis]["default"]
    return default if label_of(axis, default) in AXES[axis] else choices_of(axis)[0]


# What tests/run starts: the smallest set that has every serving mode with every task, every feature store and every
# vector database, two models, documents and features together, and shared cards.
RUN: dict[str, Answers] = {
    **{
        f"{serving}-{task}": {"serving": serving, "model_task": task}
        for serving in choices_of("serving")
        for task in TASKS
    },
    **{
        f"{serving}-{features}": {"serving": serving, "features": features}
        for serving in choices_of("serving")
        for features in choices_of("features")
        if features != "none"
    },
    **{
        f"{serving}-{database}": {"serving": serving, **AXES["vector_db"][database]}
        for serving in choices_of("serving")
        for database in choices_of("vector_db")
        if database != "none"
    },
    **{f"{serving}-two-models": {"serving": serving, **AXES[MODELS]["two"]} for serving in choices_of("serving")},
    **{
        f"{serving}-with-context": {
            "serving": serving,
            "features": "redis",
            "vector_db": "qdrant_cloud",
            "latency_objective_ms": 4000,  # so that real weights on a CPU embed a burst in time
            **AXES[MODELS]["two"],
        }
        for serving in choices_of("serving")
    },
    "ray-shared-gpu": {"serving": "ray", "gpu_type": "l4", **AXES[MODELS]["two-halves"]},
}

# What no axis reaches: words that need quoting, and numbers at their limits.
NAMED: dict[str, Answers] = {
    "default": {},
    **RUN,
    "awkward-words": {
        "service_name": "a" * 40,
        "description": "no: 'texts' of Müller & Co # 100 %, as they are - null",
        "image_registry": "localhost:5000/a/b",
        "model_name": "a1-b2-" + "c" * 24,
        "model_source": "./weights/a+b@c",
        "model_revision": "2026-01-31",
        "serving": "ray",
    },
    "large": {
        "expected_rps": 250.5,
        "latency_objective_ms": 2000,
        "gpu_type": "h100-80gb",
        "model_name": "large",
        "model_source": "./weights/large",
        "model_parameters_millions": 560.5,
        "model_gpu_share": 0.3334,
        "model_max_batch_size": 256,
        "model_max_batch_tokens": 16384,
        "model_batch_wait_ms": 2.5,
        "model_min_replicas": 3,
        "model_max_replicas": 12,
    },
    **{
        f"{serving}-three-models": {
            "serving": serving,
            "more_models": [second_model(), second_model(name="third", task=TASKS[0], long_text="refuse")],
        }
        for serving in choices_of("serving")
    },
}


# Labels that the questionnaire refuses together, so that pairwise variants do not lose all their other pairs to one
# clash. Only a hint: every pair that is in no accepted variant is asked by itself all the same.
CARDS = set(AXES["gpu_type"]) - {"none"}
SHARED = {"half", "two-halves"}
CLASHES: list[dict[str, set[str]]] = [
    {"serving": {"container"}, MODELS: SHARED},
    {"serving": {"container"}, MODELS: {"two"}, "gpu_type": CARDS},
    {"serving": {"container"}, "gpu_sharing": {"ray-fraction", "mps", "time-slice", "mig"}},
    {"serving": {"ray"}, "spare_gpus_on_upgrade": {"some"}, "ingress": {"gateway", "ingress"}},
    {"gpu_type": {"none"}, MODELS: SHARED},
    {"gpu_type": {"none"}, "gpu_sharing": set(AXES["gpu_sharing"]) - {"exclusive"}},
    {"gpu_type": {"none"}, "model_dtype": {"float16"}},
    {"gpu_type": {"t4"}, "model_dtype": {"bfloat16"}},
    {"gpu_type": {"none", "t4", "l4", "a10g"}, "gpu_sharing": {"mig"}},
    {"gpu_sharing": {"mps", "time-slice"}, MODELS: {"one", "two"}},
    {"gpu_sharing": {"mps"}, "platform": {"gke"}},
    {"gpu_type": {"a10g"}, "platform": {"gke"}},
    {"gpu_sharing": {"exclusive"}, MODELS: SHARED},
    {"needs_features": {"not_needs_features"}, "features_shared": {"features_shared"}},
    {"needs_features": {"not_needs_features"}, "features_point_in_time": {"features_point_in_time"}},
    {"features": {"none", "redis"}, "offline_store": set(AXES["offline_store"]) - {"duckdb"}},
    {"serving": {"container"}, "head_fault_tolerance": {"head_fault_tolerance"}},
    {"vector_db": set(AXES["vector_db"]) - {"none"}, "model_task": {"text-classification"}},
]


def no_clash(row: list[tuple[str, str]]) -> bool:
    """Whether a variant that begins with these labels may be accepted."""
    labels = dict(row)
    return not any(all(labels.get(axis) in clashing for axis, clashing in clash.items()) for clash in CLASHES)


def labels_of(answers: Mapping[str, Any]) -> dict[str, str]:
    """Axis -> label of a service, from its recorded answers."""
    labels = {axis: label_of(axis, answers.get(axis, unasked(axis))) for axis in AXES if axis != MODELS}
    half = any(0 < share < 1 for share in [answers["model_gpu_share"]])
    number = "two" if answers["more_models"] else "one"
    labels[MODELS] = {"one": "half", "two": "two-halves"}[number] if half else number
    return labels


def pairs_of(labels: Mapping[str, str]) -> set[Pair]:
    """Every pair of (axis, label), in the order of AXES."""
    return set(itertools.combinations([(axis, labels[axis]) for axis in AXES], 2))


ALL_PAIRS = {
    ((one, label), (other, other_label))
    for one, other in itertools.combinations(AXES, 2)
    for label in AXES[one]
    for other_label in AXES[other]
}


def of(*labels: tuple[str, str]) -> tuple[str, Answers]:
    """Name and answers of the variant that takes these labels, and defaults for the rest.

    What a label only needs beside it gives way to another label.
    """
    answers: Answers = {}
    for axis, label in labels:
        answers |= AXES[axis][label]
    answers |= {axis: AXES[axis][label][axis] for axis, label in labels if axis != MODELS}
    # A file name has 255 characters; what a row does not name is not so.
    named = [each for each in labels if len(labels) < 3 or not each[1].startswith("not_")]
    return "-".join(f"{label}-model" if axis == MODELS else label for axis, label in named), answers


def candidates() -> dict[str, Answers]:
    """Named, single-choice and pairwise variants, before the questionnaire has been asked."""
    from allpairspy import AllPairs

    singles = [of((axis, label)) for axis in AXES for label in AXES[axis]]
    rows = AllPairs([[(axis, label) for label in AXES[axis]] for axis in AXES], filter_func=no_clash)
    return {**NAMED, **dict(singles), **dict(of(*row) for row in rows)}


def matrix(answers_of: Callable[[str, Answers], Mapping[str, Any] | None]) -> Iterator[str]:
    """The names of the variants that the questionnaire accepts; `answers_of` gives what it records, or None.

    A pair that is in no variant, or whose variant is refused for the sake of a third answer, is asked again: together
    with others of its kind, then by itself.
    """
    uncovered = set(ALL_PAIRS)
    asked = {name: (answers, answers_of(name, answers)) for name, answers in candidates().items()}
    for name, (_, recorded) in asked.items():
        if recorded is not None:
            uncovered -= pairs_of(labels_of(recorded))
            yield name
        elif name in NAMED:
            raise ValueError(f"the questionnaire refuses the named variant {name}")
    for pair in sorted(uncovered):
        if pair not in uncovered:
            continue
        for labels in (joined(pair, uncovered), dict(pair)):
            name, answers = of(*((axis, labels[axis]) for axis in AXES if axis in labels))
            if name not in asked:
                asked[name] = (answers, answers_of(name, answers))
                recorded = asked[name][1]
                if recorded is not None and pairs_of(labels_of(recorded)) & uncovered:
                    uncovered -= pairs_of(labels_of(recorded))
                    yield name
                    break


def joined(pair: Pair, others: set[Pair]) -> dict[str, str]:
    """Axis -> label of this pair, and of as many of the others as go with it."""
    labels = dict(pair)
    for other in sorted(others):
        more = {**labels, **dict(other)}
        if all(labels.get(axis, label) == label for axis, label in other) and no_clash(list(more.items())):
            labels = more
    return labels


def main() -> None:
    if len(sys.argv) == 1:
        print(json.dumps({"variant": list(RUN)}))
        return
    known = candidates()
    if sys.argv[1] not in known:
        sys.exit(f"{sys.argv[1]} is no variant; there are:\n" + "\n".join(known))
    print(json.dumps(known[sys.argv[1]]))


if __name__ == "__main__":
    main()
