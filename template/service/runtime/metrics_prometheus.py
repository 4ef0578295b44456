"""Metrics of the container: `prometheus_client`, scraped at `/metrics`."""

from collections.abc import Sequence
from functools import cache

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram

from service.runtime.metrics import Record


class PrometheusExporter:
    """Makes metrics in one registry; see `metrics.Exporter`."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self._registry = registry
        self._counters: dict[str, Counter] = {}
        self._histograms: dict[str, Histogram] = {}
        self._gauges: dict[str, Gauge] = {}

    def counter(self, name: str, description: str, model: str, *labels: str) -> Record:
        if name not in self._counters:
            self._counters[name] = Counter(name, description, ("model", *labels), registry=self._registry)
        made = self._counters[name]
        child = cache(lambda *values: made.labels(model, *values))
        if not labels:
            child()  # 0 from the start: an increase from nothing to something is none for Prometheus
        return lambda amount, *values: child(*values).inc(amount)

    def histogram(self, name: str, description: str, model: str, bounds: Sequence[float], *labels: str) -> Record:
        if name not in self._histograms:
            self._histograms[name] = Histogram(
                name, description, ("model", *labels), buckets=tuple(bounds), registry=self._registry
            )
        made = self._histograms[name]
        child = cache(lambda *values: made.labels(model, *values))
        return lambda amount, *values: child(*values).observe(amount)

    def gauge(self, name: str, description: str, model: str) -> Record:
        if name not in self._gauges:
            self._gauges[name] = Gauge(name, description, ("model",), registry=self._registry)
        return self._gauges[name].labels(model).set
