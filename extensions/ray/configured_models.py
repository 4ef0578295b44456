"""The models of this service as its configuration has them, for what runs beside it."""

from pathlib import Path

import yaml

from service.runtime.settings import BatchLimits, ModelSettings

CONFIG = Path(__file__).parents[2] / "config/serve.yaml"


def configured_models(path: Path = CONFIG) -> dict[str, tuple[ModelSettings, BatchLimits]]:
    """Name -> settings and limits. Raises OSError or pydantic's ValidationError."""
    found = {}
    for application in yaml.safe_load(path.read_text())["applications"]:
        if "source" in application["args"]:
            args = {key: value for key, value in application["args"].items() if key in ModelSettings.model_fields}
            limits = BatchLimits.model_validate(application["deployments"][0]["user_config"])
            found[application["name"]] = (ModelSettings.model_validate(args), limits)
    return found
