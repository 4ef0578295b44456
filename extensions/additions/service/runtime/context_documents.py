"""Documents as context: those nearest to an instance's text are found and handed over."""

import importlib
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from pydantic import BaseModel, Field

from service.runtime.context import Context
from service.runtime.deadlines import within
from service.runtime.metrics import LATENCY_BUCKETS_S, Exporter
from service.runtime.retrieval import Hit, NotIndexed
from service.runtime.settings import ModelSettings
from service.runtime.stages import stage

log = logging.getLogger(__name__)

DOCUMENTS = Field(description="For each instance the ids of the documents that the model read, nearest first.")
# One line a second at most says that documents are missing; the counters tell how often.
LOG_EVERY_S = 1.0

# (texts, how many, seconds that embedding may take) -> the documents of each text.
Find = Callable[[Sequence[str], int, float], Awaitable[list[list[Hit]]]]


class DocumentContext:
    """See `ContextSource`. `service/retrieval/<name>.py` says what is searched for an instance, and what becomes of it.

    deadline_s: for embedding, and again for the search. Every lookup has one outcome, which is counted: `ok`, `missing`
    (there is no index), `timeout`, `error`.
    """

    def __init__(self, settings: ModelSettings, exporter: Exporter, find: Find, deadline_s: float) -> None:
        module = importlib.import_module(f"service.retrieval.{settings.module}")
        self.response_fields: dict[str, Any] = {"documents": (list[list[str]], DOCUMENTS)}
        self._query, self._with_documents, self._limit = module.query, module.with_documents, module.LIMIT
        self._model = settings.name
        self._find = find
        self._deadline_s = deadline_s
        self._logged_s = 0.0
        self._lookups = exporter.counter(
            "service_document_lookups_total", "Instances whose documents were looked up.", settings.name, "outcome"
        )
        described = "Time that a request waited for documents, in seconds."
        self._seconds = exporter.histogram("service_document_read_seconds", described, settings.name, LATENCY_BUCKETS_S)

    def instance(self, declared: type[BaseModel]) -> type[BaseModel]:
        """As it is: a caller sends a text already."""
        return declared

    async def start(self) -> None:
        """Nothing of its own: the search connects."""

    async def read(self, instances: Sequence[Any]) -> Context:
        started_s = time.perf_counter()
        found: list[list[Hit]] = [[] for _ in instances]
        outcome = "ok"
        try:
            asked = self._find([self._query(one) for one in instances], self._limit, self._deadline_s)
            with stage("documents", self._model):
                found = await within(asked, 2 * self._deadline_s)
        except Exception as error:  # whatever is wrong with the search, the request goes on without documents
            outcome = (
                "missing"
                if isinstance(error, NotIndexed)
                else "timeout"
                if isinstance(error, TimeoutError)
                else "error"
            )
            if started_s - self._logged_s > LOG_EVERY_S:
                self._logged_s = started_s
                log.warning("documents not read", extra={"error": f"{type(error).__name__}: {error}"})
        finally:
            self._seconds(time.perf_counter() - started_s)
        self._lookups(len(instances), outcome)
        return Context(
            [self._change(hits) for hits in found],
            [] if outcome == "ok" else [f"documents: {outcome}"],
            {"documents": [[hit.id for hit in hits] for hits in found]},
        )

    def _change(self, hits: Sequence[Hit]) -> Callable[[Any], Any]:
        return lambda instance: self._with_documents(instance, hits)

    async def close(self) -> None:
        """Nothing of its own: the search is closed by whom made it."""
