"""The search: a text is embedded, its nearest documents are found, under a deadline and behind a circuit breaker."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from itertools import groupby

from service.retrieval import embedder
from service.runtime.deadlines import SharedReads, within
from service.runtime.metrics import LATENCY_BUCKETS_S, Exporter
from service.runtime.retrieval import (
    Condition,
    Hit,
    IndexMismatch,
    NotIndexed,
    RetrievalSettings,
    Retriever,
    SearchRefused,
)
from service.runtime.served import ServedModel
from service.runtime.stages import record

log = logging.getLogger(__name__)

Vectors = list[list[float]]
Embed = Callable[[Sequence[str]], Awaitable[Vectors]]
# (vector, limit, where) of one search.
Asked = tuple[list[float], int, Mapping[str, Condition]]
# Vectors in one round trip to the database, at most.
MOST_TOGETHER = 32
# What the check of the index may take at start.
START_S = 5.0
PROBE = "a text to learn the dimension from"


def embed_with(served: Mapping[str, ServedModel], name: str) -> Embed:
    """Vectors of texts by the model `name`, once it is there; `service/retrieval/embedder.py` says how.

    What it returns raises as `ServedModel.predict`.
    """

    async def embed(texts: Sequence[str]) -> Vectors:
        model = served[name]
        instances = [model.instance.model_validate(embedder.query(text)) for text in texts]
        return [embedder.vector(one) for one in (await model.predict(instances)).predictions]

    return embed


def alike(asked: Asked) -> tuple[int, str]:
    """Equal for searches that one call can answer; as filters are written, for in Python 1 == True."""
    _, limit, where = asked
    return limit, repr(where)


class Search:
    """Texts in, documents out. The index is checked before its first search, at start if the database is there.

    Every search has one outcome, which is counted: `ok`, `missing` (there is no index), `timeout`, `error`, and two
    that are no fault of the database: `invalid` (it refuses this search), `cancelled` (the caller has left).
    """

    def __init__(self, settings: RetrievalSettings, retriever: Retriever, embed: Embed, exporter: Exporter) -> None:
        self.settings = settings
        self._retriever = retriever
        self._embed = embed
        self._deadline_s = settings.deadline_ms / 1e3
        self._reads = SharedReads(self._read, self._deadline_s, MOST_TOGETHER)
        self._opened = False
        name = settings.embedder
        self._searches = exporter.counter("service_searches_total", "Searches by outcome.", name, "outcome")
        self._seconds = exporter.histogram(
            "service_search_seconds", "Time of a search, embedding not counted, in seconds.", name, LATENCY_BUCKETS_S
        )

    async def start(self) -> None:
        """Check the index. Raises IndexMismatch; a database that is not there, or has no index yet, raises nothing."""
        try:
            vectors = await self._embed([PROBE])
            await within(self._retriever.open(len(vectors[0])), START_S)
            self._opened = True
        except IndexMismatch:
            raise
        except Exception as error:  # whatever the database's client raises; the first search tries again
            log.warning("documents cannot be searched yet", extra={"error": f"{type(error).__name__}: {error}"})

    async def find_one(self, text: str, limit: int, where: Mapping[str, Condition]) -> list[Hit]:
        """See `find`."""
        (found,) = await self.find([text], limit, where)
        return found

    async def find_soon(self, texts: Sequence[str], limit: int, embed_within_s: float) -> list[list[Hit]]:
        """See `find`; for who also cannot wait for the embedding."""
        return await self.find(texts, limit, {}, embed_within_s)

    async def find(
        self, texts: Sequence[str], limit: int, where: Mapping[str, Condition], embed_within_s: float | None = None
    ) -> list[list[Hit]]:
        """The `limit` nearest documents of each text, nearest first.

        embed_within_s: what embedding may take, if that is less than a prediction's own limit.
        Raises what embedding raises; then NotIndexed, IndexMismatch, SearchRefused, TimeoutError, StoreResting, or what
        the client raises.
        """
        embedding = self._embed(texts)
        vectors = await (within(embedding, embed_within_s) if embed_within_s else embedding)
        started_s = time.monotonic()
        outcome = "error"
        try:
            asked = [(vector, limit, where) for vector in vectors]
            found = []
            for answer in await within(self._reads.read(asked), self._deadline_s):
                if isinstance(answer, Exception):
                    raise answer
                found.append(answer)
            outcome = "ok"
        except TimeoutError:
            outcome = "timeout"
            raise
        except NotIndexed:
            outcome = "missing"
            raise
        except SearchRefused:
            outcome = "invalid"
            raise
        except asyncio.CancelledError:
            outcome = "cancelled"
            raise
        finally:
            ended_s = time.monotonic()
            self._searches(1, outcome)
            self._seconds(ended_s - started_s)
            record("search", self.settings.embedder, started_s, ended_s)
        return found

    async def _read(self, asked: list[Asked]) -> list[list[Hit] | Exception]:
        """All that wait, in one round trip if they ask alike.

        What is no failure of the database is answered to whom it concerns, and the index is then checked anew.
        """
        answers: list[list[Hit] | Exception] = []
        opened, self._opened = self._opened, False
        try:
            if not opened:
                await self._retriever.open(len(asked[0][0]))
            for _, some in groupby(asked, key=alike):
                together = list(some)
                vectors, (_, limit, where) = [vector for vector, _, _ in together], together[0]
                try:
                    answers += await self._retriever.search(vectors, limit, where)
                except SearchRefused as error:
                    answers += [error] * len(vectors)
        except (NotIndexed, IndexMismatch) as error:
            return [error] * len(asked)
        self._opened = not any(isinstance(answer, SearchRefused) for answer in answers)
        return answers

    async def close(self) -> None:
        self._reads.close()
        await self._retriever.close()
