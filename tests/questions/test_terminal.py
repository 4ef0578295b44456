"""The questionnaire as somebody at a terminal of 80 columns meets it: plain `copier copy`, answer by answer."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import sysconfig
import time
from pathlib import Path

import pytest
from questionnaire import ASKED, QUESTIONS

from tests.rendering import recorded_answers, render

COPIER = str(Path(sysconfig.get_path("scripts")) / "copier")
ANSWER_S = 60
BACKSPACE, ENTER = b"\x7f", b"\r"
ESCAPES = re.compile(rb"\x1b(\[[0-9;?]*[a-zA-Z]|[()][A-Z0-9]|[=>])")


def first_words(key: str) -> bytes:
    """How the help of a question begins, as far as it is no Jinja."""
    lines = [line for line in QUESTIONS[key]["help"].splitlines() if not line.startswith("{%")]
    return str(lines[0]).encode()[:40]


def answer(command: list[str], replies: dict[str, bytes]) -> str:
    """Run a command at a terminal and press Enter at each question, after the keys of `replies`; what was shown."""
    terminal, inner = pty.openpty()
    env = {**os.environ, "TERM": "xterm", "COLUMNS": "80", "LINES": "40", "PROMPT_TOOLKIT_NO_CPR": "1"}
    process = subprocess.Popen(command, stdin=inner, stdout=inner, stderr=inner, env=env, start_new_session=True)
    os.close(inner)
    shown, seen, left, until_s = b"", 0, list(ASKED), time.monotonic() + ANSWER_S
    try:
        while time.monotonic() < until_s:
            if not select.select([terminal], [], [], 1)[0]:
                continue
            try:
                shown += os.read(terminal, 65536)
            except OSError:  # the other end is closed
                break
            text = ESCAPES.sub(b"", shown)
            found = next((key for key in left if first_words(key) in text[seen:]), None)
            if found is not None:
                seen, left = len(text), left[left.index(found) + 1 :]
                os.write(terminal, replies.get(found, b"") + ENTER)
                until_s = time.monotonic() + ANSWER_S
        process.wait(10)
    finally:
        process.kill()
        process.wait()
        os.close(terminal)
    told = ESCAPES.sub(b"", shown).decode(errors="replace")
    assert process.returncode == 0, told[-3000:]
    return told


def test_numbers_are_shown_as_one_line_and_typed_over_like_any_text(template: Path, tmp_path: Path) -> None:
    folder = tmp_path / "service"
    replies = {"expected_rps": BACKSPACE + b"8", "latency_objective_ms": BACKSPACE * 3 + b"800"}
    shown = answer([COPIER, "copy", str(template), str(folder)], replies)
    assert not re.search(r"^\.\.\.\s*$", shown, re.M)
    answers = recorded_answers(folder)
    assert (answers["expected_rps"], answers["latency_objective_ms"]) == (8, 800)
    same = render(template, tmp_path / "same", {"expected_rps": 8, "latency_objective_ms": 800})
    assert answers == recorded_answers(same)


@pytest.mark.parametrize("key", ASKED)
def test_a_help_fits_a_terminal(key: str) -> None:
    """What is longer than a line is cut, and the end says how to decide."""
    lines = [re.sub(r"\{\{.*\}\}", "", line) for line in QUESTIONS[key]["help"].splitlines() if "{%" not in line]
    assert [line for line in lines if len(line) > 78] == []
