"""`copier copy` as a user types it: from a git repository, with nothing but Copier installed, without --trust."""

from __future__ import annotations

import os
import subprocess
import sysconfig
from pathlib import Path

import pytest

from tests.rendering import ANSWERS_FILE, compiled_once, copy_template, files_of, render
from tests.variants import choices_of

COPIER = str(Path(sysconfig.get_path("scripts")) / "copier")
# CPU seconds of a default render beyond Copier's own start. The target is 1.0: 0.94 is seen on a quiet machine, and a
# quarter more beside other tests, where this one runs. Some 0.3 of it is what Copier does for any template of this
# size: it clones, runs git for each file that it writes, and compiles two small texts for each part of each path.
MOST_CPU_S = 1.2
# CPU seconds of Copier's start on the machine for which that bound was set; a slower machine gets more in proportion.
USUAL_START_CPU_S = 0.3
ATTEMPTS = 8


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = copy_template(tmp_path_factory.mktemp("repository"))
    for command in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "--message", "1"], ["tag", "v1.0.0"]):
        subprocess.run(["git", *command], cwd=folder, check=True, timeout=60)
    return folder


def cpu_s(*command: str) -> float:
    """CPU seconds, of the user and the system, that a command and its children take."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    assert status == 0, command
    return usage.ru_utime + usage.ru_stime


@pytest.mark.parametrize("serving", choices_of("serving"))
def test_a_plain_copy_without_trust_gives_the_same_as_the_renders_in_process(
    serving: str, repository: Path, template: Path, tmp_path: Path
) -> None:
    command = [COPIER, "copy", "--defaults", "--data", f"serving={serving}", str(repository), str(tmp_path / "out")]
    done = subprocess.run(command, check=False, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "make dev" in done.stderr, "the message after the copy"
    with compiled_once():
        expected = render(template, tmp_path / "expected", {"serving": serving})
    one, other = files_of(tmp_path / "out"), files_of(expected)
    assert one.keys() == other.keys()
    assert [path for path in one if path != ANSWERS_FILE and one[path].read_bytes() != other[path].read_bytes()] == []
    assert "_commit: v1.0.0" in one[ANSWERS_FILE].read_text()


def test_a_default_render_takes_few_cpu_seconds_beyond_the_start_of_copier(repository: Path, tmp_path: Path) -> None:
    """The lowest of some: a busy machine spends more CPU seconds, and Copier's start says how slow this one is."""
    starts, copies = [], []
    for number in range(ATTEMPTS):
        starts.append(cpu_s(COPIER, "--version"))
        copies.append(cpu_s(COPIER, "copy", "--defaults", "--quiet", str(repository), str(tmp_path / str(number))))
        start, spent = min(starts), min(copies) - min(starts)
        most = MOST_CPU_S * max(1.0, start / USUAL_START_CPU_S)
        if spent <= most:
            break
    print(f"\na default render takes {spent:.2f} CPU seconds beyond the {start:.2f} of Copier's start")
    assert spent <= most, f"CPU seconds of the starts {starts}, of the copies {copies}"
