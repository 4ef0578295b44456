"""The texts of the benchmark: paragraphs of the standard library's docstrings, 5 to 128 tokens, always the same."""

import ast
import random
import sysconfig
from collections.abc import Callable
from pathlib import Path

SHORTEST_TOKENS, LONGEST_TOKENS = 5, 128


def docstring_paragraphs() -> list[str]:
    """Every distinct docstring paragraph of the standard library's top-level modules, in file order."""
    seen: dict[str, None] = {}
    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                for paragraph in (ast.get_docstring(node) or "").split("\n\n"):
                    seen[" ".join(paragraph.split())] = None
    return list(seen)


def corpus(count_tokens: Callable[[str], int], size: int = 2048, seed: int = 0) -> list[str]:
    """`size` texts whose token count lies within the bounds, shuffled by `seed`."""
    texts = [text for text in docstring_paragraphs() if SHORTEST_TOKENS <= count_tokens(text) <= LONGEST_TOKENS]
    random.Random(seed).shuffle(texts)
    return texts[:size]
