"""deploy/CAPACITY.md says what the plan says, where each number comes from, and nothing of what is not there."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.rendering import compiled_once, render
from tests.variants import AXES, RUN, Answers, second_model

VARIANTS: dict[str, Answers] = {
    "container": {},
    "container-two-models": RUN["container-two-models"],
    "busy": {"expected_rps": 250},
    "shared": RUN["ray-shared-gpu"],
    "embeds": {**AXES["models"]["two"], "vector_db": "pinecone", "serving": "ray"},
    "mig": AXES["gpu_sharing"]["mig"],
    "mps": AXES["gpu_sharing"]["mps"],
    "steady": {
        "serving": "ray",
        "gpu_type": "l4",
        "model_gpu_share": 0.6,
        "model_min_replicas": 2,
        "model_max_replicas": 3,
        "more_models": [second_model(gpu_share=0.4, max_replicas=3)],
    },
}
PAGE = "deploy/CAPACITY.md"


@pytest.fixture(scope="module")
def pages(template: Path, made_once: Callable[[str, Callable[[Path], object]], Path]) -> dict[str, str]:
    def make(folder: Path) -> None:
        with compiled_once():
            for name, answers in VARIANTS.items():
                render(template, folder / name, answers)

    folder = made_once("capacity-pages", make)
    return {name: (folder / name / PAGE).read_text() for name in VARIANTS}


def row(page: str, first: str) -> list[str]:
    """The other cells of the row that starts with this cell."""
    (line,) = (line for line in page.splitlines() if line.startswith(f"| {first} |"))
    return [cell.strip() for cell in line.strip("|").split("|")][1:]


def test_a_page_speaks_only_of_what_is_there(pages: dict[str, str]) -> None:
    for name, page in pages.items():
        words = {
            "Ray": "container" not in name,
            "card": name in ("shared", "mig", "mps", "steady"),
            "slice": name == "mig",
            "parts into which": name == "mps",
            "divide evenly": name in ("container-two-models", "shared", "embeds", "steady"),
            "on two pods or more": name == "steady",
            "embeds the text of each": name == "embeds",
            "no card": False,
        }
        for word, there in words.items():
            assert bool(re.search(rf"\b{word}(s|\b)", page)) == there, (name, word)


def test_tables_are_whole(pages: dict[str, str]) -> None:
    for name, page in pages.items():
        assert "\n\n\n" not in page, name
        for table in re.findall(r"(?:^\|.*\n)+", page, re.MULTILINE):
            assert len({line.count("|") for line in table.splitlines()}) == 1, (name, table)
            assert len(table.splitlines()) > 2, (name, table)


def test_replicas_pods_and_cards_are_those_of_the_plan(pages: dict[str, str]) -> None:
    assert row(pages["busy"], "pods") == ["1", "7", "7"]
    assert row(pages["busy"], "minilm")[2:] == ["7", "1", "7"]
    assert row(pages["shared"], "l4 cards") == ["1", "1", "2"]
    assert row(pages["shared"], "pods") == ["1", "1", "2"]
    assert row(pages["shared"], "`cards-1`")[:2] == ["1 x minilm, 1 x second-model", "3"]
    assert row(pages["mig"], "a100-80gb cards") == ["1", "1", "1"]
    assert row(pages["steady"], "l4 cards") == ["2", "2", "3"]
    assert row(pages["mig"], "`minilm`")[-1] == "0.69 of 17.55 GiB"  # 0.9 x 19.5


def test_the_load_is_held_against_what_is_always_on(pages: dict[str, str]) -> None:
    assert "What is always on carries the busiest hour" in pages["container"]
    assert "What is always on does not carry the busiest hour" in pages["busy"]
    always, expected, most = map(float, row(pages["busy"], "requests/s it carries, estimate"))
    assert always < 250 <= expected <= most


def test_the_price_is_that_of_an_hour_and_of_a_million_requests(pages: dict[str, str]) -> None:
    """7 pods of 2 CPUs and 5 GiB at 0.033 and 0.0045: 0.6195 an hour, and 900,000 requests in it."""
    assert row(pages["busy"], "US dollars an hour, estimate") == ["0.09", "0.62", "0.62"]
    assert row(pages["busy"], "US dollars per million requests, estimate") == ["", "0.69", ""]


def test_what_is_no_answer_is_called_an_estimate_and_says_what_replaces_it(pages: dict[str, str]) -> None:
    for name, page in pages.items():
        _, _, last = page.partition("## Where the numbers come from")
        sources = [line for line in last.splitlines() if line.startswith("| ")][1:]
        assert len(sources) >= 8, name
        for line in sources:
            number, source, remedy = [cell.strip() for cell in line.strip("|").split("|")]
            assert "**estimate**" in source or "answer" in source or number == "CPUs of a pod", line
            assert remedy, line
