"""Every setting of the service: its type, its unit, its rule. Checked once, at start; unknown keys are errors."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

Name = Annotated[str, Field(pattern=r"^[a-z]([-a-z0-9]*[a-z0-9])?$", max_length=30)]


class SettingsError(ValueError):
    """A settings file that cannot be used; the message names the file, the key and the value."""


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class BatchLimits(Strict):
    """What one batch and its queue may hold. In Ray mode this is `user_config`: a change needs no restart.

    max_batch_size: inputs in one batch.
    max_batch_tokens: inputs x longest input of one batch, padding included; also the longest input accepted.
    batch_wait_ms: how long the oldest input waits for company while the model is idle; 0 runs at once.
    max_queue_length: inputs waiting; a request that does not fit is refused with 429.
    """

    max_batch_size: int = Field(ge=1)
    max_batch_tokens: int = Field(ge=1)
    batch_wait_ms: float = Field(ge=0)
    max_queue_length: int = Field(ge=1)

    @model_validator(mode="after")
    def _a_full_batch_must_fit_the_queue(self) -> Self:
        if self.max_queue_length < self.max_batch_size:
            raise ValueError(
                f"max_queue_length {self.max_queue_length} is below max_batch_size {self.max_batch_size}, "
                f"so a batch can never fill: raise max_queue_length to at least {self.max_batch_size}"
            )
        return self


class ModelSettings(Strict):
    """How to load and serve one model.

    source: a hub id or a folder; revision: the commit of the hub that is loaded, or a label for a folder.
    long_text: what happens to a text over the token limit.
    request_timeout_s: a prediction that is not there by then is given up with 504.
    cpu_threads: threads of one forward pass on a CPU; two replicas of one thread beat one of two.
    gpu_memory_fraction: share of the GPU's memory that PyTorch may allocate; null without a GPU.
    """

    name: Name
    source: str = Field(min_length=1)
    revision: str = Field(min_length=1)
    dtype: Literal["float32", "bfloat16", "float16"]
    long_text: Literal["truncate", "refuse"]
    request_timeout_s: float = Field(gt=0)
    cpu_threads: int = Field(ge=1)
    gpu_memory_fraction: float | None = Field(gt=0, le=1)

    @property
    def module(self) -> str:
        """The Python module below `service.models` that defines this model."""
        return self.name.replace("-", "_")

    @property
    def pad_to_multiple_of(self) -> int:
        """Batches are padded to a multiple of this many tokens.

        PyTorch compiles what it computes in bfloat16 on a CPU for each size that it meets: without rounding, traffic
        that never repeats a batch keeps compiling. Measured: 10 ms and 3 MB for a new size, a fifth of the throughput.
        In float32 nothing is compiled, and rounding only adds work.
        """
        return 1 if self.dtype == "float32" else 8


class ServedModelSettings(ModelSettings):
    """A model and its batch limits, as the container reads them from one file."""

    batch: BatchLimits


class ServiceSettings(Strict):
    """The container's settings file, `config/service.yaml`.

    latency_objective_ms: what 99 of 100 requests shall not exceed; metrics count them apart.
    """

    latency_objective_ms: float = Field(gt=0)
    models: list[ServedModelSettings] = Field(min_length=1)

    @model_validator(mode="after")
    def _names_must_differ(self) -> Self:
        names = [model.name for model in self.models]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"model names must differ, and these stand twice: {', '.join(twice)}")
        return self


Settings = TypeVar("Settings", bound=Strict)

SHOWN = 80  # characters of a value that a message shows at most


def load_service_settings(path: Path) -> ServiceSettings:
    """The container's settings; see `load_settings`."""
    return load_settings(ServiceSettings, {}, path)


def load_settings(kind: type[Settings], environment: Mapping[str, str], path: Path) -> Settings:
    """Read and check a settings file; SettingsError says what to change.

    environment: key of the settings -> variable of the environment that wins over the file.
    """
    given = {key: os.environ[name] for key, name in environment.items() if os.environ.get(name)}
    try:
        found = yaml.safe_load(path.read_text())
        return kind.model_validate(found | given if given else found)
    except OSError as error:
        raise SettingsError(f"cannot read the settings file {path}: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise SettingsError(f"{path} is not YAML: {error}") from error
    except ValidationError as error:
        sources = {key: environment[key] for key in given}
        # None: a traceback would print pydantic's own message, with the values in it.
        raise SettingsError(f"{path} holds settings that cannot be used:\n{explain(error, sources)}") from None


def explain(error: ValidationError, sources: Mapping[str, str] | None = None) -> str:
    """One line per fault: where, what is wrong, and the value, shortened and without a password in a URL.

    sources: key of the settings -> variable of the environment that it came from, and whose value is not shown.
    """
    return "\n".join(
        f"  {'.'.join(map(str, fault['loc'])) or 'the whole'}: {fault['msg']}{_given(fault, sources or {})}"
        for fault in error.errors()
    )


def _given(fault: Mapping[str, Any], sources: Mapping[str, str]) -> str:
    if fault["type"] == "missing":  # what is given there is everything else
        return ""
    if fault["loc"] and (variable := sources.get(str(fault["loc"][0]))):
        return f" (it came from {variable})"
    if not fault["loc"] and sources:
        return ""
    # Before it is cut, so that no half of a password is left.
    shown = re.sub(r"://.*@", "://***@", repr(fault["input"]))
    shown = re.sub(r"password=.*", "password=***", shown)
    return f" (got {shown if len(shown) <= SHOWN else shown[: SHOWN - 3] + '...'})"
