"""Dashboards name only what exists, say what they show, take their limits from the answers, and fit their grid."""

from __future__ import annotations

import itertools
import json
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from tests.observe.draw import draw
from tests.observe.panels import DASHBOARDS, Dashboard, dashboards, expressions, panels
from tests.observe.promql import catalogue, metrics_of, recorded_by, unknown
from tests.rendering import compiled_once, recorded_answers, render
from tests.variants import ROOT, Answers, second_model

VARIANTS: dict[str, Answers] = {
    "container": {},
    "container-with-context": {"features": "redis", "vector_db": "qdrant_cloud"},
    "container-gpu": {"gpu_type": "t4"},
    "long-names": {"serving": "ray", "service_name": "a" * 40, "model_name": "b" * 30, "availability_objective": 90},
    "ray-shared-gpu-with-context": {
        "serving": "ray",
        "gpu_type": "l4",
        "features": "feast",
        "vector_db": "qdrant_cloud",
        "model_gpu_share": 0.5,
        "more_models": [second_model(gpu_share=0.5), second_model(name="on-the-cpu", gpu_share=0)],
        "latency_objective_ms": 4000,
    },
}
ALWAYS = {"overview", "batching", "cost"}
# No answer and no physical limit says what would be too much.
WITHOUT_THRESHOLD = {
    "Power",
    "Cost of a day, as things are",
    "Cost of a million requests",
    "Cost of a million tokens",
    "Replicas started",
}
UNITS = {"bytes", "celsius", "ms", "none", "ops", "percent", "percentunit", "reqps", "s", "short", "watt"}
KINDS = {"timeseries", "stat", "gauge", "heatmap"}
SOURCE = {"type": "prometheus", "uid": "${datasource}"}


@pytest.fixture(scope="session")
def rendered(template: Path, made_once: Callable[[str, Callable[[Path], object]], Path]) -> Path:
    def make(folder: Path) -> None:
        with compiled_once():
            for name, answers in VARIANTS.items():
                render(template, folder / name, answers)

    return made_once("dashboards", make)


@pytest.fixture(params=VARIANTS)
def service(rendered: Path, request: pytest.FixtureRequest) -> Path:
    return Path(rendered / request.param)


def titled(dashboard: Dashboard) -> dict[str, Any]:
    return {panel["title"]: panel for panel in panels(dashboard)}


def limits(dashboard: Dashboard) -> list[tuple[str, float]]:
    """(title, value) of every threshold."""
    return [
        (panel["title"], step["value"])
        for panel in panels(dashboard)
        for step in panel["fieldConfig"]["defaults"]["thresholds"]["steps"]
        if step["value"] is not None
    ]


def test_a_dashboard_is_there_where_it_has_something_to_show(service: Path) -> None:
    answers = recorded_answers(service)
    wanted = ALWAYS | {
        name
        for name, there in {
            "ray": answers["serving"] == "ray",
            "gpus": answers["gpu_type"] != "none",
            "features-and-retrieval": answers["features"] != "none" or answers["vector_db"] != "none",
        }.items()
        if there
    }
    assert dashboards(service).keys() == wanted


def test_dashboards_are_told_apart_also_from_those_of_another_service(
    service: Path, template: Path, tmp_path: Path
) -> None:
    other = render(template, tmp_path / "other", {"service_name": "b" * 40})
    both = [*dashboards(service).values(), *dashboards(other).values()]
    for key in ("uid", "title"):
        assert max(Counter(one[key] for one in both).values()) == 1
    assert all(len(one["uid"]) <= 40 for one in both), "Grafana refuses longer ones"


def test_dashboards_are_of_the_current_schema_and_small(service: Path) -> None:
    for path in (service / DASHBOARDS).iterdir():
        assert path.stat().st_size < 200_000, path.name
        dashboard = json.loads(path.read_text())
        assert dashboard["schemaVersion"] >= 39
        assert {panel["type"] for panel in dashboard["panels"]} <= KINDS | {"row"}
        ids = [panel["id"] for panel in dashboard["panels"]]
        assert len(set(ids)) == len(ids)
        variables = {variable["name"]: variable for variable in dashboard["templating"]["list"]}
        assert list(variables)[:4] == ["datasource", "environment", "model", "replica"]
        # Another service may have models of the same names: its environments are not offered.
        of_service = f'app_kubernetes_io_name="{recorded_answers(service)["service_name"]}"'
        assert all(of_service in variables[name]["definition"] for name in ("environment", "model", "replica"))
        assert all(variables[name]["multi"] and variables[name]["includeAll"] for name in ("model", "replica"))


def test_panels_fill_the_grid_without_overlaps(service: Path) -> None:
    for name, dashboard in dashboards(service).items():
        taken = Counter[tuple[int, int]]()
        for panel in dashboard["panels"]:
            at = panel["gridPos"]
            assert at["x"] + at["w"] <= 24, f"{name}: {panel['title']}"
            taken.update(
                itertools.product(range(at["x"], at["x"] + at["w"]), range(at["y"], at["y"] + at["h"])),
            )
        assert max(taken.values()) == 1, name


def test_every_panel_says_what_it_shows_and_what_to_do(service: Path) -> None:
    for name, dashboard in dashboards(service).items():
        titles = [panel["title"] for panel in panels(dashboard)]
        assert len(set(titles)) == len(titles), name
        for panel in panels(dashboard):
            where = f"{name}: {panel['title']}"
            assert len(panel["description"].split()) > 15, where
            assert panel["description"].count(". ") >= 1, where
            assert panel["fieldConfig"]["defaults"]["unit"] in UNITS, where
            assert panel["targets"], where
            assert all(one["datasource"] == SOURCE for one in (panel, *panel["targets"])), where
            assert all(target["legendFormat"] for target in panel["targets"]), where


def test_every_panel_has_a_threshold_that_is_drawn(service: Path) -> None:
    for name, dashboard in dashboards(service).items():
        for title, panel in titled(dashboard).items():
            steps = panel["fieldConfig"]["defaults"]["thresholds"]["steps"]
            where = f"{name}: {title}"
            assert steps[0]["value"] is None, where
            values = [step["value"] for step in steps[1:]]
            assert values == sorted(values), where
            assert bool(values) == (title not in WITHOUT_THRESHOLD), where
            if panel["type"] == "timeseries" and values:
                assert panel["fieldConfig"]["defaults"]["custom"]["thresholdsStyle"]["mode"] != "off", where


def series_of(service: Path) -> dict[str, set[str]]:
    """The catalogue, less what a service with these answers does not export."""
    answers = recorded_answers(service)
    lacks = {
        "gpu": answers["gpu_type"] == "none",
        "features": answers["features"] == "none",
        "vector_db": answers["vector_db"] == "none",
        "documents_as_context": answers["vector_db"] == "none" or not answers["more_models"],
    }
    metrics = yaml.safe_load((ROOT / "extensions/metrics.yml").read_text())
    absent = {metric["name"] for metric in metrics if lacks.get(metric.get("only"))}
    series = catalogue(answers["serving"])
    return {
        name: labels
        for name, labels in series.items()
        if re.sub(r"^ray_(?=service_)|_bucket$|_count$", "", name) not in absent
    }


def faults(service: Path) -> Iterator[str]:
    series = series_of(service)
    rules = yaml.safe_load((service / "monitoring/alerts/service.rules.yaml").read_text())
    recorded = recorded_by(rule for group in rules["groups"] for rule in group["rules"])
    for name, title, expression in expressions(service):
        for fault in unknown(expression, series, recorded):
            yield f"{name}: {title}: {fault} in {expression}"


def test_expressions_name_only_series_and_labels_that_exist(service: Path) -> None:
    assert list(faults(service)) == []


def test_every_service_metric_of_the_catalogue_is_on_a_dashboard(service: Path) -> None:
    shown = {name for _, _, expression in expressions(service) for name, _ in metrics_of(expression)}
    ours = {name for name in series_of(service) if re.match("(ray_)?service_", name) and not name.endswith("_count")}
    assert ours - shown == set()


def test_what_filters_is_a_variable_of_the_dashboard(service: Path) -> None:
    """Each expression is narrowed to one environment, so that production is never averaged with staging."""
    for name, dashboard in dashboards(service).items():
        for panel in panels(dashboard):
            for target in panel["targets"]:
                series = target["expr"].count("{")
                assert target["expr"].count('namespace=~"$environment"') == series, f"{name}: {panel['title']}"


@pytest.mark.parametrize(
    ("true", "planted"),
    [
        ("service_requests_total", "service_request_total"),
        ('outcome="overloaded"', 'outcomes="overloaded"'),
        ("sum by (outcome)", "sum by (outcomes)"),
        ("service_request_seconds_bucket", "service_request_seconds_sum"),
        ("service_queue_inputs", "ray_service_queue_inputs"),
        ("slo:objective:ratio", "slo:objectives:ratio"),
        ("sloth_slo=", "slo="),
        ("sum by (le, model)", "sum by (le, application)"),
    ],
)
def test_a_typo_is_noticed(rendered: Path, tmp_path: Path, true: str, planted: str) -> None:
    def escaped(text: str) -> str:
        return json.dumps(text)[1:-1]

    text = (rendered / "container" / DASHBOARDS / "overview.json").read_text()
    assert escaped(true) in text
    for name in (".copier-answers.yml", "monitoring"):
        copied = shutil.copytree if (rendered / "container" / name).is_dir() else shutil.copy
        copied(rendered / "container" / name, tmp_path / name)
    (tmp_path / DASHBOARDS / "overview.json").write_text(text.replace(escaped(true), escaped(planted)))
    assert list(faults(tmp_path))


FEATURES = {"features": "redis", "vector_db": "qdrant_cloud"}
SMALL = {"model_max_batch_size": 8, "model_max_batch_tokens": 256}


@pytest.mark.parametrize(
    ("dashboard", "title", "answers", "limit", "changed", "other"),
    [
        ("overview", "Latency", {"latency_objective_ms": 200}, [0.2], {"latency_objective_ms": 400}, [0.4]),
        ("overview", "Requests by outcome", {"expected_rps": 5}, [5], {"expected_rps": 2.5}, [2.5]),
        (
            "overview",
            "Refused requests",
            {"availability_objective": 99.9},
            [0.001],
            {"availability_objective": 99},
            [0.01],
        ),
        ("batching", "Wait for a batch", {"latency_objective_ms": 200}, [0.2], {"latency_objective_ms": 400}, [0.4]),
        ("batching", "Inputs in a batch of minilm", {}, [32], SMALL, [8]),
        ("batching", "Tokens in a batch of minilm", {}, [2048], SMALL, [256]),
        ("batching", "Queue of minilm", {}, [128], SMALL, [64]),
        (
            "features-and-retrieval",
            "Time to read features",
            {**FEATURES, "latency_objective_ms": 200},
            [0.01],
            {"latency_objective_ms": 400},
            [0.02],
        ),
        (
            "features-and-retrieval",
            "Time of a search",
            {**FEATURES, "latency_objective_ms": 200},
            [0.05],
            {"latency_objective_ms": 400},
            [0.1],
        ),
        (
            "gpus",
            "Memory of a replica of minilm",
            {"serving": "ray", "gpu_type": "l4", "model_gpu_share": 0.5},
            [9985154718],
            {"model_gpu_share": 1},
            None,
        ),
        ("cost", "Replicas in use", {"model_max_replicas": 2}, [2], {"model_max_replicas": 5}, [5]),
        (
            "ray",
            "Replicas of minilm",
            {"serving": "ray", "model_max_replicas": 2},
            [1, 2],
            {"model_max_replicas": 5},
            [1, 5],
        ),
    ],
)
def test_a_threshold_comes_from_the_answers(
    template: Path,
    tmp_path: Path,
    dashboard: str,
    title: str,
    answers: Answers,
    limit: list[float],
    changed: Answers,
    other: list[float] | None,
) -> None:
    with compiled_once():
        before = dashboards(render(template, tmp_path / "before", answers))[dashboard]
        after = dashboards(render(template, tmp_path / "after", answers | changed))[dashboard]
    first, second = ([value for name, value in limits(one) if name == title] for one in (before, after))
    assert first == limit
    assert second != limit
    assert other is None or second == other


@pytest.mark.parametrize(
    ("name", "start"),
    [
        ("container", {"price_per_hour": "0.05"}),  # a CPU of 0.033 and 3 GiB of 0.0045
        ("container-gpu", {"price_per_hour": "0.35"}),
        ("ray-shared-gpu-with-context", {"price_per_hour": "0.56", "price_per_replica_hour": "0.09"}),
    ],
)
def test_prices_start_from_the_table(rendered: Path, name: str, start: dict[str, str]) -> None:
    variables = dashboards(rendered / name)["cost"]["templating"]["list"]
    boxes = [variable for variable in variables if variable["type"] == "textbox"]
    assert {box["name"]: box["current"]["value"] for box in boxes} == start
    assert all("estimate in US dollars of 2026-11-24" in box["description"] for box in boxes)


def test_a_picture_has_every_panel_with_its_limits(rendered: Path) -> None:
    dashboard = dashboards(rendered / "container")["overview"]
    asked = []

    def query(expression: str) -> Any:
        asked.append(expression)
        labels = {"model": "minilm", "outcome": "ok", "sloth_slo": "latency", "instance": "a"}
        return [({**labels, "le": bound}, [(float(at), 0.5) for at in range(100)]) for bound in ("0.1", "+Inf")]

    figure = draw("overview", dashboard, query, "15s")
    assert asked == [expression for name, _, expression in expressions(rendered / "container") if name == "overview"]
    assert [axes.get_label() for axes in figure.axes] == [panel["title"] for panel in panels(dashboard)]
    assert "not by Grafana" in " ".join(text.get_text() for text in figure.texts)
    latency = next(axes for axes in figure.axes if axes.get_label() == "Latency")
    assert [np.asarray(line.get_ydata()).tolist() for line in latency.lines if line.get_linestyle() == "--"] == [
        [0.5, 0.5]
    ]


def test_each_dashboard_of_a_service_becomes_a_config_map_that_grafana_finds(service: Path) -> None:
    found = yaml.safe_load((service / "monitoring/kustomization.yaml").read_text())
    assert found["generatorOptions"]["labels"]["grafana_dashboard"] == "1"
    made = [file for each in found["configMapGenerator"] for file in each["files"]]
    # The sidecar writes those of all services into one folder.
    name_of = found["generatorOptions"]["labels"]["app.kubernetes.io/name"]
    assert sorted(made) == sorted(f"{name_of}-{name}.json=dashboards/{name}.json" for name in dashboards(service))
    assert len(made) == len(found["configMapGenerator"])
