"""Features as context: instances may name entities, whose features are read and handed over."""

import importlib
from collections.abc import Callable, Sequence
from typing import Any

from pydantic import BaseModel, create_model

from service.runtime.context import Context
from service.runtime.feature_store import FeatureReader, load_feature_settings
from service.runtime.features import EntityKey, FeatureSource
from service.runtime.metrics import Exporter
from service.runtime.settings import ModelSettings
from service.runtime.stages import stage


class FeatureContext:
    """See `ContextSource`. `service/features/<name>.py` says which views the model reads, and how."""

    def __init__(self, settings: ModelSettings, exporter: Exporter) -> None:
        module = importlib.import_module(f"service.features.{settings.module}")
        store = load_feature_settings()
        self.response_fields: dict[str, Any] = {}
        self._model = settings.name
        self._with_features = module.with_features
        self._source = FeatureSource(
            module.VIEWS, FeatureReader(store), store.deadline_ms / 1e3, exporter, settings.name
        )
        self._entities = sorted({view.entity for view in self._source.views})

    def instance(self, declared: type[BaseModel]) -> type[BaseModel]:
        """With an optional field for each entity that it does not have by itself."""
        fields: dict[str, Any] = {
            name: (EntityKey | None, None) for name in self._entities if name not in declared.model_fields
        }
        return create_model(declared.__name__, __base__=declared, **fields)

    async def start(self) -> None:
        await self._source.start()

    async def read(self, instances: Sequence[Any]) -> Context:
        keys = [{name: key for name in self._entities if (key := getattr(one, name, None))} for one in instances]
        with stage("features", self._model):
            rows, degraded = await self._source.read(keys)
        return Context([self._change(row) for row in rows], degraded, {})

    def _change(self, row: Sequence[BaseModel]) -> Callable[[Any], Any]:
        return lambda instance: self._with_features(instance, *row)

    async def close(self) -> None:
        await self._source.close()
