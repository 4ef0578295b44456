"""Write features to Feast: to the history, where training reads, and to the online store, where predictions read."""

import contextlib
import fcntl
import time
import warnings
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from google.protobuf.message import DecodeError
from pydantic import AwareDatetime

from service.runtime.feast_import import Feast, PushMode
from service.runtime.features import Row, View, check_row
from service.runtime.features_feast import FeastSettings, feast_name, local_history
from service.runtime.settings import SettingsError

TIME = pa.timestamp("us", "UTC")
TYPES: dict[Any, pa.DataType] = {
    int: pa.int64(),
    float: pa.float64(),
    str: pa.string(),
    bool: pa.bool_(),
    datetime: TIME,
    AwareDatetime: TIME,
}
PLAIN = ("int", "float", "str", "bool", "date", "datetime", "an Enum of these")
STAMPS = 3  # columns before those of the fields: the entity, when it happened, when it was written
NEVER = datetime.fromtimestamp(0, UTC)


def create_history(path: Path, view: View) -> None:
    """An empty history, to which Feast can append. A field that is no plain value is kept as text."""
    values = [(name, _column(field.annotation)) for name, field in view.declared.model_fields.items()]
    schema = pa.schema([(view.entity, pa.string()), ("event_timestamp", TIME), ("created", TIME), *values])
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(schema.empty_table(), path)


def _column(annotation: Any) -> pa.DataType:
    """The type of a field's column; text for what is no plain value, nor a list of them."""
    origin, plain = get_origin(annotation), [each for each in get_args(annotation) if each is not NoneType]
    if origin is list:
        return pa.list_(_column(*plain))
    if origin in (Union, UnionType) and len(plain) == 1:  # such as `int | None`
        return _column(*plain)
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        kinds = {type(member.value) for member in annotation}
        return _column(*kinds) if len(kinds) == 1 else pa.string()
    return TYPES.get(annotation, pa.string())


@contextlib.contextmanager
def alone(path: Path) -> Iterator[None]:
    """Keep other writers of this machine from the history at `path`, and wait for the one that has it.

    Feast appends to a Parquet file by writing it anew: of two writers at once, one would lose its rows.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with Path(f"{path}.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


class FeastFeatureWriter:
    """Pushes rows to the push source `<view>_v<version>_push` of each view: to the history, then to the online store.

    A failure in between leaves the history ahead, which writing again mends, or `make materialize`. A row that is older
    than what the online store holds of its entity changes the history only. Writing a row twice is safe: training takes
    the one that was written last.
    """

    def __init__(self, settings: FeastSettings) -> None:
        self._feast = Feast(fs_yaml_file=settings.path)
        # Feast on Redis skips a row of the same time as the one it holds, so that no correction would arrive. This
        # writer looks by itself what is older. Other writers, as `make materialize`, do not, and leave Feast to it.
        online = self._feast.config.online_store
        if hasattr(online, "skip_dedup"):
            online.skip_dedup = True

    def write(self, rows: Iterable[Row]) -> int:
        """Write all rows and return how many there were. Raises StoreError; writing again is safe.

        Raises SettingsError when a history lacks what its view declares, and ValueError for a row that `check_row`
        refuses: before anything is written.
        """
        by_view: dict[str, list[Row]] = {}
        now_s = time.time()
        for row in sorted(rows, key=lambda row: row.at_s):
            check_row(row, now_s)
            by_view.setdefault(feast_name(row.view), []).append(row)
        with warnings.catch_warnings(), contextlib.ExitStack() as locks:
            warnings.simplefilter("ignore")  # of Feast's own dependencies
            frames = {name: _frame(by_view[name]) for name in sorted(by_view)}  # all writers lock in this order
            for name, frame in frames.items():
                if path := local_history(self._feast.get_feature_view(name)):
                    locks.enter_context(alone(path))
                    if not path.exists():  # elsewhere the pipeline that fills the history has made it
                        create_history(path, by_view[name][0].view)
                self._check_history(name, frame)
            for name, some in by_view.items():
                self._feast.push(f"{name}_push", frames[name], to=PushMode.OFFLINE)
                held = self._held(name, some)
                if new := [row for row in some if _time(row) >= held[row.entity]]:
                    self._feast.push(f"{name}_push", _frame(new), to=PushMode.ONLINE)
        return sum(map(len, by_view.values()))

    def _check_history(self, name: str, frame: pd.DataFrame) -> None:
        """SettingsError unless the history has the columns of `frame`, no more, no fewer, and can hold its values."""
        feast, view = self._feast, self._feast.get_feature_view(name)
        source = view.batch_source
        columns = feast._get_provider().get_table_column_names_and_types_from_data_source(feast.config, source)
        held, given = {column for column, _ in columns}, set(frame.columns)
        where = f"the history of {name}, {local_history(view) or source.name},"
        if absent := sorted(given - held):
            raise SettingsError(
                f"{where} has no {', '.join(absent)}, which the view has: add it there, empty for what is past, "
                "or raise the view's version, which begins a history of its own"
            )
        if more := sorted(held - given):
            raise SettingsError(
                f"{where} has {', '.join(more)}, which the view has not: give the view that field again, "
                "or raise its version, which begins a history of its own"
            )
        if (path := local_history(view)) and path.is_file():
            schema = pq.read_schema(path)
            for field in frame.columns[STAMPS:]:
                kind = schema.field(field).type
                try:
                    pa.array(frame[field], from_pandas=True).cast(kind)
                except pa.ArrowException as error:
                    raise SettingsError(
                        f"{where} keeps {field} as {kind}, and cannot take its values: declare the field as one of "
                        f"{', '.join(PLAIN)}, or None, or a list of one of these ({error})"
                    ) from error

    def _held(self, name: str, rows: list[Row]) -> dict[str, datetime]:
        """Entity -> time of what the online store holds. Not every store of Feast itself keeps the newer row."""
        view, keys = rows[0].view, list({row.entity: None for row in rows})
        question = [{view.entity: key} for key in keys]
        try:
            found = self._feast.get_online_features([f"{name}:{view.fields[0]}"], question)
        except DecodeError:  # what is held is no value: anything is newer
            return dict.fromkeys(keys, NEVER)
        # Feast's own to_dict() cuts times to seconds.
        column = list(found.proto.metadata.feature_names.val).index(view.fields[0])
        times = [stamp.ToDatetime(UTC) for stamp in found.proto.results[column].event_timestamps]
        return dict(zip(keys, times, strict=True))

    def close(self) -> None:
        """Nothing is kept open."""


def _time(row: Row) -> datetime:
    return datetime.fromtimestamp(row.at_s, UTC)


def _frame(rows: list[Row]) -> pd.DataFrame:
    created = datetime.now(UTC)
    return pd.DataFrame(
        {
            row.view.entity: row.entity,
            "event_timestamp": _time(row),
            "created": created,
            **{name: _plain(value) for name, value in row.values.model_dump().items()},
        }
        for row in rows
    )


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(each) for each in value]
    return value.value if isinstance(value, Enum) else value
