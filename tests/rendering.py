"""Renders of the template in process: from a copy of the working tree without its history, each text compiled once."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import copier
import jinja2
import yaml

from tests.variants import ROOT, Answers, matrix

PARTS = ("copier.yml", "extensions", "template")
ANSWERS_FILE = ".copier-answers.yml"
COMPILED: dict[Any, Any] = {}


def copy_template(target: Path) -> Path:
    """Copy what Copier reads of this working tree, uncommitted work included and ignored files left behind."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *PARTS],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).exists():  # a file that was deleted and not yet committed is still listed
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)
    return target


@contextmanager
def compiled_once() -> Iterator[None]:
    """Copier compiles every text anew at every run, and starts git for each file; here each is compiled once.

    What git is started for is the index of a target that is a repository with core.fileMode off, which none here is.
    """
    compile_anew = jinja2.Environment.compile

    def compile_once(env: jinja2.Environment, source: Any, *args: Any, **kwargs: Any) -> Any:
        # Copier relies on the error that a value which is no text raises, and on side effects of parsing a yield.
        if not isinstance(source, str) or "{% yield" in source:
            return compile_anew(env, source, *args, **kwargs)
        key = (env.trim_blocks, env.lstrip_blocks, env.keep_trailing_newline, source, args, tuple(kwargs.items()))
        if key in COMPILED:
            env.preprocess(source)  # forgets the yield of the path before
        else:
            COMPILED[key] = compile_anew(env, source, *args, **kwargs)
        return COMPILED[key]

    with (
        patch.object(jinja2.Environment, "compile", compile_once),
        patch("copier._main.is_git_available", return_value=False),
    ):
        yield


def render(template: Path, target: Path, answers: Answers) -> Path:
    """`copier copy --defaults`, without --trust."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", copier.errors.DirtyLocalWarning)
        copier.run_copy(str(template), target, data=answers, defaults=True, quiet=True)
    return target


def recorded_answers(folder: Path) -> Answers:
    answers: Answers = yaml.safe_load((folder / ANSWERS_FILE).read_text())
    return answers


def refused(error: ValueError) -> bool:
    """Did the questionnaire refuse an answer in its own words, and did not something else go wrong?"""
    return re.match(r"(Validation error for question|Invalid choice for) '\w+': .* is .*[:;]", str(error)) is not None


def render_matrix(template: Path, target: Path) -> dict[str, Path]:
    """Render every variant that the questionnaire accepts, each in the folder of its name."""

    def answers_of(name: str, answers: Answers) -> Answers | None:
        try:
            return recorded_answers(render(template, target / name, answers))
        except ValueError as error:
            if not refused(error):
                raise
            return None

    with compiled_once():
        return {name: target / name for name in matrix(answers_of)}


def files_of(folder: Path) -> dict[str, Path]:
    """Every file of a render, by its path with forward slashes."""
    return {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}


def digest(folder: Path) -> str:
    """One value for all paths, contents and executable bits of a folder."""
    total = hashlib.sha256()
    for name, path in files_of(folder).items():
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        total.update(f"{name}\0{path.stat().st_mode & 0o111:o}\0{content}\n".encode())
    return total.hexdigest()


if __name__ == "__main__":  # a second rendering by another process: `python -m tests.rendering TEMPLATE TARGET`
    print(
        json.dumps({name: digest(path) for name, path in render_matrix(Path(sys.argv[1]), Path(sys.argv[2])).items()})
    )
