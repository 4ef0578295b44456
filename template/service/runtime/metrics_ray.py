"""Metrics of a replica: Ray's own API, because nothing else in a replica is scraped. Exported as `ray_*`."""

from collections.abc import Callable, Sequence
from functools import cache

from ray.serve import metrics

from service.runtime.metrics import Record


class RayExporter:
    """Makes Ray metrics; see `metrics.Exporter`. One replica holds one model, so names never clash."""

    def counter(self, name: str, description: str, model: str, *labels: str) -> Record:
        # Ray appends `_total` to the names of counters.
        made = metrics.Counter(name.removesuffix("_total"), description=description, tag_keys=("model", *labels))
        tags = _tags(model, labels)

        def add(amount: float, *values: str) -> None:
            if amount > 0:  # Ray refuses to add nothing
                made.inc(amount, tags=tags(*values))

        return add

    def histogram(self, name: str, description: str, model: str, bounds: Sequence[float], *labels: str) -> Record:
        made = metrics.Histogram(name, description=description, boundaries=list(bounds), tag_keys=("model", *labels))
        tags = _tags(model, labels)
        return lambda amount, *values: made.observe(amount, tags=tags(*values))

    def gauge(self, name: str, description: str, model: str) -> Record:
        made = metrics.Gauge(name, description=description, tag_keys=("model",))
        made.set_default_tags({"model": model})
        record: Record = made.set
        return record


def _tags(model: str, labels: Sequence[str]) -> Callable[..., dict[str, str]]:
    """Label values -> Ray's tags, made once for each combination."""
    return cache(lambda *values: {"model": model, **dict(zip(labels, values, strict=True))})
