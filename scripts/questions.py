"""Write docs/reference/questions.md from copier.yml and from the answers that a default render records."""

import re
import tempfile
from pathlib import Path
from typing import Any

from tests.rendering import copy_template, recorded_answers, render
from tests.variants import QUESTIONS, ROOT, choices_of

PAGE = ROOT / "docs" / "reference" / "questions.md"
HEAD = """# Questions

Generated from `copier.yml` by `make questions`; a test holds the two equal. Answer with `copier copy --data KEY=VALUE`,
in a file with `--data-file answers.yml`, or one by one when asked. `.copier-answers.yml` of the service keeps them.

An answer of `--data` that is refused ends in a traceback of Copier's: its last line names the answer, the value and the
remedy. Nothing is written then.

A default marked *follows* is worked out from the answers before it; its value here is the one when all else is default.

| key | what to decide | values | default |
|---|---|---|---|
"""


def plain(text: str) -> str:
    """Help text without the sentences that are worked out while asking."""
    text = re.sub(r"{%.*?%}", "", text, flags=re.DOTALL)
    return " ".join(re.split(r"(?<=[.;])\s+", " ".join(text.split()))).split(" Your answers:")[0]


def values_of(key: str, question: dict[str, Any], default: Any) -> str:
    if question["type"] == "bool":
        return "`true`, `false`"
    if "choices" in question:
        return ", ".join(f"`{value}`" for value in choices_of(key))
    if isinstance(default, list):
        return "YAML list"
    return "text" if question["type"] == "str" else "number"


def row(key: str, question: dict[str, Any], answers: dict[str, Any]) -> str:
    value = answers.get(key, question["default"])  # a question that is not asked is not recorded
    follows = "{" in str(question["default"])
    shown = "" if follows and key not in answers else f"`{str(value).lower() if isinstance(value, bool) else value}`"
    default = f"{shown} *follows*".strip() if follows else shown
    cells = [f"`{key}`", plain(question["help"]), values_of(key, question, value), default]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"


def page() -> str:
    with tempfile.TemporaryDirectory() as name:
        template = copy_template(Path(name) / "template")
        answers = recorded_answers(render(template, Path(name) / "service", {}))
    asked = {key: q for key, q in QUESTIONS.items() if not key.startswith("_") and q.get("when") is not False}
    return HEAD + "".join(row(key, question, answers) for key, question in asked.items())


if __name__ == "__main__":
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    PAGE.write_text(page())
    print(f"wrote {PAGE.relative_to(ROOT)}")
