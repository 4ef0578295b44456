"""A model whose instances may name entities: their features are read, and handed over with the text."""

import importlib
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, Field, create_model

from service.runtime.feature_store import FeatureReader, load_feature_settings
from service.runtime.features import EntityKey, FeatureSource
from service.runtime.metrics import Exporter
from service.runtime.served import Answer, ServedModel
from service.runtime.settings import BatchLimits, ModelSettings

DEGRADED = Field(description="Views for which defaults were used, and why: missing, partial, stale, timeout or error.")


class ServedModelWithFeatures(ServedModel):
    """See `ServedModel`. `service/features/<name>.py` says which views the model reads, and how."""

    def __init__(self, settings: ModelSettings, exporter: Exporter) -> None:
        super().__init__(settings, exporter)
        self.response_fields = {**self.response_fields, "degraded": (list[str], DEGRADED)}
        module = importlib.import_module(f"service.features.{settings.module}")
        store = load_feature_settings()
        self._with_features = module.with_features
        self._source = FeatureSource(
            module.VIEWS, FeatureReader(store), store.deadline_ms / 1e3, exporter, settings.name
        )
        self._entities = sorted({view.entity for view in self._source.views})
        self.instance = _with_entity_keys(self.instance, self._entities)

    async def start(self, limits: BatchLimits) -> None:
        await self._source.start()
        await super().start(limits)

    async def predict(self, instances: Sequence[Any]) -> Answer:
        """See `ServedModel.predict`; reading features raises nothing."""
        keys = [{name: key for name in self._entities if (key := getattr(one, name))} for one in instances]
        rows, degraded = await self._source.read(keys)
        answer = await super().predict(
            [self._with_features(one, *row) for one, row in zip(instances, rows, strict=True)]
        )
        return Answer(answer.predictions, {**answer.details, "degraded": degraded})

    async def close(self) -> None:
        await super().close()
        await self._source.close()


def _with_entity_keys(instance: type[BaseModel], entities: Sequence[str]) -> type[BaseModel]:
    """The instance with an optional field for each entity that it does not have by itself."""
    fields: dict[str, Any] = {name: (EntityKey | None, None) for name in entities if name not in instance.model_fields}
    return create_model(instance.__name__, __base__=instance, **fields)
