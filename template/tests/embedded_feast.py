"""A feature store without a server of yours: Feast on files, in a folder of its own."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from service.features.views import VIEWS
from service.runtime.features import View
from service.runtime.features_feast import feast_name

ROOT = Path(__file__).parents[1]
TIME = pa.timestamp("us", "UTC")
TYPES: dict[Any, pa.DataType] = {int: pa.int64(), float: pa.float64(), str: pa.string(), bool: pa.bool_()}


@contextmanager
def running_store() -> Iterator[dict[str, str]]:
    """A registry, an online store and empty histories, gone with the context; yields the environment to find them."""
    with tempfile.TemporaryDirectory() as folder:
        for view in map(View.of, VIEWS):
            pq.write_table(history_of(view).empty_table(), f"{folder}/{feast_name(view)}.parquet")
        found = {"FEATURE_DATA": folder}
        command = [Path(sys.executable).with_name("feast"), "--chdir", "feature_repo", "apply"]
        environment = {**os.environ, **found, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, check=False, cwd=ROOT, env=environment, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"`feast apply` failed:\n{done.stdout}{done.stderr}")
        yield found


def history_of(view: View) -> pa.Schema:
    """The columns of the history of a view. A field that is no plain value is kept as text."""
    fields = view.declared.model_fields
    values = [(name, TYPES.get(field.annotation, pa.string())) for name, field in fields.items()]
    return pa.schema([(view.entity, pa.string()), ("event_timestamp", TIME), ("created", TIME), *values])
