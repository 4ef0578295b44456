"""The seam between a team's model and the platform: what a model class must offer, and nothing else."""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from pydantic import BaseModel


class Tokens(NamedTuple):
    """One tokenised input.

    ids: token ids, special tokens included; `len(ids)` is what batching counts.
    truncated: the text was longer than the limit, and `ids` holds only its beginning.
    """

    ids: list[int]
    truncated: bool = False


class Model(Protocol):
    """A model file defines `Instance`, `Prediction` and a class `Model` with these members.

    The constructor takes `(settings: ModelSettings, device: torch.device)` and loads the weights.
    """

    max_tokens: int
    """The longest input, in tokens, that the weights can take."""

    def encode(self, instances: Sequence[Any], max_tokens: int) -> list[Tokens]:
        """Tokenise instances, cutting each to `max_tokens`; one `Tokens` per instance, in order."""

    def sample(self, length: int) -> Tokens:
        """An input of exactly `length` tokens, for warm-up; its meaning does not matter."""

    def predict(self, batch: Sequence[Tokens]) -> Sequence[BaseModel]:
        """One forward pass over the batch; one prediction per input, in order.

        A batch that is padded is as long as a multiple of `settings.pad_to_multiple_of`: the plan counts on it.
        """
