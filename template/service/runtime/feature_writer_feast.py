"""Write features to Feast: to the online store, where predictions read, and to the history, where training reads."""

import warnings
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from service.runtime.feast_import import Feast, FeastError, PushMode
from service.runtime.features import Row, View
from service.runtime.features_feast import FeastSettings, feast_name

StoreError = (FeastError, OSError)

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
        for row in rows:
            by_view.setdefault(feast_name(row.view), []).append(row)
        created = datetime.now(UTC)
        for name, some in by_view.items():
            self._need_history(name, some[0].view)
            frame = pd.DataFrame(
                {
                    row.view.entity: row.entity,
                    "event_timestamp": datetime.fromtimestamp(row.at_s, UTC),
                    "created": created,
                    **row.values.model_dump(),
                }
                for row in some
            )
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of Feast's own dependencies
                self._feast.push(f"{name}_push", frame, to=PushMode.ONLINE_AND_OFFLINE)
        return sum(map(len, by_view.values()))

    def _need_history(self, name: str, view: View) -> None:
        """On a laptop the first row makes the file; elsewhere the pipeline that fills the history has made it."""
        path = str(getattr(self._feast.get_feature_view(name).batch_source, "path", "://"))
        if "://" not in path and not Path(path).exists():
            create_history(Path(path), view)

    def close(self) -> None:
        """Nothing is kept open."""
