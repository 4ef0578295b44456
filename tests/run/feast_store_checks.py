"""What the store on Feast promises, run in a rendered service by its Python: see `test_feast_store.py`."""

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from enum import Enum
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import typeguard
from prometheus_client import CollectorRegistry
from pydantic import BaseModel, Field

from jobs import write_features
from jobs.build_training_set import training_set
from jobs.materialize_features import begin, materialize
from service.features.views import UserActivity
from service.runtime import feast_import, features_feast
from service.runtime.feast_import import Feast
from service.runtime.feature_store import FeatureReader, FeatureWriter, load_feature_settings
from service.runtime.feature_writer_feast import create_history
from service.runtime.features import FeatureSource, Row, View
from service.runtime.features_feast import FeastSettings, load_feast_settings
from service.runtime.metrics_prometheus import PrometheusExporter
from service.runtime.settings import SettingsError

VIEW = View.of(UserActivity)
HOUR = timedelta(hours=1)


def source(*views: type[BaseModel], clock: Callable[[], float] = time.time, settings: Any = None) -> FeatureSource:
    settings = settings or load_feature_settings()
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


def test_feast_is_imported_without_the_type_checks_that_cost_seconds_and_typeguard_is_as_before() -> None:
    from feast import FeatureView

    names = FeatureView.__init__.__code__.co_names
    assert not any("check_argument_types" in name for name in names)

    @typeguard.typechecked
    def checked(number: int) -> None:
        assert number

    with pytest.raises(typeguard.TypeCheckError):
        checked("one")


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


def test_a_correction_of_the_same_moment_reaches_serving_and_training() -> None:
    now_s = time.time()
    write("another", "mended", at_s=now_s)  # 2 orders
    write("mended", at_s=now_s)
    assert read(source(), "mended")[0][0].orders_7d == 1
    (service,) = [each.name for each in feast().list_feature_services()]
    labels = pd.DataFrame({"user_id": ["mended"], "event_timestamp": [datetime.now(UTC)]})
    assert list(training_set(feast(), service, labels)["orders_7d"]) == [1]


def test_an_older_row_of_the_same_second_does_not_replace_a_newer_one() -> None:
    if load_feast_settings().path.name == "feature_store.yaml":
        pytest.skip("SQLite keeps whole seconds only")
    second = float(int(time.time()))
    write("close", at_s=second + 0.9)
    write("another", "close", at_s=second + 0.1)  # 2 orders
    assert read(source(), "close")[0][0].orders_7d == 1


def test_the_import_of_feast_leaves_metrics_in_memory() -> None:
    from prometheus_client import values

    assert not {name for name in os.environ if name.startswith("PROMETHEUS_MULTIPROC")}
    assert values.ValueClass.__name__ == "MutexValue"


@pytest.fixture
def history() -> Iterator[Path]:
    """The file of the view's history, which is as it was after the test."""
    load_feature_settings()
    path = Path(os.environ["FEATURE_DATA"], "user_activity_v1.parquet")
    if not path.exists():
        create_history(path, VIEW)
    held = path.read_bytes()
    yield path
    path.write_bytes(held)


def rows_in(history: Path, entity: str) -> pd.DataFrame:
    held = pd.read_parquet(history)
    return held[held["user_id"] == entity]


def feast() -> Feast:
    return Feast(fs_yaml_file=load_feast_settings().path)


def test_a_history_that_lacks_a_column_is_named_with_the_remedy_before_anything_is_written(
    history: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pq.write_table(pq.read_table(history).drop_columns(["spend_7d"]), history)
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"view": "user_activity", "entity": "narrow", "at": "now", "values": {"orders_7d": 3}}))
    monkeypatch.setattr("sys.argv", ["write_features", str(path)])
    with pytest.raises(SystemExit, match=r"^no rows are written: the history of user_activity_v1, .*has no spend_7d"):
        write_features.main()
    assert read(source(), "narrow")[1] == ["user_activity: missing"]
    pq.write_table(pq.read_table(history).append_column("more", pa.nulls(pq.read_metadata(history).num_rows)), history)
    with pytest.raises(SettingsError, match=r"has no spend_7d, .*raise the view's version"):
        write("narrow")
    table = pq.read_table(history).append_column("spend_7d", pa.nulls(pq.read_metadata(history).num_rows, pa.float64()))
    pq.write_table(table, history)
    with pytest.raises(SettingsError, match=r"has more, which the view has not: give the view that field again"):
        write("narrow")
    assert rows_in(history, "narrow").empty


class Nested(UserActivity):
    orders_7d: dict[str, int] = Field({"shoes": 3})  # type: ignore[assignment]


def test_a_field_of_a_type_that_the_history_cannot_hold_is_named_before_anything_is_written(history: Path) -> None:
    writer, now_s = FeatureWriter(load_feature_settings()), time.time()
    with pytest.raises(SettingsError, match=r"keeps orders_7d as int64, and cannot take its values: declare the field"):
        writer.write([Row(View.of(Nested), "nested", Nested(orders_7d={"shoes": 3}), now_s)])
    assert read(source(), "nested")[1] == ["user_activity: missing"]
    assert rows_in(history, "nested").empty


def test_what_the_online_store_did_not_take_is_in_the_history_and_materialize_brings_it(
    history: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = type(feast()._get_provider().online_store)

    def down(*args: Any, **options: Any) -> None:
        raise ConnectionError("no online store")

    with monkeypatch.context() as patch:
        patch.setattr(kind, "online_write_batch", down)
        with pytest.raises(ConnectionError):
            write("ahead")
    assert read(source(), "ahead")[1] == ["user_activity: missing"]
    assert len(rows_in(history, "ahead")) == 1
    materialize(feast(), None, datetime.now(UTC))
    assert read(source(), "ahead") == ([UserActivity(orders_7d=1, spend_7d=9.5)], [])


ONE_BY_ONE = """
import sys, time
from service.features.views import UserActivity
from service.runtime.feature_store import FeatureWriter, load_feature_settings
from service.runtime.features import Row, View
writer = FeatureWriter(load_feature_settings())
print("ready", flush=True)
sys.stdin.readline()
for number in range(8):
    writer.write([Row(View.of(UserActivity), "crowd", UserActivity(orders_7d=number), time.time())])
"""


def test_two_writers_at_once_lose_no_row_of_a_history(history: Path) -> None:
    history.unlink()  # who comes first makes it anew
    command = [sys.executable, "-W", "ignore", "-c", ONE_BY_ONE]
    pipe = subprocess.PIPE
    writers = [subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) for _ in range(2)]
    for each in writers:
        assert each.stdout
        assert each.stdout.readline() == "ready\n"
    for each in writers:
        assert each.stdin
        each.stdin.write("go\n")
        each.stdin.flush()
    for each in writers:
        each.communicate(timeout=120)
    assert [each.returncode for each in writers] == [0, 0]
    assert len(rows_in(history, "crowd")) == 16


def test_a_row_that_is_ahead_of_the_clock_or_no_number_is_refused_before_anything_is_written(history: Path) -> None:
    good, now_s = Row(VIEW, "honest", UserActivity(), time.time()), time.time()
    writer = FeatureWriter(load_feature_settings())
    with pytest.raises(ValueError, match=r"user_activity of 'late' is of .* ahead of this machine's clock"):
        writer.write([good, Row(VIEW, "late", UserActivity(), now_s + 3600)])
    with pytest.raises(ValueError, match="has nan in spend_7d"):
        writer.write([good, Row(VIEW, "late", UserActivity(spend_7d=float("nan")), now_s)])
    assert rows_in(history, "honest").empty


class Plan(Enum):
    FREE = "free"
    PAID = "paid"


class Account(BaseModel):
    view: ClassVar[str] = "account"
    version: ClassVar[int] = 1
    entity: ClassVar[str] = "user_id"
    max_age_s: ClassVar[float] = 3600
    keep_s: ClassVar[int] = 3600

    born: date | None = None
    seen: datetime | None = None
    plan: Plan = Plan.FREE
    visits: int | None = None
    shares: list[float] = []


def test_fields_of_every_plain_type_keep_it_in_the_history_and_come_back_as_declared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from feast import Entity, FeatureView, FileSource, PushSource, ValueType
    from feast import Field as FeastField
    from feast.types import Array, Float64, Int64, String, UnixTimestamp

    config = tmp_path / "feature_store.yaml"
    text = Path("feature_repo/feature_store.yaml").read_text()
    config.write_text(text.replace("${FEATURE_DATA}", str(tmp_path)))
    path = tmp_path / "account_v1.parquet"
    stamps = {"timestamp_field": "event_timestamp", "created_timestamp_column": "created"}
    user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.STRING)
    types = {"born": String, "seen": UnixTimestamp, "plan": String, "visits": Int64, "shares": Array(Float64)}
    view = FeatureView(
        name="account_v1",
        entities=[user],
        ttl=timedelta(hours=1),
        schema=[FeastField(name=name, dtype=kind) for name, kind in types.items()],
        source=PushSource(name="account_v1_push", batch_source=FileSource(name="h", path=str(path), **stamps)),
    )
    create_history(path, View.of(Account))  # Feast looks at it
    Feast(fs_yaml_file=config).apply([user, view])
    settings: Any = FeastSettings(config=config, deadline_ms=1000)

    monkeypatch.setattr(write_features, "VIEWS", (Account,))
    values = {
        "born": "1990-02-28",
        "seen": "2026-01-31T12:00:00Z",
        "plan": "paid",
        "visits": 12,
        "shares": [0.5, 1.5],
    }
    common = {"view": "account", "at": "now"}
    full = json.dumps({**common, "entity": "full", "values": values})
    bare = json.dumps({**common, "entity": "bare", "values": {}})
    rows = list(write_features.rows_of([full, bare], time.time()))
    assert FeatureWriter(settings).write(rows[:1]) == 1
    assert FeatureWriter(settings).write(rows) == 2

    found, degraded = read(source(Account, settings=settings), "full")
    seen = datetime(2026, 1, 31, 12, tzinfo=UTC)
    assert found[0] == Account(born=date(1990, 2, 28), seen=seen, plan=Plan.PAID, visits=12, shares=[0.5, 1.5])
    assert degraded == []
    assert read(source(Account, settings=settings), "bare")[0] == [Account()]
    kinds = {name: str(pq.read_schema(path).field(name).type) for name in types}
    assert kinds["visits"] == "int64"
    assert kinds["seen"].startswith("timestamp")
    assert (kinds["born"], kinds["plan"]) == ("string", "string")
    assert kinds["shares"].startswith("list<")


def test_redis_takes_a_correction_of_the_history_alone_only_once_it_is_empty() -> None:
    """As `docs/how-to/share-features-with-feast.md` has it."""
    if load_feast_settings().path.name == "feature_store.yaml":
        pytest.skip("SQLite takes what is written last")
    made, now = feast(), datetime.now(UTC)
    since = now - HOUR
    write("elsewhere", at_s=now.timestamp() - 60)
    stamps = {"event_timestamp": now - HOUR / 60, "created": datetime.now(UTC)}
    mended = pd.DataFrame([{"user_id": "elsewhere", **stamps, "orders_7d": 5, "spend_7d": 1.0}])
    made.push("user_activity_v1_push", mended, to=feast_import.PushMode.OFFLINE)
    materialize(made, since, datetime.now(UTC))
    assert read(source(), "elsewhere")[0][0].orders_7d == 1
    made._get_provider().online_store._get_client(made.config.online_store).flushdb()
    materialize(made, since, datetime.now(UTC))
    assert read(source(), "elsewhere")[0][0].orders_7d == 5


def test_a_run_goes_on_where_the_last_one_ended_whose_clock_was_right() -> None:
    now = datetime.now(UTC)
    view = SimpleNamespace(name="v", ttl=timedelta(days=1), materialization_intervals=[])
    assert begin(view, now) == now - 25 * HOUR
    view.materialization_intervals = [(now - 9 * HOUR, now - 5 * HOUR), (now - 6 * HOUR, now + 99 * HOUR)]
    assert begin(view, now) == now - 6 * HOUR


def test_a_run_whose_clock_was_ahead_stops_no_later_run(history: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made, now = feast(), datetime.now(UTC)
    materialize(made, None, now - 3 * HOUR)
    materialize(made, None, now + timedelta(days=7))
    stamps = {"event_timestamp": now - HOUR / 2, "created": now}
    late = pd.DataFrame([{"user_id": "waiting", **stamps, "orders_7d": 4, "spend_7d": 1.0}])
    made.push("user_activity_v1_push", late, to=feast_import.PushMode.OFFLINE)
    capsys.readouterr()
    assert materialize(made, None, now) >= 1
    assert read(source(), "waiting")[0][0].orders_7d == 4
    assert "ahead of this clock, and is not counted" in capsys.readouterr().out


def test_without_a_history_each_job_says_what_to_do_first(history: Path) -> None:
    history.unlink()
    words = r"user_activity_v1 has no history, as there is no .*user_activity_v1.parquet: .*`make features`"
    with pytest.raises(SettingsError, match=words):
        materialize(feast(), None, datetime.now(UTC))
    (service,) = [each.name for each in feast().list_feature_services()]
    labels = pd.DataFrame({"user_id": ["a"], "event_timestamp": [datetime.now(UTC)]})
    with pytest.raises(SettingsError, match=words):
        training_set(feast(), service, labels)
