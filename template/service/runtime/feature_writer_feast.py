"""Write features to Feast: to the online store, where predictions read, and to the history, where training reads."""

import warnings
from collections.abc import Iterable
from datetime import UTC, datetime

import pandas as pd

from service.runtime.feast_import import Feast, FeastError, PushMode
from service.runtime.features import Row
from service.runtime.features_feast import FeastSettings, feast_name

StoreError = (FeastError, OSError)


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

    def close(self) -> None:
        """Nothing is kept open."""
