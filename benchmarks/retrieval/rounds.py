"""The rounds of `benchmarks.retrieval`, run in a rendered service by its Python; prints one line of JSON at the end."""

import asyncio
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import redirect_stdout
from json import dumps
from pathlib import Path
from typing import Any

sys.path.insert(0, "")

from prometheus_client import CollectorRegistry
from qdrant_client import models

from jobs.documents import read, survey
from jobs.index_documents import DocumentEmbedder, build
from service.runtime.metrics_prometheus import PrometheusExporter
from service.runtime.retrieval_qdrant import QdrantRetriever, client_of
from service.runtime.search import Search
from service.runtime.vector_index import load_retrieval_settings

FILE = Path("documents.jsonl")
SEARCHES, LIMIT = 100, 10


def ceiling_per_s(model: DocumentEmbedder) -> float:
    """The model alone: texts to vectors, all of them sorted together."""
    documents = list(read(FILE))
    started_s = time.perf_counter()
    embedded = sum(len(some) for some, _ in model.embed(documents))
    return embedded / (time.perf_counter() - started_s)


def job_per_s(model: DocumentEmbedder, settings: Any) -> float:
    started_s = time.perf_counter()
    found = survey(FILE)
    with redirect_stdout(sys.stderr):
        asyncio.run(build(FILE, found, settings, model, prune=False))
    return found.count / (time.perf_counter() - started_s)


async def median_ms(call: Callable[[], Awaitable[object]]) -> float:
    took = []
    for _ in range(SEARCHES):
        started_s = time.perf_counter()
        await call()
        took.append((time.perf_counter() - started_s) * 1e3)
    return statistics.median(took)


async def searches_ms(settings: Any, vector: list[float]) -> tuple[float, float]:
    """p50 of the client's own call, and of ours with the same vector."""
    settings = settings.model_copy(update={"deadline_ms": 10_000.0})

    async def embed(texts: Any) -> list[list[float]]:
        return [vector for _ in texts]

    search = Search(settings, QdrantRetriever(settings), embed, PrometheusExporter(CollectorRegistry()))
    client = client_of(settings, 10)

    async def raw() -> object:
        asked = models.QueryRequest(query=vector, limit=LIMIT, with_payload=True)
        return await client.query_batch_points(settings.alias, requests=[asked])

    async def ours() -> object:
        return await search.find_one("a text", LIMIT, {})

    for call in (raw, ours):
        await call()
    found = await median_ms(raw), await median_ms(ours)
    await search.close()
    await client.close()
    return found


def main() -> None:
    settings = load_retrieval_settings()
    model = DocumentEmbedder(settings.embedder)
    results: dict[str, list[float]] = {"ceiling_per_s": [], "job_per_s": [], "client_ms": [], "search_ms": []}
    for number in range(int(sys.argv[1])):
        mine = settings.model_copy(update={"namespace": f"round-{number}"})
        results["ceiling_per_s"].append(ceiling_per_s(model))
        results["job_per_s"].append(job_per_s(model, mine))
        ((_, vectors),) = [next(iter(model.embed(list(read(FILE))[:1])))]
        client_ms, search_ms = asyncio.run(searches_ms(mine, vectors[0]))
        results["client_ms"].append(client_ms)
        results["search_ms"].append(search_ms)
        print(f"round {number}: {[round(values[-1], 2) for values in results.values()]}", file=sys.stderr, flush=True)
    print(dumps(results))


if __name__ == "__main__":
    main()
