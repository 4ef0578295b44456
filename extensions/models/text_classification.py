"""Text classification: the likeliest label of each text and its score. This file is yours: updates never touch it."""

from collections.abc import Sequence

import torch
from pydantic import BaseModel, ConfigDict, Field
from transformers import AutoModelForSequenceClassification

from service.runtime.interface import Tokens
from service.runtime.settings import ModelSettings
from service.runtime.transformer import TextTokenizer, load_network, pad


class Instance(BaseModel):
    """What a caller sends for one prediction."""

    model_config = ConfigDict(extra="forbid")
    text: str = Field(min_length=1, max_length=100_000, examples=["The delivery was late again."])


class Prediction(BaseModel):
    """What a caller gets for one instance: the likeliest label, and its probability among all labels."""

    label: str
    score: float = Field(ge=0, le=1)


class Model:
    """A sequence classifier with the label names of its own configuration."""

    def __init__(self, settings: ModelSettings, device: torch.device) -> None:
        self.device = device
        self.tokenizer = TextTokenizer(settings)
        self.network = load_network(AutoModelForSequenceClassification, settings, device)
        self.max_tokens = min(self.tokenizer.max_tokens, self.network.config.max_position_embeddings)
        self.labels: dict[int, str] = self.network.config.id2label

    def encode(self, instances: Sequence[Instance], max_tokens: int) -> list[Tokens]:
        return self.tokenizer.encode([instance.text for instance in instances], max_tokens)

    def sample(self, length: int) -> Tokens:
        return Tokens([self.tokenizer.filler_id] * length)

    @torch.inference_mode()
    def predict(self, batch: Sequence[Tokens]) -> list[Prediction]:
        multiple = self.tokenizer.pad_to_multiple_of
        ids, mask = pad(batch, self.tokenizer.pad_id, self.device, multiple, self.max_tokens)
        logits = self.network(input_ids=ids, attention_mask=mask).logits
        scores, classes = logits.float().softmax(dim=1).max(dim=1)
        pairs = zip(classes.tolist(), scores.tolist(), strict=True)
        return [Prediction(label=self.labels[index], score=score) for index, score in pairs]
