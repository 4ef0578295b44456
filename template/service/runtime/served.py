"""One model as the service offers it: loaded, warmed up, batched, with its limits and its metrics."""

import asyncio
import importlib
import logging
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from pydantic import BaseModel, Field

from service.runtime.batcher import Batcher
from service.runtime.device import claim_device, gpu_memory, is_lost
from service.runtime.interface import Model
from service.runtime.metrics import Exporter, ModelMetrics
from service.runtime.partition import fit_cost_model
from service.runtime.settings import BatchLimits, ModelSettings, SettingsError
from service.runtime.stages import stage

log = logging.getLogger(__name__)

REPORT_EVERY_S = 5.0
# So many make the garbage collector come. Python's 700 are fewer than requests in flight hold: 40 times a second.
YOUNG_OBJECTS = 10_000
TRUNCATED = Field(description="Positions of the instances that were cut to the token limit.")


class TextTooLong(ValueError):
    """At least one text is over the token limit, and the model refuses those. The message names them."""


class Answer(NamedTuple):
    """predictions: one per instance, in order. details: the values of `ServedModel.response_fields`, by name."""

    predictions: list[BaseModel]
    details: dict[str, Any]


class ServedModel:
    """A model behind its batcher. The constructor loads weights; `start` warms up and must run on the event loop.

    instance, prediction: what a caller sends and gets for one text. response_fields: what else a response says, as
    pydantic's `create_model` takes it. objective_ms: the latency that the service promises. alone: no other model is in
    this process. Raises SettingsError where the weights cannot be loaded.
    """

    def __init__(self, settings: ModelSettings, exporter: Exporter, objective_ms: float, alone: bool = True) -> None:
        self.settings = settings
        self.metrics = ModelMetrics(exporter, settings.name, objective_ms / 1000)
        module = importlib.import_module(f"service.models.{settings.module}")
        self.instance: type[BaseModel] = module.Instance
        self.prediction: type[BaseModel] = module.Prediction
        self.response_fields: dict[str, Any] = {"truncated": (list[int], TRUNCATED)}
        self._load_started_s = time.monotonic()
        self._device = claim_device(settings)
        try:
            self._model: Model = module.Model(settings, self._device)
        except OSError as error:  # transformers says which file it misses, and where it has looked
            at = f"{settings.source} in revision {settings.revision}"
            raise SettingsError(f"the model {settings.name!r} cannot be loaded from {at}: {error}") from error
        inline = alone and self._device.type != "cuda"
        self._executor = None if inline else ThreadPoolExecutor(1, "model")
        self._batcher: Batcher | None = None
        self._reporter: asyncio.Task[None] | None = None

    @property
    def limits(self) -> BatchLimits:
        return self._running.limits

    @property
    def alive(self) -> bool:
        """Started, and still running batches."""
        return self._batcher is not None and self._batcher.alive

    @property
    def _running(self) -> Batcher:
        if self._batcher is None:
            raise RuntimeError(f"the model {self.settings.name!r} was used before `start`")
        return self._batcher

    async def start(self, limits: BatchLimits) -> None:
        """Fit the cost model on this machine and start the batcher; on a running model, only change its limits."""
        if self._batcher is not None:
            self._batcher.limits = limits
            log.info("batch limits changed", extra={"model": self.settings.name, **limits.model_dump()})
            return
        cost = fit_cost_model(
            run=lambda items, length: self._model.predict([self._model.sample(length)] * items),
            max_items=limits.max_batch_size,
            max_tokens=limits.max_batch_tokens,
            longest=self._model.max_tokens,
            pad_to_multiple_of=self.settings.pad_to_multiple_of,
        )
        self._batcher = Batcher(
            self._model.predict, limits, cost, self.metrics, self._executor, lambda: is_lost(self._device)
        )
        load_s = time.monotonic() - self._load_started_s
        self._reporter = asyncio.get_running_loop().create_task(self._report(load_s), name="reporter")
        log.info(
            "model ready",
            extra={
                "model": self.settings.name,
                "revision": self.settings.revision,
                "device": self._device.type,
                "gpus": os.environ.get("CUDA_VISIBLE_DEVICES", ""),
                "load_s": round(load_s, 3),
                "batch_fixed_ms": round(cost.fixed_s * 1e3, 3),
                "batch_token_us": round(cost.per_token_s * 1e6, 3),
            },
        )

    async def predict(
        self, instances: Sequence[Any], large: bool = False, has_left: Callable[[], bool] = lambda: False
    ) -> Answer:
        """Predictions for validated instances. Raises TextTooLong, and what `Batcher.submit` raises.

        large: so much text that other requests shall not wait while it is tokenised. has_left: see `Batcher.submit`.
        """
        started_s = time.monotonic()
        limit = min(self._model.max_tokens, self.limits.max_batch_tokens)
        with stage("tokenize", self.settings.name):
            if large:
                inputs = await asyncio.to_thread(self._model.encode, instances, limit)
            else:
                inputs = self._model.encode(instances, limit)
        truncated = [position for position, item in enumerate(inputs) if item.truncated]
        if truncated and self.settings.long_text == "refuse":
            raise TextTooLong(
                f"instances {', '.join(map(str, truncated))} have more than {limit} tokens: shorten or split them"
            )
        spent_s = time.monotonic() - started_s
        predictions = await self._running.submit(inputs, self.settings.request_timeout_s, spent_s, has_left)
        if truncated:
            self.metrics.truncated(len(truncated))
        return Answer(predictions, {"truncated": truncated})

    async def _report(self, load_s: float) -> None:
        """Set the gauges again and again: Ray drops one that was not set for 20 s."""
        on_gpu = self.metrics.gpu_memory() if self._device.type == "cuda" else ()
        while True:
            self.metrics.load_seconds(load_s)
            self.metrics.ready(int(self.alive))
            self.metrics.queue_inputs(self._running.queued)
            try:
                for gauge, value in zip(on_gpu, gpu_memory(self.settings, self._device) if on_gpu else (), strict=True):
                    gauge(value)
            except RuntimeError:  # the other gauges are needed most of all now
                log.exception("the memory of the card cannot be read", extra={"model": self.settings.name})
            await asyncio.sleep(REPORT_EVERY_S)

    async def close(self) -> None:
        """Stop the batcher; call after the last response is out."""
        if self._reporter is not None:
            self._reporter.cancel()
        if self._batcher is not None:
            await self._batcher.close()
