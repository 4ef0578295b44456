"""What the store on Feast promises, run in a rendered service by its Python: see `test_feast_store.py`."""

import asyncio
import os
import time
from collections.abc import Callable
from typing import Any, ClassVar

import pytest
from prometheus_client import CollectorRegistry
from pydantic import BaseModel

from service.features.views import UserActivity
from service.runtime import feast_import, features_feast
from service.runtime.feature_store import FeatureReader, FeatureWriter, load_feature_settings
from service.runtime.features import FeatureSource, Row, View
from service.runtime.metrics_prometheus import PrometheusExporter
from service.runtime.settings import SettingsError

VIEW = View.of(UserActivity)


def source(*views: type[BaseModel], clock: Callable[[], float] = time.time) -> FeatureSource:
    settings = load_feature_settings()
    exporter = PrometheusExporter(CollectorRegistry())
    return FeatureSource(views or (UserActivity,), FeatureReader(settings), 1.0, exporter, "m", clock)


def write(*entities: str, at_s: float | None = None) -> None:
    at_s = time.time() if at_s is None else at_s
    FeatureWriter(load_feature_settings()).write(
        Row(VIEW, entity, UserActivity(orders_7d=n + 1, spend_7d=9.5), at_s) for n, entity in enumerate(entities)
    )


def read(made: FeatureSource, *entities: str) -> tuple[list[Any], list[str]]:
    async def scenario() -> tuple[list[Any], list[str]]:
        await made.start()
        rows, degraded = await made.read([{"user_id": entity} for entity in entities])
        await made.close()
        return [row[0] for row in rows], degraded

    return asyncio.run(scenario())


def test_each_entity_of_a_read_gets_its_own_values_and_the_unknown_one_defaults() -> None:
    write("a", "b")
    rows, degraded = read(source(), "b", "nobody", "a", "b")
    assert [row.orders_7d for row in rows] == [2, 0, 1, 2]
    assert degraded == ["user_activity: missing"]


def test_a_value_over_the_maximum_age_is_stale_although_feast_returns_it() -> None:
    write("old")
    later_s = time.time() + VIEW.max_age_s + 60
    rows, degraded = read(source(clock=lambda: later_s), "old")
    assert (rows[0].orders_7d, degraded) == (0, ["user_activity: stale"])


def test_a_hundred_requests_at_once_ask_feast_twice_at_most() -> None:
    entities = [f"many-{n}" for n in range(100)]
    write(*entities)
    made = source()
    asked = 0

    async def scenario() -> list[int]:
        nonlocal asked
        await made.start()
        store: Any = made._store
        whole = store._of_entity

        async def counted(*args: Any) -> Any:
            nonlocal asked
            asked += 1
            return await whole(*args)

        store._of_entity = counted
        answers = await asyncio.gather(*(made.read([{"user_id": entity}]) for entity in entities))
        await made.close()
        return [int(rows[0][0].model_dump()["orders_7d"]) for rows, _ in answers]

    assert asyncio.run(scenario()) == list(range(1, 101))
    assert asked <= 2


class Renamed(UserActivity):
    view: ClassVar[str] = "nothing_of_the_kind"


class Wider(UserActivity):
    returns_7d: int = 0


class OfShop(UserActivity):
    entity: ClassVar[str] = "shop_id"


class History(BaseModel):
    view: ClassVar[str] = "user_activity"
    version: ClassVar[int] = 1
    entity: ClassVar[str] = "user_id"
    max_age_s: ClassVar[float] = 60
    keep_s: ClassVar[int] = 60
    last: ClassVar[int] = 5
    events: list[str] = []


@pytest.mark.parametrize(
    ("declared", "words"),
    [
        (Renamed, "no feature view nothing_of_the_kind_v1: define it"),
        (Wider, "user_activity_v1 has no returns_7d: add it"),
        (OfShop, "is read by user_id, not by shop_id"),
        (History, "is a history, and Feast holds values only"),
    ],
)
def test_a_view_that_the_registry_does_not_hold_is_refused_at_start(declared: type[BaseModel], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        source(declared)


def test_a_variable_that_the_configuration_needs_and_nobody_set_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEATURE_STORE_CONFIG", "feature_repo/production.yaml")
    monkeypatch.delenv("FEATURE_REGISTRY", raising=False)
    with pytest.raises(SettingsError, match="needs FEATURE_REGISTRY"):
        load_feature_settings()


def test_a_registry_that_is_down_at_start_costs_defaults_and_is_read_once_it_is_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write("patient")
    whole, down = feast_import.Feast, True

    def opened(**options: Any) -> Any:
        if down:
            raise ConnectionError("no registry")
        return whole(**options)

    monkeypatch.setattr(features_feast, "Feast", opened)
    monkeypatch.setattr(features_feast, "OPEN_EVERY_S", 0.0)
    made = source()

    async def scenario() -> tuple[list[str], list[str]]:
        nonlocal down
        await made.start()
        _, before = await made.read([{"user_id": "patient"}])
        down = False
        deadline = time.monotonic() + 30
        while (after := (await made.read([{"user_id": "patient"}]))[1]) and time.monotonic() < deadline:
            await asyncio.sleep(0.1)
        await made.close()
        return before, after

    before, after = asyncio.run(scenario())
    assert before == ["user_activity: error"]
    assert after == []


def test_an_older_row_does_not_replace_a_newer_one_and_the_newest_of_several_wins() -> None:
    now_s = time.time()
    write("again", at_s=now_s)
    writer = FeatureWriter(load_feature_settings())

    def of(orders: int, age_s: float) -> Row:
        return Row(VIEW, "again", UserActivity(orders_7d=orders, spend_7d=0.0), now_s - age_s)

    assert writer.write([of(99, 3600)]) == 1
    assert read(source(), "again")[0][0].orders_7d == 1
    assert writer.write([of(5, -20), of(4, -10), of(3, 7200)]) == 3
    assert read(source(), "again")[0][0].orders_7d == 5


def test_the_import_of_feast_leaves_metrics_in_memory() -> None:
    from prometheus_client import values

    assert not {name for name in os.environ if name.startswith("PROMETHEUS_MULTIPROC")}
    assert values.ValueClass.__name__ == "MutexValue"
