"""Write features to Feast: to the online store, where predictions read, and to the history, where training reads."""

import warnings
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from google.protobuf.message import DecodeError

from service.runtime.feast_import import Feast, PushMode
from service.runtime.features import Row, View
from service.runtime.features_feast import FeastSettings, feast_name

TIME = pa.timestamp("us", "UTC")
TYPES: dict[Any, pa.DataType] = {int: pa.int64(), float: pa.float64(), str: pa.string(), bool: pa.bool_()}


def create_history(path: Path, view: View) -> None:
    """An empty history, to which Feast can append. A field that is no plain value is kept as text."""
    fields = view.declared.model_fields
    values = [(name, TYPES.get(field.annotation, pa.string())) for name, field in fields.items()]
    schema = pa.schema([(view.entity, pa.string()), ("event_timestamp", TIME), ("created", TIME), *values])
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(schema.empty_table(), path)


class FeastFeatureWriter:
    """Pushes rows to the push source `<view>_v<version>_push` of each view.

    A row that is older than what the online store holds of its entity changes the history only. Writing a row twice is
    safe: training takes the one that was written last.
    """

    def __init__(self, settings: FeastSettings) -> None:
        self._feast = Feast(fs_yaml_file=settings.path)

    def write(self, rows: Iterable[Row]) -> int:
        """Write all rows and return how many there were. Raises StoreError; writing again is safe."""
        by_view: dict[str, list[Row]] = {}
        for row in sorted(rows, key=lambda row: row.at_s):
            by_view.setdefault(feast_name(row.view), []).append(row)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Feast's own dependencies
            for name, some in by_view.items():
                self._need_history(name, some[0].view)
                held_s = self._held_s(name, some)
                new = [row for row in some if row.at_s >= held_s[row.entity]]
                late = [row for row in some if row.at_s < held_s[row.entity]]
                for part, to in ((new, PushMode.ONLINE_AND_OFFLINE), (late, PushMode.OFFLINE)):
                    if part:
                        self._feast.push(f"{name}_push", _frame(part), to=to)
        return sum(map(len, by_view.values()))

    def _held_s(self, name: str, rows: list[Row]) -> dict[str, int]:
        """Entity -> Unix time of what the online store holds. Not every store of Feast itself keeps the newer row."""
        view, keys = rows[0].view, list({row.entity: None for row in rows})
        question = [{view.entity: key} for key in keys]
        try:
            found = self._feast.get_online_features([f"{name}:{view.fields[0]}"], question)
        except DecodeError:  # what is held is no value: anything is newer
            return dict.fromkeys(keys, 0)
        return dict(zip(keys, found.to_dict(include_event_timestamps=True)[f"{view.fields[0]}__ts"], strict=True))

    def _need_history(self, name: str, view: View) -> None:
        """On a laptop the first row makes the file; elsewhere the pipeline that fills the history has made it."""
        path = str(getattr(self._feast.get_feature_view(name).batch_source, "path", "://"))
        if "://" not in path and not Path(path).exists():
            create_history(Path(path), view)

    def close(self) -> None:
        """Nothing is kept open."""


def _frame(rows: list[Row]) -> pd.DataFrame:
    created = datetime.now(UTC)
    return pd.DataFrame(
        {
            row.view.entity: row.entity,
            "event_timestamp": datetime.fromtimestamp(row.at_s, UTC),
            "created": created,
            **row.values.model_dump(),
        }
        for row in rows
    )
