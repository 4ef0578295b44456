"""What a request spends its time on, stage by stage: for its log line and its trace.

Stages of one request: `features` and `documents` (read at the same time), `search` (the vector database alone),
`tokenize`, `queue` (until its first batch starts) and `batch` (once for each batch that holds some of its inputs).
Times are of `time.monotonic`, in seconds.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple


class Stage(NamedTuple):
    name: str
    model: str
    started_s: float
    ended_s: float
    details: dict[str, Any]


_stages: ContextVar[list[Stage] | None] = ContextVar("stages", default=None)


def begin() -> list[Stage]:
    """The stages of the request that this task serves from here on, as they end."""
    stages: list[Stage] = []
    _stages.set(stages)
    return stages


def record(name: str, model: str, started_s: float, ended_s: float, **details: Any) -> None:
    """Add a stage to the request that is being served; nothing where there is none, as in a job."""
    stages = _stages.get()
    if stages is not None:
        stages.append(Stage(name, model, started_s, ended_s, details))


@contextmanager
def stage(name: str, model: str) -> Iterator[None]:
    """Record what happens inside as a stage, whatever comes of it."""
    started_s = time.monotonic()
    try:
        yield
    finally:
        record(name, model, started_s, time.monotonic())


def summary(stages: Sequence[Stage], model: str) -> dict[str, Any]:
    """The model's own stages for a log line: `<stage>_ms` summed, and `batches`, the numbers of its batches."""
    found: dict[str, Any] = {}
    for each in stages:
        if each.model == model:
            key = f"{each.name}_ms"
            found[key] = round(found.get(key, 0) + (each.ended_s - each.started_s) * 1e3, 2)
            if "batch" in each.details:
                found.setdefault("batches", []).append(each.details["batch"])
    return found
