"""A service that runs its own Qdrant, rendered once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.rendering import compiled_once, render
from tests.variants import AXES


@pytest.fixture(scope="session")
def service(template: Path, made_once: Callable[[str, Callable[[Path], object]], Path]) -> Path:
    def make(folder: Path) -> None:
        with compiled_once():
            for factor in (2, 3):
                answers = {**AXES["vector_db"]["qdrant_self_hosted"], "qdrant_replication_factor": factor}
                render(template, folder / str(factor), answers)

    return made_once("self-hosted", make) / "2"
