"""Where the history of each view lies. This file is yours: updates never touch it.

With FEATURE_DATA set, as on a laptop and in tests, a history is a Parquet file there.
Without it, a history is a table of Snowflake.
Its columns: the entity's key, `event_timestamp`, `created` (when the row was written), and the fields of the view.
"""

import os

from feast import FileSource, PushSource, SnowflakeSource
from feast.data_source import DataSource


def history(view: str) -> DataSource:
    times = {"timestamp_field": "event_timestamp", "created_timestamp_column": "created"}
    if folder := os.environ.get("FEATURE_DATA"):
        return FileSource(name=f"{view}_history", path=f"{folder}/{view}.parquet", **times)
    return SnowflakeSource(
        name=f"{view}_history",
        database=os.environ["SNOWFLAKE_DATABASE"],
        schema=os.environ["SNOWFLAKE_SCHEMA"],
        table=view.upper(),
        **times,
    )


def pushed(view: str) -> PushSource:
    """The source to which jobs and services push rows; `service.runtime.feature_store.FeatureWriter` does."""
    return PushSource(name=f"{view}_push", batch_source=history(view))
