"""Releases of the template, and services that were made from them and edited, each a git repository."""

from __future__ import annotations

import os
import subprocess
import sysconfig
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import copier
import yaml

from tests.rendering import ANSWERS_FILE, compiled_once, copy_template, files_of
from tests.variants import Answers

OLD, NEW = "v1.0.0", "v1.1.0"
MARK = "# new in the template\n"
# Every file that reaches a service, whether the team's or the platform's, and takes MARK at its end.
MARKED = (
    *(
        ".py",
        ".py.jinja",
        ".json",
        ".jsonl.jinja",
        ".json.jinja",
        ".md",
        ".md.jinja",
        ".yml",
        ".yml.jinja",
        ".yaml",
        ".yaml.jinja",
    ),
    *(".toml.jinja", ".txt", ".env.jinja"),
    *("ignore", "ignore.jinja", "Makefile.jinja", "Dockerfile.jinja"),
)
NEW_FILE = "service/runtime/new.py"
TEAM_LINE = "# a line of the team\n"


def git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True, text=True, timeout=60)
    return done.stdout


def commit(folder: Path, message: str) -> None:
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", message)


def make_releases(folder: Path) -> None:
    """The template as it stands is OLD; NEW has a line more in every file, a file more and a question more."""
    copy_template(folder)
    git(folder, "init", "--quiet")
    commit(folder, OLD)
    git(folder, "tag", OLD)
    for name, path in files_of(folder).items():
        if name.startswith(("template/", "extensions/")) and name.endswith(MARKED):
            path.write_text(path.read_text() + MARK)
    (folder / "template" / NEW_FILE).write_text(f'"""{MARK}"""\n')
    with (folder / "copier.yml").open("a") as questions:
        questions.write("\nnew_question:\n  type: str\n  help: New; take the default.\n  default: as before\n")
    commit(folder, NEW)
    git(folder, "tag", NEW)


def copy(releases: Path, target: Path, version: str = OLD, **data: Any) -> Path:
    """A service as `copier copy` makes it."""
    with compiled_once():
        copier.run_copy(str(releases), target, data=data, defaults=True, quiet=True, vcs_ref=version)
    return target


def service(releases: Path, target: Path, version: str = OLD, **data: Any) -> Path:
    """A service that its team has committed."""
    copy(releases, target, version, **data)
    git(target, "init", "--quiet")
    commit(target, "as it came")
    return target


def update(folder: Path, version: str = NEW, **data: Any) -> None:
    """`copier update --defaults`, without --trust."""
    with warnings.catch_warnings(), compiled_once():
        # Of the scratch copies that Copier compares, which hold no answers yet.
        warnings.simplefilter("ignore", copier.errors.MissingFileWarning)
        copier.run_update(folder, data=data, defaults=True, overwrite=True, quiet=True, vcs_ref=version)


def make_update(folder: Path) -> subprocess.CompletedProcess[str]:
    """The command of the service itself."""
    return subprocess.run(
        ["make", "-s", "update"],
        cwd=folder,
        check=False,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        env={**os.environ, "PATH": f"{sysconfig.get_path('scripts')}:{os.environ['PATH']}"},
        timeout=120,
    )


def answers_of(folder: Path) -> Answers:
    answers: Answers = yaml.safe_load((folder / ANSWERS_FILE).read_text())
    return answers


def contents(folder: Path) -> dict[str, bytes]:
    return {path: file.read_bytes() for path, file in files_of(folder).items() if not path.startswith(".git/")}


def team_paths(folder: Path, paths: Iterable[str]) -> set[str]:
    """Those of `paths` that are the team's, by the ownership map that the service ships."""
    owned = yaml.safe_load((folder / "ownership.yml").read_text())["team"]
    return {path for path in paths if any(path == own or (own.endswith("/") and path.startswith(own)) for own in owned)}


def team_files(folder: Path) -> dict[str, bytes]:
    """The team's files: path and bytes."""
    found = contents(folder)
    return {path: found[path] for path in team_paths(folder, found)}


def edit_as_the_team(folder: Path) -> dict[str, bytes]:
    """Write a line into every file of the team, add one file of its own, commit; returns the team's files."""
    for path in team_files(folder):
        with (folder / path).open("a") as file:
            file.write(TEAM_LINE)
    (folder / "service/models/helpers.py").write_text('"""The team\'s own."""\n')
    commit(folder, "the team's work")
    return team_files(folder)


def status(folder: Path) -> dict[str, str]:
    """Path -> git's two letters, of all that differs from the last commit."""
    lines = git(folder, "status", "--porcelain", "--untracked-files=all", "--ignored").splitlines()
    return {line[3:]: line[:2] for line in lines}
