"""The questionnaire of copier.yml, put through Copier itself with a template that only dumps the answers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import copier
import pytest
import yaml

from tests.rendering import compiled_once

ROOT = Path(__file__).resolve().parents[2]
QUESTIONS: dict[str, Any] = {
    key: value for key, value in yaml.safe_load((ROOT / "copier.yml").read_text()).items() if not key.startswith("_")
}
TABLES = {
    name: yaml.safe_load((ROOT / "extensions" / file).read_text())
    for name, file in (
        ("gpu_table", "gpus.yml"),
        ("task_table", "tasks.yml"),
        ("estimates", "estimates.yml"),
        ("prices", "prices.yml"),
    )
}
COMPUTED = [key for key, question in QUESTIONS.items() if question.get("when") is False]
ASKED = [key for key in QUESTIONS if key not in COMPUTED]


class Questionnaire:
    """Answers the questions of copier.yml in process, with a template that only dumps every answer."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._template = folder / "questions"
        (self._template / "template").mkdir(parents=True)
        shutil.copy(ROOT / "copier.yml", self._template)
        shutil.copytree(ROOT / "extensions", self._template / "extensions")
        pairs = ", ".join(f"{key}={key}" for key in QUESTIONS)
        (self._template / "template" / "answers.yml.jinja").write_text(f"{{{{ dict({pairs}) | tojson }}}}\n")
        (self._template / "template" / "{{ _copier_conf.answers_file }}.jinja").write_text(
            "{{ _copier_answers | to_nice_yaml }}"
        )
        self._runs = 0

    def render(self, **data: Any) -> Path:
        self._runs += 1
        target = self.folder / f"render-{self._runs}"
        with compiled_once():
            copier.run_copy(str(self._template), target, data=data, defaults=True, quiet=True)
        return target

    def answers(self, **data: Any) -> dict[str, Any]:
        """Every answer, computed ones included."""
        return json.loads((self.render(**data) / "answers.yml").read_text())

    def refusal(self, **data: Any) -> str:
        """The text of the error that ends the run."""
        with pytest.raises(Exception) as caught:  # noqa: PT011  the caller looks at the text
            self.render(**data)
        return str(caught.value)
