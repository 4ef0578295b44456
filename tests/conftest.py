"""What several folders of tests share: the copy of the template, all its renders, a git without the user's settings."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.rendering import compiled_once, copy_template, digest, render, render_matrix
from tests.variants import ROOT, candidates

MATRIX_S = 900


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "run: starts a generated service")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--variant", action="append", help="render only this variant; may be given several times")


@pytest.fixture(scope="session", autouse=True)
def git_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Neither the user's git settings, nor the user's trust in templates, may decide a test."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
        patch.setenv("GIT_CONFIG_NOSYSTEM", "1")
        settings = tmp_path_factory.mktemp("copier") / "settings.yml"
        settings.write_text("trust: []\n")
        patch.setenv("COPIER_SETTINGS_PATH", str(settings))
        for role in ("AUTHOR", "COMMITTER"):
            patch.setenv(f"GIT_{role}_NAME", "tests")
            patch.setenv(f"GIT_{role}_EMAIL", "tests@example.com")
        for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):  # set when a git hook runs the tests
            patch.delenv(name, raising=False)
        yield


@pytest.fixture(scope="session")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Callable[[Path], object]], Path]:
    """`made_once(name, make)` is a folder that one worker of pytest-xdist makes and all share."""
    base = tmp_path_factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def made(name: str, make: Callable[[Path], object]) -> Path:
        folder, done = base / name, base / f"{name}.done"
        with (base / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not done.exists():
                folder.mkdir()
                make(folder)
                done.touch()
        return folder

    return made


@pytest.fixture(scope="session")
def template(made_once: Callable[[str, Callable[[Path], object]], Path]) -> Path:
    """A copy of the working tree's template, without git: Copier renders it as it stands."""
    return made_once("template", copy_template)


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

        def make_some(folder: Path) -> None:
            with compiled_once():
                for name in names:
                    render(template, folder / name, candidates()[name])

        folder = made_once("some-renders", make_some)
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
