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


def asked_with(key: str) -> Answers:
    """The answers with which the question `key` is asked, by its `when`: `{{ other }}` or `{{ other == 'value' }}`."""
    when = QUESTIONS[key].get("when")
    if when is None:
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


def labels_of(answers: Mapping[str, Any]) -> dict[str, str]:
    """Axis -> label of a service, from its recorded answers."""
    labels = {axis: label_of(axis, answers.get(axis, QUESTIONS[axis]["default"])) for axis in AXES if axis != MODELS}
    half = any(0 < share < 1 for share in [answers["model_gpu_share"]])
    number = "two" if answers["more_models"] else "one"
    labels[MODELS] = {"one": "half", "two": "two-halves"}[number] if half else number
    return labels


def pairs_of(labels: Mapping[str, str]) -> set[tuple[tuple[str, str], tuple[str, str]]]:
    """Every pair of (axis, label), in the order of AXES."""
    return set(itertools.combinations([(axis, labels[axis]) for axis in AXES], 2))


ALL_PAIRS = {
    ((one, label), (other, other_label))
    for one, other in itertools.combinations(AXES, 2)
    for label in AXES[one]
    for other_label in AXES[other]
}


def of(*labels: tuple[str, str]) -> tuple[str, Answers]:
    """Name and answers of the variant that takes these labels, and defaults for the rest."""
    answers: Answers = {}
    for axis, label in labels:
        answers |= AXES[axis][label]
    return "-".join(f"{label}-model" if axis == MODELS else label for axis, label in labels), answers


def candidates() -> dict[str, Answers]:
    """Named, single-choice and pairwise variants, before the questionnaire has been asked."""
    from allpairspy import AllPairs

    singles = [of((axis, label)) for axis in AXES for label in AXES[axis]]
    rows = AllPairs([[(axis, label) for label in AXES[axis]] for axis in AXES])
    return {**NAMED, **dict(singles), **dict(of(*row) for row in rows)}


def matrix(answers_of: Callable[[str, Answers], Mapping[str, Any] | None]) -> Iterator[str]:
    """The names of the variants that the questionnaire accepts; `answers_of` gives what it records, or None.

    A pair whose pairwise variant is refused, for the sake of a third answer, is asked again: by itself, and in place
    of another label in variants that were accepted.
    """
    accepted: list[dict[str, str]] = []
    uncovered = set(ALL_PAIRS)
    asked = {name: (answers, answers_of(name, answers)) for name, answers in candidates().items()}
    for name, (_, recorded) in asked.items():
        if recorded is not None:
            accepted.append(labels_of(recorded))
            uncovered -= pairs_of(accepted[-1])
            yield name
        elif name in NAMED:
            raise ValueError(f"the questionnaire refuses the named variant {name}")
    for pair in sorted(uncovered):
        if pair not in uncovered:
            continue
        swaps = [{**labels, **dict(pair)}.items() for one in pair for labels in accepted if one in labels.items()]
        for labels in [pair, *swaps[:2], *swaps[-2:]]:
            name, answers = of(*labels)
            if name not in asked:
                asked[name] = (answers, answers_of(name, answers))
                if (recorded := asked[name][1]) is not None:
                    accepted.append(labels_of(recorded))
                    uncovered -= pairs_of(accepted[-1])
                    yield name
                    break


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
