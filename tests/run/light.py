"""Teams' models that need no weights: they start in a moment, for tests that look at everything but predictions."""

from pathlib import Path

SOURCE = '''"""Answers the length of a text, after SECONDS."""

import time
from collections.abc import Sequence

from pydantic import BaseModel

from service.runtime.interface import Tokens

SECONDS = {seconds}


class Instance(BaseModel):
    text: str


class Prediction(BaseModel):
    length: int


class Model:
    max_tokens = 8

    def __init__(self, settings, device):
        pass

    def encode(self, instances: Sequence[Instance], max_tokens: int) -> list[Tokens]:
        return [Tokens([0] * len(instance.text)) for instance in instances]

    def sample(self, length: int) -> Tokens:
        return Tokens([0] * length)

    def predict(self, batch: Sequence[Tokens]) -> list[Prediction]:
        time.sleep(SECONDS)
        return [Prediction(length=len(item.ids)) for item in batch]
'''


def put_light_model(folder: Path, name: str, seconds: float = 0.0) -> None:
    """Replace the model `name` of the render in `folder`. seconds: how long each batch takes."""
    (folder / f"service/models/{name.replace('-', '_')}.py").write_text(SOURCE.format(seconds=seconds))


EMBEDDER = '''"""Embeds a text by its characters, after SECONDS a batch."""

import time
from collections.abc import Sequence

from pydantic import BaseModel

from service.runtime.interface import Tokens

SECONDS = {seconds}
DIMENSION = 16


class Instance(BaseModel):
    text: str


class Prediction(BaseModel):
    embedding: list[float]


class Model:
    max_tokens = 256

    def __init__(self, settings, device):
        pass

    def encode(self, instances: Sequence[Instance], max_tokens: int) -> list[Tokens]:
        return [Tokens([ord(letter) for letter in instance.text[:max_tokens]]) for instance in instances]

    def sample(self, length: int) -> Tokens:
        return Tokens([1] * length)

    def predict(self, batch: Sequence[Tokens]) -> list[Prediction]:
        time.sleep(SECONDS)
        return [Prediction(embedding=vector(item.ids)) for item in batch]


def vector(ids: list[int]) -> list[float]:
    sums = [1e-6] * DIMENSION
    for place, each in enumerate(ids):
        sums[(each * 31 + place % 7) % DIMENSION] += 1.0
    length = sum(value * value for value in sums) ** 0.5
    return [value / length for value in sums]
'''


def put_light_embedder(folder: Path, name: str, seconds: float = 0.0) -> None:
    """Replace the embedding model `name` of the render in `folder`. seconds: how long each batch takes."""
    (folder / f"service/models/{name.replace('-', '_')}.py").write_text(EMBEDDER.format(seconds=seconds))
