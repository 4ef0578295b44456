"""A team's model that needs no weights: it starts in a moment, for tests that look at everything but predictions."""

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
