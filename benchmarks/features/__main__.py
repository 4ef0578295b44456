"""What reading features costs beside a raw pipelined read of the same keys: `python -m benchmarks.features`.

One real Valkey, one event loop, rounds in turn. Single reads: one entity, two views. Together: REQUESTS reads at once,
against one raw pipeline per request on the same pool. Prints medians and ratios; raw figures to work/.
"""

import asyncio
import json
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry
from redis.asyncio import Redis

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "template"))

from service.features.views import Event, RecentEvents, UserActivity  # noqa: E402
from service.runtime.feature_writer_redis import RedisFeatureWriter  # noqa: E402
from service.runtime.features import FeatureSource, Row, View  # noqa: E402
from service.runtime.features_redis import TIME_FIELD, RedisFeatureStore, RedisSettings, key_of  # noqa: E402
from service.runtime.metrics_prometheus import PrometheusExporter  # noqa: E402
from tests.store import running_store  # noqa: E402

ENTITIES, ROUNDS, READS, REQUESTS = 500, 7, 500, 100
ACTIVITY, EVENTS = View.of(UserActivity), View.of(RecentEvents)
TARGET = 2.0


async def timed_ms(read: Callable[[int], Awaitable[Any]], count: int) -> list[float]:
    """Milliseconds of each of `count` reads, one after the other."""
    took = []
    for n in range(count):
        started = time.perf_counter()
        await read(n)
        took.append((time.perf_counter() - started) * 1e3)
    return took


async def measure(settings: RedisSettings) -> dict[str, Any]:
    source = FeatureSource(
        [UserActivity, RecentEvents],
        RedisFeatureStore(settings),
        settings.deadline_ms / 1e3,
        PrometheusExporter(CollectorRegistry()),
        "benchmark",
    )
    client = Redis.from_url(settings.url)

    async def ours(n: int) -> None:
        _, degraded = await source.read([{"user_id": str(n % ENTITIES)}])
        assert not degraded, degraded

    async def raw(n: int) -> None:
        async with client.pipeline(transaction=False) as pipe:
            pipe.hmget(key_of(settings.namespace, ACTIVITY, str(n % ENTITIES)), [*ACTIVITY.fields, TIME_FIELD])
            pipe.zrange(
                key_of(settings.namespace, EVENTS, str(n % ENTITIES)),
                0,
                RecentEvents.last - 1,
                desc=True,
                withscores=True,
            )
            await pipe.execute()

    async def together(read: Callable[[int], Awaitable[None]]) -> float:
        started = time.perf_counter()
        await asyncio.gather(*(read(n) for n in range(REQUESTS)))
        return (time.perf_counter() - started) * 1e3

    results: dict[str, list[float]] = {"raw": [], "ours": [], "raw_together": [], "ours_together": []}
    for _ in range(ROUNDS):
        for name, read in (("raw", raw), ("ours", ours)):
            results[name].append(statistics.median(await timed_ms(read, READS)))
            results[f"{name}_together"].append(await together(read))
    await source.close()
    await client.aclose()
    return results


def main() -> None:
    with running_store() as store:
        settings = RedisSettings(url=store.url, namespace="benchmark", deadline_ms=5000)
        writer = RedisFeatureWriter(settings)
        now = time.time()
        for n in range(ENTITIES):
            writer.write([Row(ACTIVITY, str(n), UserActivity(orders_7d=n, spend_7d=1.5), now)])
            writer.write(Row(EVENTS, str(n), Event(kind="viewed", item=f"item {k}"), now - k) for k in range(20))
        writer.close()
        results = asyncio.run(measure(settings))
    out = ROOT / "work/benchmark-features.json"
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps(results, indent=1))
    middle = {name: statistics.median(values) for name, values in results.items()}
    ratio = middle["ours"] / middle["raw"]
    print(f"one entity, p50: raw pipeline {middle['raw']:.3f} ms, ours {middle['ours']:.3f} ms: {ratio:.2f} x")
    print(f"  target <= {TARGET}: {'met' if ratio <= TARGET else 'NOT met'}")
    ratio = middle["ours_together"] / middle["raw_together"]
    print(
        f"{REQUESTS} requests at once: raw, a pipeline each, {middle['raw_together']:.1f} ms, "
        f"ours {middle['ours_together']:.1f} ms: {ratio:.2f} x"
    )


if __name__ == "__main__":
    main()
