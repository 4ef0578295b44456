"""Reads through the service's own source, and through Feast itself, in turn: run in a rendered service, by its Python.

Prints JSON: medians of each round, in milliseconds. What it needs in the environment: feature_repo/production.yaml.
"""

import asyncio
import json
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

from prometheus_client import CollectorRegistry

from service.features.views import UserActivity
from service.runtime.features import FeatureSource, Row, View
from service.runtime.metrics_prometheus import PrometheusExporter

ENTITIES, ROUNDS, READS, REQUESTS = 100, 7, 500, 100


async def timed_ms(reads: dict[str, Callable[[int], Awaitable[Any]]], count: int) -> dict[str, float]:
    """Median milliseconds of each kind of read, `count` times. In turn, so that a slow moment of the host hits all."""
    took: dict[str, list[float]] = {name: [] for name in reads}
    for n in range(count):
        for name, read in reads.items():
            started = time.perf_counter()
            await read(n)
            took[name].append((time.perf_counter() - started) * 1e3)
    return {name: statistics.median(values) for name, values in took.items()}


async def measure() -> dict[str, list[float]]:
    from service.runtime.feature_store import FeatureReader, load_feature_settings

    reader = FeatureReader(load_feature_settings())
    source = FeatureSource([UserActivity], reader, 5.0, PrometheusExporter(CollectorRegistry()), "benchmark")
    await source.start()
    # The same one: two in a process, asked in turn, each take four times as long.
    feast = reader._feast  # type: ignore[attr-defined]
    features = [f"user_activity_v1:{field}" for field in UserActivity.model_fields]

    async def ours(n: int) -> None:
        _, degraded = await source.read([{"user_id": str(n % ENTITIES)}])
        assert not degraded, degraded

    async def theirs(n: int) -> None:
        response = await feast.get_online_features_async(features, [{"user_id": str(n % ENTITIES)}])
        assert response.to_dict()["spend_7d"] == [1.5]

    async def together(read: Callable[[int], Awaitable[None]]) -> float:
        started = time.perf_counter()
        await asyncio.gather(*(read(n) for n in range(REQUESTS)))
        return (time.perf_counter() - started) * 1e3

    results: dict[str, list[float]] = {"feast": [], "ours": [], "feast_together": [], "ours_together": []}
    for _ in range(ROUNDS):
        reads: dict[str, Callable[[int], Awaitable[None]]] = {"feast": theirs, "ours": ours}
        for name, middle_ms in (await timed_ms(reads, READS)).items():
            results[name].append(middle_ms)
            results[f"{name}_together"].append(await together(reads[name]))
    await source.close()
    return results


def main() -> None:
    from service.runtime.feature_store import FeatureWriter, load_feature_settings

    view, now = View.of(UserActivity), time.time()
    writer = FeatureWriter(load_feature_settings())
    writer.write([Row(view, str(n), UserActivity(orders_7d=n, spend_7d=1.5), now) for n in range(ENTITIES)])
    json.dump(asyncio.run(measure()), sys.stdout)


if __name__ == "__main__":
    main()
