"""Two releases of the template, made once per test run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.update.services import make_releases


@pytest.fixture(scope="session")
def releases(made_once: Callable[[str, Callable[[Path], object]], Path]) -> Path:
    return made_once("releases", make_releases)
