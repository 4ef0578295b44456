"""What is looked up says what the code says."""

import re

import yaml

from scripts import metrics
from scripts.questions import PAGE, page
from tests.docs.documents import ROOT

REFERENCE = ROOT / "docs" / "reference"
RUNTIME = ROOT / "template" / "service" / "runtime"
CODE = sorted(
    path for part in ("template", "extensions/additions") for path in (ROOT / part).glob("service/runtime/*.py")
)


def first_column(name: str) -> list[str]:
    return re.findall(r"^\| `([^`]+)` \|", (REFERENCE / name).read_text(), re.MULTILINE)


def test_the_questions_page_is_current() -> None:
    assert PAGE.read_text() == page(), "run `make questions`"


def test_the_metrics_page_is_current() -> None:
    assert metrics.PAGE.read_text() == metrics.page(), "run `make metrics`"


def test_the_catalogue_has_every_metric_of_the_code_and_no_other() -> None:
    named = {name for path in CODE for name in re.findall(r'"(service_\w+)"', path.read_text())}
    assert {each["name"] for each in metrics.catalogue() if each["name"].startswith("service_")} == named


def test_every_outcome_is_documented() -> None:
    declared = re.search(r"Outcome = Literal\[(.*)\]", (RUNTIME / "metrics.py").read_text())
    assert declared is not None
    text = " ".join((REFERENCE / "metrics.md").read_text().split())
    listed = re.search(r"`outcome` is one of (.*?)\.", text)
    assert listed is not None
    assert re.findall(r'"(\w+)"', declared[1]) == re.findall(r"`(\w+)`", listed[1])


def test_every_problem_is_documented_with_its_status() -> None:
    code = "".join(path.read_text() for path in CODE)
    raised = re.findall(r'ProblemError\(\s*(\d{3}),\s*"([\w-]+)"|(\d{3}): \("([\w-]+)"', code)
    pairs = {(kind or other_kind, status or other) for status, kind, other, other_kind in raised}
    documented = re.findall(r"^\| `([\w-]+)` \| (\w+) \|", (REFERENCE / "http-api.md").read_text(), re.MULTILINE)
    assert pairs
    assert set(documented) == pairs | {("http", "other")}


def test_figures_of_the_cost_model_are_those_of_the_estimates() -> None:
    cpu = yaml.safe_load((ROOT / "extensions" / "estimates.yml").read_text())["batch_time"]["none"]
    text = (ROOT / "docs" / "explanation" / "batching.md").read_text()
    for dtype in ("float32", "bfloat16"):
        assert f"{cpu[dtype]['fixed_ms']} ms + " in text
