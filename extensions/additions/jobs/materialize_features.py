"""Bring each entity's newest features from the history to the online store: `python -m jobs.materialize_features`.

Each run goes on where the last one ended, less an hour for rows that arrive late. It can be stopped and run again at
any time: what was written is written once more, with the same result. `--since 2026-01-31` backfills from there, into
an empty online store or after rows were added to a history: day by day up to now, so that the newest values win. Redis
keeps what it holds of an entity until a row of a later time comes.
"""

import argparse
import contextlib
import io
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from tqdm import tqdm

from service.runtime.feast_import import Feast, StoreError
from service.runtime.features_feast import load_feast_settings, need_history
from service.runtime.settings import SettingsError

OVERLAP = timedelta(hours=1)
SLICE = timedelta(days=1)


def slices(start: datetime, end: datetime) -> Iterator[tuple[datetime, datetime]]:
    """`start` to `end` in parts of at most SLICE, in order."""
    while start < end:
        yield start, min(start + SLICE, end)
        start += SLICE


@contextlib.contextmanager
def counted_writes(feast: Feast) -> Iterator[list[int]]:
    """The numbers of rows that reach the online store meanwhile: Feast itself does not tell."""
    store = feast._get_provider().online_store
    write, counts = store.online_write_batch, []

    def counting(config: Any, table: Any, data: list[Any], progress: Any) -> None:
        write(config, table, data, progress)
        counts.append(len(data))

    store.online_write_batch = counting
    try:
        yield counts
    finally:
        del store.online_write_batch


def begin(view: Any, now: datetime) -> datetime:
    """Where the last run ended. One whose clock was ahead counts as none: it cannot have seen what came since."""
    ends: list[datetime] = [end for _, end in view.materialization_intervals]
    if ahead := [end for end in ends if end > now]:
        print(
            f"{view.name}: a run ended at {max(ahead):%Y-%m-%d %H:%M} UTC, ahead of this clock, and is not counted",
            flush=True,
        )
    first: datetime = now - view.ttl
    return max((end for end in ends if end <= now), default=first) - OVERLAP


def materialize(feast: Feast, since: datetime | None, now: datetime) -> int:
    """Write what is newer than the last run (or `since`) and return how many rows that were, over all views.

    Raises SettingsError when a view has no history yet.
    """
    parts = []
    for view in feast.list_feature_views():
        need_history(view)
        parts += [(view.name, *part) for part in slices(since or begin(view, now), now)]
    total = 0
    # A bar on a terminal, a line for each part elsewhere.
    for name, start, end in tqdm(parts, disable=None, unit="part"):
        with counted_writes(feast) as counts, contextlib.redirect_stdout(io.StringIO()):
            feast.materialize(start, end, feature_views=[name])
        total += sum(counts)
        if not sys.stderr.isatty():
            print(f"{name}: {sum(counts)} rows from {start:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M}", flush=True)
    return total


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m jobs.materialize_features", description=__doc__.partition("\n")[0])
    parser.add_argument("--since", type=datetime.fromisoformat, help="date, or time, in UTC unless it says otherwise")
    options = parser.parse_args()
    now = datetime.now(UTC)
    since = options.since and (options.since if options.since.tzinfo else options.since.replace(tzinfo=UTC))
    if since and since >= now:
        parser.error(f"--since {options.since} is not in the past")
    try:
        feast = Feast(fs_yaml_file=load_feast_settings().path)
        print(f"{materialize(feast, since, now)} rows written to the online store")
    except (*StoreError, SettingsError) as error:
        sys.exit(f"not all features are materialized, run it again: {type(error).__name__}: {error}")


if __name__ == "__main__":
    main()
