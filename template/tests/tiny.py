"""Tiny models with random weights, made in milliseconds, so that tests need neither a download nor a GPU."""

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, PreTrainedTokenizerFast

WORDS = ["late", "again", "delivery", "good", "bad", "the", "was", "very", "##s", "##ly", *"abcdefghijklmnopqrstuvwxyz"]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
LONGEST_TOKENS = 256


def save_tiny(folder: Path, auto_class: Any, seed: int = 0) -> Path:
    """Save a two-layer BERT of `auto_class`, and its tokenizer, as safetensors in `folder`; returns `folder`."""
    vocabulary = {token: index for index, token in enumerate(SPECIAL + WORDS)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=LONGEST_TOKENS,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
    ).save_pretrained(folder)
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=LONGEST_TOKENS,
        initializer_range=0.2,  # so that texts that differ get answers that differ
    )
    auto_class.from_config(config).save_pretrained(folder)
    return folder
