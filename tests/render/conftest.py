"""All renders, made once per test run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.rendering import digest, render, render_matrix
from tests.variants import ROOT, candidates

MATRIX_S = 300


@pytest.fixture(scope="session")
def renders(
    template: Path,
    made_once: Callable[[str, Callable[[Path], object]], Path],
    request: pytest.FixtureRequest,
) -> dict[str, Path]:
    """Name and folder of every variant that the questionnaire accepts (or of those given by --variant).

    Another process, with another hash seed, locale and time zone, renders all of them a second time meanwhile.
    """
    if names := request.config.getoption("--variant"):
        folder = made_once(
            "some-renders", lambda folder: [render(template, folder / name, candidates()[name]) for name in names]
        )
        return {name: folder / name for name in names}

    def make(folder: Path) -> None:
        again = subprocess.Popen(
            [sys.executable, "-m", "tests.rendering", str(template), str(folder / "again")],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": "7", "TZ": "Asia/Kolkata", "LC_ALL": "C"},
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            first = {name: digest(path) for name, path in render_matrix(template, folder / "once").items()}
            output, _ = again.communicate(timeout=MATRIX_S)
        finally:
            again.kill()
        (folder / "digests.json").write_text(json.dumps([first, json.loads(output)]))

    folder = made_once("renders", make)
    first, _ = json.loads((folder / "digests.json").read_text())
    return {name: folder / "once" / name for name in first}


@pytest.fixture(scope="session")
def digests(renders: dict[str, Path]) -> list[dict[str, str]]:
    """Variant and digest of both renderings."""
    path = next(iter(renders.values())).parents[1] / "digests.json"
    if not path.exists():
        pytest.skip("with --variant nothing is rendered twice")
    loaded: list[dict[str, str]] = json.loads(path.read_text())
    return loaded
