"""What every Hugging Face model needs: load weights safely, tokenise with a limit, pad a batch."""

import os
from collections.abc import Sequence
from typing import Any

import torch
from transformers import AutoTokenizer

from service.runtime.interface import Tokens
from service.runtime.partition import padded_length
from service.runtime.settings import ModelSettings


def load_network(auto_class: Any, settings: ModelSettings, device: torch.device, **options: Any) -> Any:
    """The network in evaluation mode on `device`.

    Only safetensors are loaded and no code that comes with the weights is run: a pickle or a custom module from a hub
    is somebody else's program. `options` go to `from_pretrained`.
    """
    network = auto_class.from_pretrained(
        settings.source,
        revision=settings.revision,
        dtype=getattr(torch, settings.dtype),
        use_safetensors=True,
        trust_remote_code=False,
        **options,
    )
    return network.to(device).eval()


class TextTokenizer:
    """The model's fast tokenizer, with a limit per call. `max_tokens` is the longest input the tokenizer allows for."""

    def __init__(self, settings: ModelSettings) -> None:
        # Requests bring few texts: a thread pool adds hand-overs, and takes the processor that the model needs.
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        loaded = AutoTokenizer.from_pretrained(settings.source, revision=settings.revision, trust_remote_code=False)
        self.pad_id: int = loaded.pad_token_id
        self.filler_id: int = loaded.unk_token_id
        self.max_tokens: int = loaded.model_max_length
        self.pad_to_multiple_of: int = settings.pad_to_multiple_of
        self._fast = loaded.backend_tokenizer
        self._fast.no_padding()
        self._limit = 0

    def encode(self, texts: Sequence[str], max_tokens: int) -> list[Tokens]:
        """Token ids of each text, special tokens included, cut to `max_tokens`."""
        if max_tokens != self._limit:
            self._fast.enable_truncation(max_tokens)
            self._limit = max_tokens
        return [
            Tokens(encoding.ids, bool(encoding.overflowing)) for encoding in self._fast.encode_batch_fast(list(texts))
        ]


def pad(
    batch: Sequence[Tokens], pad_id: int, device: torch.device, multiple: int = 1, max_tokens: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and attention mask, both of shape (inputs, tokens): the longest input, rounded up to a `multiple`.

    max_tokens: the longest input that the network takes; rounding stops there.
    """
    longest = max(len(item.ids) for item in batch)
    length = max(longest, min(padded_length(longest, multiple), max_tokens))
    ids = torch.tensor([item.ids + [pad_id] * (length - len(item.ids)) for item in batch])
    mask = torch.tensor([[1] * len(item.ids) + [0] * (length - len(item.ids)) for item in batch])
    return ids.to(device), mask.to(device)
