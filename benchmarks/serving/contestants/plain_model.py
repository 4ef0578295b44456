"""The model class of the generated service, and the two ways in which contestants run a batch of it.

The environment variable BENCHMARK_SERVICE names the folder of a generated service in container mode.
"""

import importlib
import os
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from service.runtime.device import claim_device
from service.runtime.partition import fit_cost_model, partition
from service.runtime.settings import ServedModelSettings, load_service_settings


def settings() -> ServedModelSettings:
    """The settings of the service's first model."""
    return load_service_settings(Path(os.environ["BENCHMARK_SERVICE"]) / "config/service.yaml").models[0]


def model_module() -> ModuleType:
    """The team's module of the model: `Instance`, `Prediction`, `Model`."""
    return importlib.import_module(f"service.models.{settings().module}")


class PlainModel:
    """Loads the weights, with the service's own limits, dtype and number of threads. No server, no queue."""

    def __init__(self) -> None:
        module, chosen = model_module(), settings()
        self._instance = module.Instance
        self._model = module.Model(chosen, claim_device(chosen))
        self._limits = chosen.batch
        self._multiple = chosen.pad_to_multiple_of
        self._max_tokens = min(self._model.max_tokens, chosen.batch.max_batch_tokens)
        self.padded([self._instance(text="The first prediction is slower than those that follow it.")])

    def parse(self, body: dict[str, Any]) -> Any:
        """The instance of a request's JSON body; the benchmark sends one per request."""
        (instance,) = body["instances"]
        return self._instance.model_validate(instance)

    def padded(self, instances: Sequence[Any]) -> list[dict[str, Any]]:
        """Predictions from one batch, every text padded to the longest."""
        tokens = self._model.encode(instances, self._max_tokens)
        return [prediction.model_dump() for prediction in self._model.predict(tokens)]

    def fit(self) -> None:
        """Measure what batches cost on this machine, as the generated service does; `partitioned` needs it."""
        self._cost = fit_cost_model(
            run=lambda items, length: self._model.predict([self._model.sample(length)] * items),
            max_items=self._limits.max_batch_size,
            max_tokens=self._limits.max_batch_tokens,
            longest=self._max_tokens,
            pad_to_multiple_of=self._multiple,
        )

    def partitioned(self, instances: Sequence[Any]) -> list[dict[str, Any]]:
        """Predictions in order, from the batches of least total cost."""
        tokens = self._model.encode(instances, self._max_tokens)
        order = sorted(range(len(tokens)), key=lambda position: len(tokens[position].ids))
        lengths = [len(tokens[position].ids) for position in order]
        answers: list[dict[str, Any]] = [{}] * len(tokens)
        start = 0
        for end in partition(lengths, self._cost, self._limits.max_batch_size, self._limits.max_batch_tokens):
            batch = order[start:end]
            for position, answer in zip(batch, self._model.predict([tokens[p] for p in batch]), strict=True):
                answers[position] = answer.model_dump()
            start = end
        return answers
