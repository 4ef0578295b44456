"""Features over HTTP: what is written about an entity reaches the model; what is unknown degrades and never fails."""

import importlib
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from jobs.write_features import rows_of
from service.runtime.feature_store import FeatureWriter, load_feature_settings
from service.runtime.features import Row, View

EXAMPLES = Path("jobs/example_features.jsonl")


@pytest.fixture(scope="module")
def writer() -> Iterator[FeatureWriter]:
    writer = FeatureWriter(load_feature_settings())
    yield writer
    writer.close()


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    """The example rows of the first entity among them."""
    rows = list(rows_of(EXAMPLES.read_text().splitlines(), time.time()))
    return [row for row in rows if row.entity == rows[0].entity]


@pytest.fixture
def views(model: str) -> list[View]:
    """What the model reads."""
    return [View.of(view) for view in importlib.import_module(f"service.features.{model.replace('-', '_')}").VIEWS]


def of_entity(views: list[View], entity: str) -> dict[str, str]:
    """The entity keys of an instance."""
    return {view.entity: entity for view in views}


def ask(http: httpx.Client, model: str, *instances: dict[str, Any]) -> dict[str, Any]:
    response = http.post(f"/v1/models/{model}/predict", json={"instances": list(instances)})
    assert response.status_code == 200, response.text
    return dict(response.json())


def write_as(writer: FeatureWriter, rows: list[Row], entity: str) -> None:
    writer.write(row._replace(entity=entity) for row in rows)


def test_what_is_written_about_an_entity_changes_its_prediction(
    http: httpx.Client, model: str, example: dict[str, Any], views: list[View], rows: list[Row], writer: FeatureWriter
) -> None:
    entity = uuid.uuid4().hex
    instance = {**example, **of_entity(views, entity)}
    before = ask(http, model, instance)
    assert before["degraded"] == sorted(f"{view.name}: missing" for view in views)
    write_as(writer, rows, entity)
    after = ask(http, model, instance)
    assert after["degraded"] == []
    assert after["predictions"] != before["predictions"]


def test_without_an_entity_nothing_is_read_and_nothing_degraded(
    http: httpx.Client, model: str, example: dict[str, Any]
) -> None:
    assert ask(http, model, example)["degraded"] == []


def test_each_instance_of_a_request_gets_the_features_of_its_own_entity(
    http: httpx.Client, model: str, example: dict[str, Any], views: list[View], rows: list[Row], writer: FeatureWriter
) -> None:
    known, unknown = uuid.uuid4().hex, uuid.uuid4().hex
    write_as(writer, rows, known)
    together = ask(http, model, {**example, **of_entity(views, known)}, {**example, **of_entity(views, unknown)})
    assert together["degraded"] == sorted(f"{view.name}: missing" for view in views)
    assert together["predictions"][0] != together["predictions"][1]


@pytest.mark.parametrize("key", ["", "x" * 201, 7, ["user-1"]])
def test_an_entity_that_cannot_be_a_key_is_refused(
    http: httpx.Client, model: str, example: dict[str, Any], views: list[View], key: Any
) -> None:
    instances = [{**example, views[0].entity: key}]
    response = http.post(f"/v1/models/{model}/predict", json={"instances": instances})
    assert response.status_code == 422
    assert views[0].entity in response.json()["detail"]
