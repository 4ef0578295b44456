"""Each variant starts as shipped, keeps the HTTP contract, and predicts what its plain model class predicts."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.manifests.built import build, environments, read
from tests.rendering import recorded_answers
from tests.run.conftest import Render
from tests.run.service import RayHead, container, feature_store, predictions_of_the_plain_class, run_contract
from tests.variants import RUN

TEXTS = [
    "The delivery was late again.",
    "ok",
    "I would like to change the address of my order, because I have moved to another city since I placed it. " * 3,
]


def described_models(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict) and "source" in node:
        yield node
    for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else []:
        yield from described_models(child)


@contextmanager
def started(folder: Path, request: pytest.FixtureRequest, env: dict[str, str]) -> Iterator[str]:
    if (folder / "config/service.yaml").exists():
        with container(folder, **env) as url:
            yield url
    else:
        head: RayHead = request.getfixturevalue(
            "feast_ray_head" if (folder / "service/runtime/features_feast.py").exists() else "ray_head"
        )
        yield head.deploy(folder, config=config_in_the_cluster(folder), env=env)


def config_in_the_cluster(folder: Path) -> dict[str, Any]:
    """The Serve config inside the RayService of every overlay, as it would be applied."""
    name = f"RayService/{recorded_answers(folder)['service_name']}"
    texts = {read(build(folder, each))[name]["spec"]["serveConfigV2"] for each in environments(folder)}
    assert texts == {(folder / "config/serve.yaml").read_text()}
    return dict(yaml.safe_load(texts.pop()))


def close(one: Any, other: Any, tolerance: float) -> bool:
    if isinstance(one, float):
        return abs(one - other) <= tolerance
    if isinstance(one, list):
        return len(one) == len(other) and all(close(a, b, tolerance) for a, b in zip(one, other, strict=True))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(close(one[key], other[key], tolerance) for key in one)
    return bool(one == other)


@pytest.mark.parametrize("name", list(RUN))
def test_a_started_variant_keeps_the_contract_and_predicts_as_the_plain_class(
    name: str, render: Render, request: pytest.FixtureRequest
) -> None:
    folder = render(**RUN[name])
    config = folder / ("config/service.yaml" if (folder / "config/service.yaml").exists() else "config/serve.yaml")
    with feature_store(folder) as env, started(folder, request, env) as url:
        run_contract(folder, url, **env)
        for model in described_models(yaml.safe_load(config.read_text())):
            path = f"{url}/v1/models/{model['name']}/predict"
            bodies = [[text] for text in TEXTS] + [TEXTS]
            answers = [ask(path, texts) for texts in bodies]
            read = [texts_read(folder, answer, texts) for answer, texts in zip(answers, bodies, strict=True)]
            expected = iter(predictions_of_the_plain_class(folder, model, [text for texts in read for text in texts]))
            tolerance = 1e-4 if model["dtype"] == "float32" else 3e-2  # bfloat16 keeps 8 bits
            for answer, texts in zip(answers, read, strict=True):
                assert close(answer["predictions"], [next(expected) for _ in texts], tolerance)


def ask(path: str, texts: list[str]) -> dict[str, Any]:
    answered = httpx.post(path, json={"instances": [{"text": text} for text in texts]}, timeout=60)
    assert answered.status_code == 200, answered.text
    return dict(answered.json())


def texts_read(folder: Path, answer: dict[str, Any], texts: list[str]) -> list[str]:
    """What a model read: the texts, and after each the documents that the answer names."""
    if "documents" not in answer:
        return texts
    assert answer["degraded"] == []
    assert all(len(ids) == 3 for ids in answer["documents"])
    lines = (folder / "jobs/example_documents.jsonl").read_text().splitlines()
    known = {document["id"]: document["text"] for document in map(json.loads, lines)}
    return [
        "; ".join([text, *(known[each] for each in ids)]) for text, ids in zip(texts, answer["documents"], strict=True)
    ]
