"""What reading features costs beside what it is made of: `python -m benchmarks.features`.

One real Valkey, one event loop, reads in turn. Redis: one entity, two views, beside a raw pipelined read of the same
keys. Feast, as in production (Redis online, a SQL registry): one entity, one view, beside Feast's own call. Together:
REQUESTS reads at once, beside one pipeline, or one call, per request. Prints medians and ratios; raw figures to work/.
"""

import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import copier
from prometheus_client import CollectorRegistry
from redis.asyncio import Redis

ROOT = Path(__file__).resolve().parents[2]
sys.path += [str(ROOT / "template"), str(ROOT / "extensions/additions")]

from service.features.views import Event, RecentEvents, UserActivity  # noqa: E402
from service.runtime.feature_writer_redis import RedisFeatureWriter  # noqa: E402
from service.runtime.features import FeatureSource, Row, View  # noqa: E402
from service.runtime.features_redis import TIME_FIELD, RedisFeatureStore, RedisSettings, key_of  # noqa: E402
from service.runtime.metrics_prometheus import PrometheusExporter  # noqa: E402
from tests.run.service import environment, python_of  # noqa: E402
from tests.store import running_store  # noqa: E402

ENTITIES, ROUNDS, READS, REQUESTS = 500, 7, 500, 100
ACTIVITY, EVENTS = View.of(UserActivity), View.of(RecentEvents)
TARGET, FEAST_TARGET = 2.0, 1.3


async def timed_ms(reads: dict[str, Callable[[int], Awaitable[Any]]], count: int) -> dict[str, float]:
    """Median milliseconds of each kind of read, `count` times. In turn, so that a slow moment of the host hits all."""
    took: dict[str, list[float]] = {name: [] for name in reads}
    for n in range(count):
        for name, read in reads.items():
            started = time.perf_counter()
            await read(n)
            took[name].append((time.perf_counter() - started) * 1e3)
    return {name: statistics.median(values) for name, values in took.items()}


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
        reads: dict[str, Callable[[int], Awaitable[None]]] = {"raw": raw, "ours": ours}
        for name, middle_ms in (await timed_ms(reads, READS)).items():
            results[name].append(middle_ms)
            results[f"{name}_together"].append(await together(reads[name]))
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
    through_feast = measure_feast()
    out = ROOT / "work/benchmark-features.json"
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps({"redis": results, "feast": through_feast}, indent=1))
    report("Redis", results, "raw", "raw pipeline", TARGET)
    report("Feast", through_feast, "feast", "Feast's own call", FEAST_TARGET)


def measure_feast() -> dict[str, list[float]]:
    """See `feast_reads.py`."""
    with running_store() as store, tempfile.TemporaryDirectory() as name, warnings.catch_warnings():
        warnings.simplefilter("ignore", copier.errors.DirtyLocalWarning)
        folder = Path(name) / "service"
        copier.run_copy(str(ROOT), folder, data={"features": "feast"}, defaults=True, quiet=True, vcs_ref="HEAD")
        python = python_of(folder)
        env = environment(
            folder,
            FEATURE_STORE_CONFIG="feature_repo/production.yaml",
            FEATURE_DATA=name,
            FEATURE_REGISTRY=f"sqlite:///{name}/registry.db",
            FEATURE_STORE_CONNECTION=f"127.0.0.1:{store.port}",
        )
        config = str(folder / "feature_repo/production.yaml")
        apply = [str(python.with_name("feast")), "--chdir", "feature_repo", "--feature-store-yaml", config, "apply"]
        subprocess.run(apply, cwd=folder, env=env, check=True, capture_output=True)
        done = subprocess.run(
            [str(python), "-W", "ignore", str(Path(__file__).with_name("feast_reads.py"))],
            cwd=folder,
            env=env,
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        )
        found: dict[str, list[float]] = json.loads(done.stdout)
        return found


def report(store: str, results: dict[str, Any], base: str, base_words: str, target: float) -> None:
    """Print the medians of `ours` beside those of `base`."""
    middle = {name: statistics.median(values) for name, values in results.items()}
    ratio = middle["ours"] / middle[base]
    print(f"{store}, one entity, p50: {base_words} {middle[base]:.3f} ms, ours {middle['ours']:.3f} ms: {ratio:.2f} x")
    print(f"  target <= {target}: {'met' if ratio <= target else 'NOT met'}")
    ratio = middle["ours_together"] / middle[f"{base}_together"]
    print(
        f"  {REQUESTS} requests at once: {base_words} each, {middle[f'{base}_together']:.1f} ms, "
        f"ours {middle['ours_together']:.1f} ms: {ratio:.2f} x"
    )


if __name__ == "__main__":
    main()
