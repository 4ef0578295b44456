"""The digests of both renderings of all variants, and copies of single ones."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def digests(renders: dict[str, Path]) -> list[dict[str, str]]:
    """Variant and digest of both renderings."""
    path = next(iter(renders.values())).parents[1] / "digests.json"
    if not path.exists():
        pytest.skip("with --variant nothing is rendered twice")
    loaded: list[dict[str, str]] = json.loads(path.read_text())
    return loaded


@pytest.fixture
def copy_of(renders: dict[str, Path], tmp_path: Path) -> Callable[[str], Path]:
    """A copy of one render, to change."""

    def copied(name: str) -> Path:
        if name not in renders:
            pytest.skip(f"with --variant {name} is not rendered")
        return Path(shutil.copytree(renders[name], tmp_path / name))

    return copied
