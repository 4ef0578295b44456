"""The models of this service as its configuration has them, for what runs beside it."""

from pathlib import Path

from service.runtime.settings import BatchLimits, ModelSettings, load_service_settings

CONFIG = Path(__file__).parents[2] / "config/service.yaml"


def configured_models(path: Path = CONFIG) -> dict[str, tuple[ModelSettings, BatchLimits]]:
    """Name -> settings and limits. Raises SettingsError."""
    return {model.name: (model, model.batch) for model in load_service_settings(path).models}
