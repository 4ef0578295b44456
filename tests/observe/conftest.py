"""Services that together have every alert, rendered once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.observe.variants import VARIANTS
from tests.rendering import compiled_once, render


@pytest.fixture(scope="session")
def observed(template: Path, made_once: Callable[[str, Callable[[Path], object]], Path]) -> dict[str, Path]:
    """Name and folder of each variant."""

    def make(folder: Path) -> None:
        with compiled_once():
            for name, answers in VARIANTS.items():
                render(template, folder / name, answers)

    folder = made_once("observed", make)
    return {name: folder / name for name in VARIANTS}
