"""Metrics of a replica: Ray's own API, because nothing else in a replica is scraped. Exported as `ray_*`."""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

from ray.serve import metrics

from service.runtime.metrics import Record

log = logging.getLogger(__name__)

HAND_OVER_S = 1.0


class RayExporter:
    """Makes Ray metrics; see `metrics.Exporter`. One replica holds one model, so names never clash.

    What is counted is put aside, and a thread hands it to Ray once a second, counters summed: between two batches each
    call of Ray's API would keep the model waiting. Ray itself exports every ten seconds, so no figure is later for it,
    and a replica that is killed loses what was not exported, as ever.
    """

    def __init__(self) -> None:
        self._aside: deque[tuple[Callable[..., Any], dict[str, str], float, bool]] = deque()
        threading.Thread(target=self._keep_handing_over, name="metrics", daemon=True).start()

    def counter(self, name: str, description: str, model: str, *labels: str) -> Record:
        # Ray appends `_total` to the names of counters.
        made = metrics.Counter(name.removesuffix("_total"), description=description, tag_keys=("model", *labels))
        tags, add = _tags(model, labels), made.inc
        return lambda amount, *values: self._aside.append((add, tags(*values), amount, True))

    def histogram(self, name: str, description: str, model: str, bounds: Sequence[float], *labels: str) -> Record:
        made = metrics.Histogram(name, description=description, boundaries=list(bounds), tag_keys=("model", *labels))
        tags, observe = _tags(model, labels), made.observe
        return lambda amount, *values: self._aside.append((observe, tags(*values), amount, False))

    def gauge(self, name: str, description: str, model: str) -> Record:
        made = metrics.Gauge(name, description=description, tag_keys=("model",))
        made.set_default_tags({"model": model})
        record: Record = made.set
        return record

    def _keep_handing_over(self) -> None:
        while True:
            time.sleep(HAND_OVER_S)
            try:
                self._hand_over()
            except Exception:
                log.exception("Ray does not take what was counted")

    def _hand_over(self) -> None:
        sums: dict[tuple[Callable[..., Any], int], tuple[dict[str, str], float]] = {}
        while self._aside:
            record, tags, amount, is_counter = self._aside.popleft()
            if is_counter:
                key = record, id(tags)  # made once, and kept
                sums[key] = tags, sums.get(key, (tags, 0.0))[1] + amount
            else:
                record(amount, tags=tags)
        for (add, _), (tags, total) in sums.items():
            if total > 0:  # Ray refuses to add nothing
                add(total, tags=tags)


def _tags(model: str, labels: Sequence[str]) -> Callable[..., dict[str, str]]:
    """Label values -> Ray's tags, made once for each combination."""
    return cache(lambda *values: {"model": model, **dict(zip(labels, values, strict=True))})
