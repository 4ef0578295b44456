"""The digests of both renderings of all variants."""

from __future__ import annotations

import json
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
