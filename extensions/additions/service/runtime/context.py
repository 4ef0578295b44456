"""Predictions with context: what is known beside an instance is read from all sources at once, then handed over."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

from pydantic import BaseModel, Field

from service.runtime.metrics import Exporter
from service.runtime.served import Answer, ServedModel
from service.runtime.settings import BatchLimits, ModelSettings

DEGRADED = Field(description="Context for which defaults were used, and why: missing, partial, stale, timeout, error.")


class Context(NamedTuple):
    """What one source knows of a request. changes: for each instance, what makes it the one that the model reads.

    degraded: `what: why`, sorted. details: the values of the source's `response_fields`.
    """

    changes: Sequence[Callable[[Any], Any]]
    degraded: Sequence[str]
    details: dict[str, Any]


class ContextSource(Protocol):
    """Reads something for each instance. It never fails a request: what is missing has defaults, and is named.

    response_fields: see `ServedModel.response_fields`.
    """

    response_fields: dict[str, Any]

    def instance(self, declared: type[BaseModel]) -> type[BaseModel]:
        """The type of an instance, with what a caller may say beside."""

    async def start(self) -> None:
        """Connect, so that the first request need not. A store that is down raises nothing."""

    async def read(self, instances: Sequence[Any]) -> Context:
        """Raises nothing, within the source's own deadline."""

    async def close(self) -> None: ...


class ServedModelWithContext(ServedModel):
    """See `ServedModel`. The model reads each instance as the sources change it, in their order."""

    def __init__(
        self,
        settings: ModelSettings,
        exporter: Exporter,
        objective_ms: float,
        sources: Sequence[ContextSource],
        alone: bool = True,
    ) -> None:
        super().__init__(settings, exporter, objective_ms, alone)
        self._sources = sources
        self.response_fields = {**self.response_fields, "degraded": (list[str], DEGRADED)}
        for source in sources:
            self.response_fields |= source.response_fields
            self.instance = source.instance(self.instance)

    async def start(self, limits: BatchLimits) -> None:
        for source in self._sources:
            await source.start()
        await super().start(limits)

    async def predict(
        self, instances: Sequence[Any], large: bool = False, has_left: Callable[[], bool] = lambda: False
    ) -> Answer:
        """See `ServedModel.predict`; reading context raises nothing."""
        reads = [source.read(instances) for source in self._sources]
        contexts = [await reads[0]] if len(reads) == 1 else await asyncio.gather(*reads)
        details: dict[str, Any] = {"degraded": []}
        for context in contexts:
            instances = [change(one) for change, one in zip(context.changes, instances, strict=True)]
            details |= context.details
            details["degraded"] = [*details["degraded"], *context.degraded]
        answer = await super().predict(instances, large, has_left)
        return Answer(answer.predictions, {**answer.details, **details})

    async def close(self) -> None:
        await super().close()
        for source in self._sources:
            await source.close()
