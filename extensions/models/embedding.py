"""Text embedding: one unit vector per text. This file is yours: updates never touch it."""

from collections.abc import Sequence

import torch
from pydantic import BaseModel, ConfigDict, Field
from transformers import AutoModel

from service.runtime.interface import Tokens
from service.runtime.settings import ModelSettings
from service.runtime.transformer import TextTokenizer, load_network, pad


class Instance(BaseModel):
    """What a caller sends for one prediction."""

    model_config = ConfigDict(extra="forbid")
    text: str = Field(min_length=1, max_length=100_000, examples=["How do I reset my password?"])


class Prediction(BaseModel):
    """What a caller gets for one instance: a vector of length 1, so that a dot product is the cosine similarity."""

    embedding: list[float]


class Model:
    """Mean of the last layer over the text's tokens, as sentence-transformers models are trained."""

    def __init__(self, settings: ModelSettings, device: torch.device) -> None:
        self.device = device
        self.tokenizer = TextTokenizer(settings)
        self.network = load_network(AutoModel, settings, device)
        self.max_tokens = min(self.tokenizer.max_tokens, self.network.config.max_position_embeddings)

    def encode(self, instances: Sequence[Instance], max_tokens: int) -> list[Tokens]:
        return self.tokenizer.encode([instance.text for instance in instances], max_tokens)

    def sample(self, length: int) -> Tokens:
        return Tokens([self.tokenizer.filler_id] * length)

    @torch.inference_mode()
    def predict(self, batch: Sequence[Tokens]) -> list[Prediction]:
        multiple = self.tokenizer.pad_to_multiple_of
        ids, mask = pad(batch, self.tokenizer.pad_id, self.device, multiple, self.max_tokens)
        hidden = self.network(input_ids=ids, attention_mask=mask).last_hidden_state
        weight = mask.unsqueeze(-1).to(hidden.dtype)
        mean = (hidden * weight).sum(dim=1) / weight.sum(dim=1)
        vectors = torch.nn.functional.normalize(mean.float(), dim=1)
        return [Prediction(embedding=vector) for vector in vectors.tolist()]
