"""Features of a request's entities, under one deadline: what is missing, stale, slow or broken becomes its default.

Reading features never fails a request. Every lookup has one outcome, which is counted: `ok`, `partial` (some fields
absent), `missing` (the entity is unknown), `stale` (older than the view's `max_age_s`), `timeout`, `error` (the store
failed, or a stored value is not of the declared type).
"""

import logging
import math
import time
import typing
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, NamedTuple, Protocol

from pydantic import BaseModel, Field, TypeAdapter, ValidationError
from pydantic import Strict as StrictType
from pydantic.fields import FieldInfo

from service.runtime.deadlines import within
from service.runtime.metrics import LATENCY_BUCKETS_S, Exporter
from service.runtime.settings import SettingsError, Strict

log = logging.getLogger(__name__)

# The value of an entity field, in requests and in rows to write.
EntityKey = Annotated[str, Field(min_length=1, max_length=200)]

CONFIG = Path(__file__).parents[2] / "config/features.yaml"
# From a minute to a month: what views usually allow.
AGE_BUCKETS_S = (60, 300, 900, 3600, 4 * 3600, 12 * 3600, 24 * 3600, 3 * 24 * 3600, 7 * 24 * 3600, 30 * 24 * 3600)
# One line a second at most says that the store fails; the counters tell how often.
LOG_EVERY_S = 1.0
# Clocks differ by less. A row further ahead would win over every later one until its time has come.
AHEAD_S = 300.0


class FeatureSettings(Strict):
    """What `config/features.yaml` says of any store. deadline_ms: what a prediction waits for features at most."""

    deadline_ms: float = Field(gt=0)


@dataclass(frozen=True)
class View:
    """A declared view, checked. See `service/features/views.py`.

    keep_s: how long Redis keeps an entity after its last write; in Feast on Redis `key_ttl_seconds` says it for all.
    last: events of a history; None for aggregates.
    """

    declared: type[BaseModel]
    name: str
    version: int
    entity: str
    max_age_s: float
    keep_s: int
    last: int | None

    @classmethod
    def of(cls, declared: type[BaseModel]) -> "View":
        """Raises SettingsError when the declaration lacks something or contradicts itself."""
        names = {"name": "view", "version": "version", "entity": "entity", "max_age_s": "max_age_s", "keep_s": "keep_s"}
        absent = [name for name in names.values() if not hasattr(declared, name)]
        if absent:
            raise SettingsError(
                f"the view {declared.__name__} does not say its {', '.join(absent)}: add class variables"
            )
        given = {key: getattr(declared, name) for key, name in names.items()}
        given["keep_s"] = _whole_seconds(declared, given["keep_s"])
        view = cls(declared, **given, last=_last(declared))
        if view.keep_s < view.max_age_s:
            raise SettingsError(
                f"the view {view.name} is kept for {view.keep_s} s and is good for {view.max_age_s} s: "
                f"raise keep_s to at least {view.max_age_s}"
            )
        required = [name for name, field in declared.model_fields.items() if field.is_required()]
        if required:
            raise SettingsError(f"the view {view.name} has no default for {', '.join(required)}: say what a model gets")
        if view.last is not None and len(declared.model_fields) != 1:
            raise SettingsError(f"the view {view.name} is a history: it must have one field, a list of events")
        return view

    @property
    def fields(self) -> list[str]:
        return list(self.declared.model_fields)

    def default(self) -> BaseModel:
        return self.declared()


def _last(declared: type[BaseModel]) -> int | None:
    last: int | None = getattr(declared, "last", None)
    return last


def _whole_seconds(declared: type[BaseModel], keep_s: Any) -> int:
    """Redis takes no other expiry, and says so only when the values are stored: they would stay for ever."""
    if type(keep_s) not in (int, float) or keep_s != keep_s // 1 or keep_s <= 0:
        raise SettingsError(f"the view {declared.__name__} has keep_s {keep_s!r}: it must be whole seconds above 0")
    return int(keep_s)


def views_of(declared: Sequence[type[BaseModel]]) -> list[View]:
    """The declared views, checked. Raises SettingsError, also when two of them have one name."""
    views = [View.of(each) for each in declared]
    named: dict[str, type[BaseModel]] = {}
    for view in views:
        other = named.setdefault(view.name, view.declared)
        if other is not view.declared:
            raise SettingsError(
                f"{other.__name__} and {view.declared.__name__} are both the view {view.name!r}, and one would replace "
                "the other: give each a name of its own"
            )
    return views


class Stored(NamedTuple):
    """What a store holds of one view of one entity. values: by field, not yet checked. at_s: Unix time of the event."""

    values: dict[str, Any]
    at_s: float


class Row(NamedTuple):
    """One thing to write: the values of an aggregate view, or one event of a history. at_s: Unix time of the event."""

    view: View
    entity: str
    values: BaseModel
    at_s: float


def check_row(row: Row, now_s: float) -> None:
    """ValueError, with the value and the remedy, when the row must not reach a store."""
    if row.at_s > now_s + AHEAD_S:
        raise ValueError(
            f"{row.view.name} of {row.entity!r} is of {_time(row.at_s)}, more than {AHEAD_S:.0f} s ahead of this "
            f"machine's clock ({_time(now_s)}), and would win over every row until then: mend the time, or the clock"
        )
    for name, value in row.values.model_dump(exclude_unset=True).items():
        if not _finite(value):
            raise ValueError(
                f"{row.view.name} of {row.entity!r} has {value} in {name}: leave the field out, and a model gets its "
                "default"
            )


def _time(at_s: float) -> str:
    try:
        return datetime.fromtimestamp(at_s, UTC).isoformat(timespec="seconds")
    except (OverflowError, ValueError):  # beyond the year 9999, as milliseconds are
        return f"{at_s} s since 1970"


def _finite(value: Any) -> bool:
    if isinstance(value, dict):
        return all(map(_finite, value.values()))
    if isinstance(value, list | tuple | set | frozenset):
        return all(map(_finite, value))
    return not isinstance(value, float) or math.isfinite(value)


Lookup = tuple[View, str]
Answers = list[Stored | Exception | None]


class FeatureStore(Protocol):
    """Reads views of entities. Use from one event loop."""

    def check(self, views: Sequence[View]) -> None:
        """Raise SettingsError when the store cannot hold one of the views that will be read."""

    async def start(self) -> None:
        """Connect, so that the first request need not. A store that is down raises nothing."""

    async def read(self, wanted: Sequence[Lookup]) -> list[Stored | Exception | None]:
        """One answer per lookup, in order: None when unknown, an exception when only this one failed."""

    async def close(self) -> None: ...


class FeatureSource:
    """The features of instances, in the order of `declared`; defaults where the store has none in time."""

    def __init__(
        self,
        declared: Sequence[type[BaseModel]],
        store: FeatureStore,
        deadline_s: float,
        exporter: Exporter,
        model: str,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.views = views_of(declared)
        store.check(self.views)
        self._store = store
        self._deadline_s = deadline_s
        self._clock = clock
        self._logged_s = 0.0
        self._checks = {view.name: _checks(view) for view in self.views}
        self._lookups = exporter.counter(
            "service_feature_lookups_total", "Feature lookups by outcome.", model, "view", "outcome"
        )
        described = "Time that a request waited for features, in seconds."
        self._seconds = exporter.histogram("service_feature_read_seconds", described, model, LATENCY_BUCKETS_S)
        self._ages = exporter.histogram(
            "service_feature_age_seconds", "Age of the features read, in seconds.", model, AGE_BUCKETS_S, "view"
        )

    async def start(self) -> None:
        """See `FeatureStore.start`."""
        await self._store.start()

    async def read(self, entities: Sequence[dict[str, str]]) -> tuple[list[list[BaseModel]], list[str]]:
        """For each instance its views, and what was degraded, as `view: outcome`.

        entities: for each instance its entity keys, by name. A view whose entity an instance does not name has its
        defaults, which is no degradation: the caller chose so.
        """
        rows = [[view.default() for view in self.views] for _ in entities]
        places = [
            (row, column, (view, keys[view.entity]))
            for row, keys in enumerate(entities)
            for column, view in enumerate(self.views)
            if view.entity in keys
        ]
        if not places:
            return rows, []
        degraded = set()
        found = await self._within_deadline([lookup for _, _, lookup in places])
        for (row, column, (view, _)), stored in zip(places, found, strict=True):
            rows[row][column], outcome = self._checked(view, stored, rows[row][column])
            self._lookups(1, view.name, outcome)
            if outcome != "ok":
                degraded.add(f"{view.name}: {outcome}")
        return rows, sorted(degraded)

    async def _within_deadline(self, wanted: list[Lookup]) -> Sequence[Stored | Exception | None]:
        started_s = time.perf_counter()
        try:
            return await within(self._store.read(wanted), self._deadline_s)
        except Exception as error:  # whatever is wrong with the store, the request goes on with defaults
            if started_s - self._logged_s > LOG_EVERY_S:
                self._logged_s = started_s
                log.warning("features not read", extra={"error": f"{type(error).__name__}: {error}"})
            return [error] * len(wanted)
        finally:
            self._seconds(time.perf_counter() - started_s)

    def _checked(self, view: View, stored: Stored | Exception | None, default: BaseModel) -> tuple[BaseModel, str]:
        """The view as the model gets it, and the outcome."""
        if isinstance(stored, Exception):
            return default, "timeout" if isinstance(stored, TimeoutError) else "error"
        if stored is None:
            return default, "missing"
        age_s = max(0.0, self._clock() - stored.at_s)
        self._ages(age_s, view.name)
        if age_s > view.max_age_s:
            return default, "stale"
        values: dict[str, Any] = {}
        invalid = False
        for name, check in self._checks[view.name].items():
            if name in stored.values:
                valid, good = check(stored.values[name])
                values |= {name: valid[0]} if valid else {}
                invalid = invalid or not good
        outcome = "error" if invalid else "partial" if len(stored.values) < len(view.fields) else "ok"
        return default.model_copy(update=values), outcome

    async def close(self) -> None:
        await self._store.close()


# Stored value -> (the value of the declared type, or nothing; whether all of it was valid).
Check = Callable[[Any], tuple[list[Any], bool]]


def _checks(view: View) -> dict[str, Check]:
    """A check for each field; of a history, the events that are valid are kept."""
    if view.last is None:
        return {name: _checker(_constrained(field)) for name, field in view.declared.model_fields.items()}
    ((name, field),) = view.declared.model_fields.items()
    (item,) = typing.get_args(field.annotation)
    check = _checker(item)

    def each(events: Any) -> tuple[list[Any], bool]:
        checked = [check(event) for event in events]
        return [[value for valid, _ in checked for value in valid]], all(good for _, good in checked)

    return {name: each}


def _constrained(field: FieldInfo) -> Any:
    """The type of a field with its constraints, as Field(ge=0). Not strict: what is stored has texts for dates."""
    annotation: Any = field.annotation
    for each in field.metadata:
        if not isinstance(each, StrictType):
            annotation = Annotated[annotation, each]
    return annotation


def _checker(annotation: Any) -> Check:
    adapter = TypeAdapter(annotation)

    def check(value: Any) -> tuple[list[Any], bool]:
        try:
            return [adapter.validate_python(value)], True
        except ValidationError:
            return [], False

    return check
