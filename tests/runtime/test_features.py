"""What reading features promises: typed views, one round trip, defaults and an outcome for whatever goes wrong."""

import asyncio
import json
import ssl
import statistics
import time
import traceback
from collections.abc import Awaitable, Callable, Iterator, Sequence
from datetime import UTC, date, datetime
from enum import Enum
from pathlib import Path
from typing import Any, ClassVar

import pytest
import trustme
from prometheus_client import CollectorRegistry
from pydantic import BaseModel, Field
from redis.exceptions import RedisError

from jobs import write_features
from jobs.write_features import rows_of
from service.features.views import Event, RecentEvents, UserActivity
from service.runtime.deadlines import OPEN_S
from service.runtime.feature_writer_redis import BATCH
from service.runtime.feature_writer_redis import RedisFeatureWriter as FeatureWriter
from service.runtime.features import FeatureSource, Lookup, Row, View
from service.runtime.features_redis import RedisFeatureStore, RedisSettings, key_of, load_redis_settings
from service.runtime.metrics_prometheus import PrometheusExporter
from service.runtime.settings import SettingsError
from tests.store import SlowProxy, Store, running_store

DEADLINE_MS = 100
ACTIVITY, EVENTS = View.of(UserActivity), View.of(RecentEvents)
USER = {"user_id": "u"}


@pytest.fixture(scope="module")
def server() -> Iterator[Store]:
    with running_store() as store:
        yield store


@pytest.fixture
def store(server: Store) -> Store:
    server.client().flushall()
    return server


def settings_of(store: Store, **more: Any) -> RedisSettings:
    return RedisSettings.model_validate({"url": store.url, "namespace": "t", "deadline_ms": DEADLINE_MS, **more})


def write(store: Store, *rows: Row) -> None:
    writer = FeatureWriter(settings_of(store))
    assert writer.write(rows) == len(rows)
    writer.close()


def activity(orders: int, at_s: float | None = None, entity: str = "u") -> Row:
    return Row(ACTIVITY, entity, UserActivity(orders_7d=orders, spend_7d=1.5), time.time() if at_s is None else at_s)


def event(item: str, at_s: float, entity: str = "u") -> Row:
    return Row(EVENTS, entity, Event(kind="viewed", item=item), at_s)


class Reading:
    """A source on `store`, and what it counted."""

    def __init__(
        self, store: Store, views: Sequence[type[BaseModel]] = (UserActivity, RecentEvents), **more: Any
    ) -> None:
        settings = settings_of(store, **more)
        self.registry = CollectorRegistry()
        self.store = RedisFeatureStore(settings)
        exporter = PrometheusExporter(self.registry)
        self.source = FeatureSource(views, self.store, settings.deadline_ms / 1e3, exporter, "m")

    def outcomes(self, view: str) -> dict[str, float]:
        name = "service_feature_lookups_total"
        return {
            sample.labels["outcome"]: sample.value
            for metric in self.registry.collect()
            for sample in metric.samples
            if sample.name == name and sample.labels["view"] == view
        }


def reading(store: Store, do: Callable[[Reading], Awaitable[Any]], **more: Any) -> Any:
    async def run() -> Any:
        made = Reading(store, **more)
        try:
            return await do(made)
        finally:
            await made.source.close()

    return asyncio.run(run())


def read(store: Store, *entities: dict[str, str], **more: Any) -> tuple[list[list[Any]], list[str]]:
    async def once(made: Reading) -> Any:
        return await made.source.read(entities or [USER])

    return reading(store, once, **more)


def test_views_come_typed_in_the_declared_order_and_a_history_newest_first(store: Store) -> None:
    now = time.time()
    write(store, activity(3), event("old", now - 60), event("new", now))
    ((first, second),), degraded = read(store)
    assert first == UserActivity(orders_7d=3, spend_7d=1.5)
    assert [each.item for each in second.events] == ["new", "old"]
    assert degraded == []


def test_a_history_keeps_the_last_events_and_every_key_expires(store: Store) -> None:
    now = time.time()
    write(store, activity(1), *(event(str(n), now - n) for n in range(RecentEvents.last + 5)))
    ((_, recent),), _ = read(store)
    assert [each.item for each in recent.events] == [str(n) for n in range(RecentEvents.last)]
    for view in (ACTIVITY, EVENTS):
        assert 0 < store.client().ttl(key_of("t", view, "u")) <= view.keep_s


def test_writing_twice_is_writing_once_and_a_late_aggregate_loses(store: Store) -> None:
    now = time.time()
    write(store, event("a", now), event("a", now), activity(2, now), activity(1, now - 60))
    ((first, second),), _ = read(store)
    assert first.orders_7d == 2
    assert len(second.events) == 1


def test_an_aggregate_replaces_the_whole_so_no_old_field_hides_behind_a_new_time(store: Store) -> None:
    now = time.time()
    write(store, activity(3, now - 60), Row(ACTIVITY, "u", UserActivity(orders_7d=4), now), event("x", now))
    ((first, _),), degraded = read(store)
    assert first == UserActivity(orders_7d=4)
    assert degraded == ["user_activity: partial"]


GOOD_S = 1769860800.0
GOOD = {"view": "user_activity", "entity": "u", "at": "2026-01-31T12:00:00Z", "values": {"orders_7d": 3}}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"view": "users"}, ["'users'", "user_activity, recent_events"]),
        ({"values": {"orders": 3}}, ["has no orders", "orders_7d, spend_7d"]),
        ({"values": {"orders_7d": "3"}}, ["orders_7d", "'3'"]),
        ({"at": "2026-01-31T12:00:00"}, ["at", "timezone"]),
        ({"entity": ""}, ["entity"]),
        ({"at": "2026-01-31T12:05:01Z"}, ["2026-01-31T12:05:01", "300 s ahead", "mend the time, or the clock"]),
        ({"values": {"spend_7d": float("nan")}}, ["user_activity of 'u' has nan in spend_7d", "leave the field out"]),
        ({"values": {"spend_7d": 1e999}}, ["has inf in spend_7d"]),
        ({"more": 1}, ["more"]),
    ],
)
def test_a_bad_line_is_named_and_nothing_of_its_file_written(change: dict[str, Any], words: list[str]) -> None:
    lines = ["# a comment", "", json.dumps(GOOD), json.dumps(GOOD | change)]
    with pytest.raises(ValueError, match="line 4 cannot be used") as refused:
        list(rows_of(lines, GOOD_S))
    for word in words:
        assert word in str(refused.value)


def test_good_lines_become_rows() -> None:
    (row,) = rows_of([json.dumps(GOOD)], GOOD_S - 299)
    assert row == Row(ACTIVITY, "u", UserActivity(orders_7d=3), GOOD_S)


class Plan(Enum):
    FREE = "free"
    PAID = 1


class Account(BaseModel):
    view: ClassVar[str] = "account"
    version: ClassVar[int] = 1
    entity: ClassVar[str] = "user_id"
    max_age_s: ClassVar[float] = 3600
    keep_s: ClassVar[int] = 3600

    born: date | None = Field(None, strict=True)
    seen: datetime | None = None
    plan: Plan = Plan.FREE
    name: str = ""
    share: float = Field(0.0, ge=0, le=1)


ACCOUNT = View.of(Account)


@pytest.fixture
def job(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """`python -m jobs.write_features` with a file of this text, on `store`."""

    def run(text: str) -> None:
        path = tmp_path / "rows.jsonl"
        path.write_text(text, encoding="utf-8")
        monkeypatch.setattr("sys.argv", ["write_features", str(path)])
        monkeypatch.setattr(write_features, "load_feature_settings", lambda: settings_of(store))
        write_features.main()

    return run


def line(entity: str = "u", view: str = "user_activity", at: str = "now", **values: Any) -> str:
    return json.dumps({"view": view, "entity": entity, "at": at, "values": values}, ensure_ascii=False) + "\n"


def test_dates_times_and_enumerations_are_written_as_json_has_them_and_read_as_declared(
    store: Store, job: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(write_features, "VIEWS", (Account,))
    values: dict[str, Any] = {
        "born": "1990-02-28",
        "seen": "2026-01-31T12:00:00.5Z",
        "plan": 1,
        "name": "Ann",
        "share": 0.5,
    }
    job(line(view="account", **values))
    ((found,),), degraded = read(store, views=[Account])
    seen = datetime(2026, 1, 31, 12, 0, 0, 500_000, UTC)
    assert found == Account(born=date(1990, 2, 28), seen=seen, plan=Plan.PAID, name="Ann", share=0.5)
    assert degraded == []


def test_a_file_is_utf_8_with_or_without_a_mark_and_its_lines_end_where_json_may_end(
    store: Store, job: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(write_features, "VIEWS", (Account,))
    name = "Zo\N{LATIN SMALL LETTER E WITH DIAERESIS}\x85\u2028end"
    job("\ufeff# marked\r\n" + line(view="account", name=name))
    ((found,),), _ = read(store, views=[Account])
    assert found.name == name


def test_a_stored_value_outside_the_constraints_of_its_field_is_not_given_to_a_model(store: Store) -> None:
    write(store, Row(ACCOUNT, "u", Account.model_construct(share=7.5, name="Ann"), time.time()))
    ((found,),), degraded = read(store, views=[Account])
    assert (found.share, found.name) == (0.0, "Ann")
    assert degraded == ["account: error"]


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (activity(9, time.time() + 3600), "user_activity of 'u' is of .*ahead of this machine's clock"),
        (activity(9, (time.time() + 60) * 1e3), "user_activity of 'u' is of .* s since 1970, more"),
        (Row(ACTIVITY, "u", UserActivity(spend_7d=float("inf")), time.time()), "has inf in spend_7d"),
    ],
)
def test_a_writer_refuses_a_row_that_would_win_for_ever_or_is_no_number(store: Store, row: Row, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        write(store, activity(3, entity="other"), row)
    assert store.client().keys("*:u") == []


class SameName(UserActivity):
    pass


def test_two_views_of_one_name_are_refused_wherever_views_are_gathered(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = "UserActivity and SameName are both the view 'user_activity'"
    with pytest.raises(SettingsError, match=words):
        read(store, views=[UserActivity, SameName])
    monkeypatch.setattr(write_features, "VIEWS", (UserActivity, SameName))
    with pytest.raises(SettingsError, match=words):
        list(rows_of([], 0.0))


@pytest.mark.parametrize("broken", ["another type", "unreadable time"])
def test_a_key_that_the_store_refuses_costs_only_its_own_rows_and_is_named(
    store: Store, job: Callable[[str], None], broken: str
) -> None:
    key = key_of("t", ACTIVITY, "broken")
    if broken == "another type":
        store.client().set(key, "a string")
    else:
        store.client().hset(key, "_ts", "yesterday")
    # More than one round trip.
    entities = ["before", "broken", *map(str, range(BATCH)), "after"]
    with pytest.raises(SystemExit, match=rf"refused 1 keys, and rows of all others are written: {key} \("):
        job("".join(line(entity, orders_7d=3, spend_7d=1.0) for entity in entities))
    rows, degraded = read(store, {"user_id": "before"}, {"user_id": "after"}, views=[UserActivity])
    assert [row[0].orders_7d for row in rows] == [3, 3]
    assert degraded == []


def test_a_store_that_refuses_every_row_is_left_at_once_and_says_why(store: Store) -> None:
    store.client().acl_setuser("reader", enabled=True, passwords=["+s"], keys=["t:*"], commands=["+@connection"])
    taken = 0

    def rows() -> Iterator[Row]:
        nonlocal taken
        for taken in range(10 * BATCH):
            yield activity(1, entity=str(taken))

    writer = FeatureWriter(settings_of(store, username="reader", password="s"))
    with pytest.raises(RedisError, match="permission"):
        writer.write(rows())
    writer.close()
    assert taken < 2 * BATCH


def test_an_unknown_entity_gets_defaults_and_a_known_one_beside_it_does_not(store: Store) -> None:
    write(store, activity(3), event("x", time.time()))
    rows, degraded = read(store, USER, {"user_id": "nobody"}, {})
    assert rows[0][0].orders_7d == 3
    assert rows[1] == rows[2] == [UserActivity(), RecentEvents()]
    assert degraded == ["recent_events: missing", "user_activity: missing"]


def test_values_older_than_the_views_age_are_stale(store: Store) -> None:
    write(store, activity(3, time.time() - UserActivity.max_age_s - 60), event("x", time.time()))
    ((first, second),), degraded = read(store)
    assert first == UserActivity()
    assert second.events
    assert degraded == ["user_activity: stale"]


def test_a_value_from_a_clock_ahead_of_ours_is_fresh(store: Store) -> None:
    write(store, activity(3), event("x", time.time()))
    store.client().hset(key_of("t", ACTIVITY, "u"), "_ts", repr(time.time() + 3600))
    ((first, _),), degraded = read(store)
    assert first.orders_7d == 3
    assert degraded == []


def test_an_absent_field_has_its_default_and_the_others_their_values(store: Store) -> None:
    write(store, Row(ACTIVITY, "u", UserActivity(orders_7d=3), time.time()), event("x", time.time()))
    ((first, _),), degraded = read(store)
    assert first == UserActivity(orders_7d=3)
    assert degraded == ["user_activity: partial"]


@pytest.mark.parametrize("poison", ["not json", '"three"', "[1]", "\xff"])
def test_a_poisoned_field_has_its_default_and_the_others_their_values(store: Store, poison: str) -> None:
    write(store, activity(3), event("x", time.time()))
    store.client().hset(key_of("t", ACTIVITY, "u"), "orders_7d", poison)
    ((first, second),), degraded = read(store)
    assert first == UserActivity(spend_7d=1.5)
    assert second.events
    assert degraded == ["user_activity: error"]


def test_a_poisoned_event_is_left_out_of_the_history(store: Store) -> None:
    write(store, activity(3), event("good", time.time()))
    store.client().zadd(key_of("t", EVENTS, "u"), {"{": time.time() + 1, json.dumps({"kind": 1}): time.time() + 2})
    ((_, recent),), degraded = read(store)
    assert [each.item for each in recent.events] == ["good"]
    assert degraded == ["recent_events: error"]


def test_a_key_of_another_type_fails_only_its_own_lookup(store: Store) -> None:
    write(store, activity(3), event("x", time.time()))
    store.client().set(key_of("t", EVENTS, "u"), "a string")
    ((first, _),), degraded = read(store)
    assert first.orders_7d == 3
    assert degraded == ["recent_events: error"]


def test_a_hundred_requests_at_once_cost_at_most_two_round_trips(store: Store) -> None:
    write(store, *(activity(n, entity=str(n)) for n in range(100)))

    async def many(made: Reading) -> tuple[list[int], int]:
        trips = 0
        round_trip = made.store._round_trip

        async def counted(wanted: list[Lookup]) -> list[Any]:
            nonlocal trips
            trips += 1
            return await round_trip(wanted)

        made.store._round_trip = counted  # type: ignore[method-assign]
        answers = await asyncio.gather(*(made.source.read([{"user_id": str(n)}]) for n in range(100)))
        return [rows[0][0].orders_7d for rows, _ in answers], trips  # type: ignore[attr-defined]

    orders, trips = reading(store, many, deadline_ms=2000)
    assert orders == list(range(100))
    assert trips <= 2


def test_a_hung_store_costs_its_deadline_and_is_read_again_once_it_answers(store: Store) -> None:
    write(store, activity(3), event("x", time.time()))

    async def through_a_hang(made: Reading) -> tuple[list[float], list[Sequence[str]]]:
        await made.source.read([USER])
        store.pause()
        took: list[float] = []
        said: list[Sequence[str]] = []
        try:
            for _ in range(8):
                started = time.perf_counter()
                said.append((await made.source.read([USER]))[1])
                took.append(time.perf_counter() - started)
        finally:
            store.resume()
        await asyncio.sleep(OPEN_S)
        said.append((await made.source.read([USER]))[1])
        assert made.outcomes("user_activity")["timeout"] >= 5
        return took, said

    took, said = reading(store, through_a_hang)
    # Medians and minima: a busy machine may hold up one read, and a store without a bound holds up all.
    assert statistics.median(took[:5]) < 2 * DEADLINE_MS / 1e3
    assert min(took[5:]) < 0.02, "the breaker is open: nobody waits any more"
    assert said[0] == ["recent_events: timeout", "user_activity: timeout"]
    assert said[-1] == []


def test_a_store_that_is_down_is_known_at_once_and_read_again_once_it_is_back() -> None:
    with running_store() as store:

        async def through_an_outage(made: Reading) -> tuple[float, Sequence[str], Sequence[str]]:
            await made.source.read([USER])
            store.stop()
            took = []
            for _ in range(3):  # fewer than open the breaker
                started = time.perf_counter()
                _, down = await made.source.read([USER])
                took.append(time.perf_counter() - started)
            for _ in range(10):
                await made.source.read([USER])
            await asyncio.to_thread(store.start)
            await asyncio.to_thread(write, store, activity(3), event("x", time.time()))
            await asyncio.sleep(OPEN_S)
            return min(took), down, (await made.source.read([USER]))[1]

        took, down, back = reading(store, through_an_outage)
    assert took < 2 * DEADLINE_MS / 1e3
    assert down == ["recent_events: error", "user_activity: error"]
    assert back == []


def test_a_wrong_password_degrades_and_the_right_one_reads() -> None:
    with running_store("right") as store:
        writer = FeatureWriter(settings_of(store, password="right"))
        writer.write([activity(3), event("x", time.time())])
        writer.close()
        assert read(store, password="wrong")[1] == ["recent_events: error", "user_activity: error"]
        assert read(store, password="right")[1] == []


def test_tls_is_spoken_and_a_certificate_of_an_unknown_authority_is_not_trusted(store: Store, tmp_path: Path) -> None:
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    with SlowProxy(store.port, context).running() as proxy:
        url = f"rediss://127.0.0.1:{proxy.port}/0"
        trusting = {"url": f"{url}?ssl_ca_certs={tmp_path / 'ca.pem'}", "deadline_ms": 5000}
        writer = FeatureWriter(settings_of(store, **trusting))
        writer.write([activity(3), event("x", time.time())])
        writer.close()
        assert read(store, **trusting)[1] == []
        assert read(store, url=url, deadline_ms=5000)[1] == ["recent_events: error", "user_activity: error"]


def test_a_user_of_the_store_who_may_only_read_is_enough_for_a_service(store: Store) -> None:
    write(store, activity(3), event("x", time.time()))
    store.client().acl_setuser(
        "service", enabled=True, passwords=["+secret"], keys=["t:*"], commands=["+@read", "+@connection"]
    )
    as_service = {"username": "service", "password": "secret"}
    assert read(store, **as_service)[1] == []
    writer = FeatureWriter(settings_of(store, **as_service))
    with pytest.raises(RedisError):
        writer.write([activity(4)])
    writer.close()


@pytest.mark.parametrize("turns", range(12))
def test_a_model_that_holds_the_loop_past_the_deadline_does_not_make_the_store_late(turns: int, store: Store) -> None:
    """Whether the question is already sent, or not yet."""
    write(store, activity(3), event("x", time.time()))

    async def while_blocked(made: Reading) -> Sequence[str]:
        await made.source.read([USER])  # connected
        asked = asyncio.create_task(made.source.read([USER]))
        for _ in range(turns):
            await asyncio.sleep(0)
        time.sleep(2 * DEADLINE_MS / 1e3)  # a batch on the event loop
        degraded: Sequence[str] = (await asked)[1]
        return degraded

    assert reading(store, while_blocked) == []


def test_an_entity_with_odd_characters_reaches_no_other_key(store: Store) -> None:
    odd = "a:b\r\nDEL c* {x} \N{SNOWMAN}"
    write(store, activity(7, entity=odd))
    ((first, _),), _ = read(store, {"user_id": odd})
    assert first.orders_7d == 7


class NoAge(BaseModel):
    view: ClassVar[str] = "v"
    version: ClassVar[int] = 1
    entity: ClassVar[str] = "e"
    keep_s: ClassVar[int] = 10


class KeptTooShort(NoAge):
    max_age_s: ClassVar[float] = 60


class NoDefault(KeptTooShort):
    keep_s: ClassVar[int] = 60
    count: int


class KeptForAText(NoAge):
    max_age_s: ClassVar[float] = 5
    keep_s: ClassVar[Any] = "60"


class KeptForAPart(NoAge):
    max_age_s: ClassVar[float] = 0.1
    keep_s: ClassVar[Any] = 0.5


class KeptForNothing(NoAge):
    max_age_s: ClassVar[float] = 0
    keep_s: ClassVar[int] = 0


class TwoHistories(KeptTooShort):
    keep_s: ClassVar[int] = 60
    last: ClassVar[int] = 3
    one: list[int] = []
    two: list[int] = []


@pytest.mark.parametrize(
    ("declared", "words"),
    [
        (NoAge, ["NoAge", "max_age_s"]),
        (KeptTooShort, ["v", "10", "60", "raise keep_s"]),
        (NoDefault, ["no default for count"]),
        (KeptForAText, ["KeptForAText", "keep_s '60'", "whole seconds above 0"]),
        (KeptForAPart, ["KeptForAPart", "keep_s 0.5", "whole seconds above 0"]),
        (KeptForNothing, ["KeptForNothing", "keep_s 0", "whole seconds above 0"]),
        (TwoHistories, ["one field"]),
    ],
)
def test_a_view_that_contradicts_itself_is_refused_at_start(declared: type[BaseModel], words: list[str]) -> None:
    with pytest.raises(SettingsError) as refused:
        View.of(declared)
    for word in words:
        assert word in str(refused.value)


class KeptForAFloat(UserActivity):
    keep_s: ClassVar[Any] = 7 * 24 * 3600.0


def test_whole_seconds_may_be_a_float_and_the_key_expires(store: Store) -> None:
    view = View.of(KeptForAFloat)
    write(store, Row(view, "u", KeptForAFloat(), time.time()))
    assert 0 < store.client().ttl(key_of("t", view, "u")) <= view.keep_s


def test_settings_of_the_environment_win_and_a_bad_one_is_named(tmp_path: Any, monkeypatch: Any) -> None:
    path = tmp_path / "features.yaml"
    path.write_text("{url: 'redis://a/0', namespace: n, deadline_ms: 5}")
    monkeypatch.setenv("FEATURE_STORE_PASSWORD", "secret")
    monkeypatch.setenv("FEATURE_STORE_URL", "rediss://b/1")
    settings = load_redis_settings(path)
    assert settings.url == "rediss://b/1"
    assert "secret" not in repr(settings)
    monkeypatch.setenv("FEATURE_STORE_URL", "http://store.example.com")
    with pytest.raises(SettingsError, match="url"):
        load_redis_settings(path)


def test_what_came_from_the_environment_is_named_by_its_variable_and_never_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "features.yaml"
    monkeypatch.setenv("FEATURE_STORE_PASSWORD", "geheim")
    monkeypatch.setenv("FEATURE_STORE_URL", "ftp://me:geheim@store.example.com")
    path.write_text("{namespac: n, deadline_ms: 5}")
    with pytest.raises(SettingsError) as refused:
        load_redis_settings(path)
    whole = "".join(traceback.format_exception(refused.value))
    assert "geheim" not in whole
    assert "  namespace: Field required\n" in whole
    assert "namespac: Extra inputs are not permitted (got 'n')" in whole
    assert "(it came from FEATURE_STORE_URL)" in whole
