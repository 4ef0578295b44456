"""Write docs/reference/metrics.md from extensions/metrics.yml, and from the dashboards and rules that use a metric."""

import re
import tempfile
from pathlib import Path
from typing import Any

import yaml

from tests.observe.panels import expressions
from tests.rendering import copy_template, render
from tests.variants import AXES, ROOT, second_model

PAGE = ROOT / "docs" / "reference" / "metrics.md"
HEAD = """# Metrics

Generated from `extensions/metrics.yml` by `make metrics`; a test holds the two equal, and others hold the metrics equal
to the code, to the dashboards and to the alerts.

The same names in both modes. A container offers them at `/metrics`. Ray exports those that begin with `service_` from
each node, with `ray_` in front and the labels `application`, `deployment` and `replica` besides. Prometheus adds
`namespace`, `pod`, `instance` and `job`; monitors copy `app_kubernetes_io_name` from the service's pods, and
`app_kubernetes_io_part_of` from the Service of Qdrant.

"""
TAIL = """
`outcome` is one of `ok`, `invalid`, `too_long`, `overloaded`, `timeout`, `cancelled`, `error`.

Of feature lookups: `ok`, `partial` (fields absent), `missing` (unknown entity), `stale` (over the view's `max_age_s`),
`timeout` (over the deadline), `error` (the store failed, or a stored value is not of the declared type).

Of searches and document lookups: `ok`, `missing` (no index is served), `timeout` (over the deadline), `error` (the
database failed, or the index is another model's).

Means come from the counters: mean batch size is inputs over batches, wasted work is padded tokens over tokens, how busy
the model is is the rate of `service_batch_seconds_total`, the mean wait is `service_queued_seconds_total` over inputs.
Ray's histogram sums are approximations: use its buckets only. Whether the latency objective is kept is counted, by
`service_late_requests_total`, and not estimated from buckets.

Gauges are set every five seconds. GPU memory is that of PyTorch's allocator, which is what a share bounds; the card's
free memory also shows what else is on it. What a card does comes from NVIDIA's exporter, or from Ray's node agent.

A log line of a prediction has the same times for one request: `duration_ms`, `features_ms`, `documents_ms`,
`tokenize_ms`, `queue_ms`, `batch_ms`, and the numbers of its `batches`. A trace has them as spans, see
[how to see how a service runs](../how-to/observe.md).
"""
FULL: list[dict[str, Any]] = [
    {"serving": "container", "features": "redis", **AXES["vector_db"]["qdrant_self_hosted"]},
    {
        "serving": "ray",
        "gpu_type": "l4",
        "model_gpu_share": 0.5,
        "model_max_replicas": 2,
        "features": "redis",
        **AXES["vector_db"]["qdrant_self_hosted"],
        "more_models": [second_model(gpu_share=0.5)],
    },
]


def catalogue() -> list[dict[str, Any]]:
    return list(yaml.safe_load((ROOT / "extensions" / "metrics.yml").read_text()))


def uses(folder: Path) -> tuple[dict[str, str], dict[str, str]]:
    """The queries of a render: by dashboard, and by alert."""
    dashboards: dict[str, str] = {}
    for name, _, expr in expressions(folder):
        dashboards[name] = f"{dashboards.get(name, '')} {expr}"
    alerts: dict[str, str] = {}
    recorded: list[tuple[str, str, str]] = []
    for path in sorted((folder / "monitoring/alerts").glob("*.rules.yaml")):
        for group in yaml.safe_load(path.read_text())["groups"]:
            recorded += [
                (rule["record"], rule.get("labels", {}).get("sloth_slo", ""), rule["expr"])
                for rule in group["rules"]
                if "record" in rule
            ]
            alerts |= {rule["alert"]: rule["expr"] for rule in group["rules"] if "alert" in rule}
    return {name: _resolved(expr, recorded) for name, expr in dashboards.items()}, {
        name: _resolved(expr, recorded) for name, expr in alerts.items()
    }


def _resolved(expr: str, recorded: list[tuple[str, str, str]]) -> str:
    """The query with those that its recorded series are made of. recorded: name, objective and query of each rule."""

    def read(name: str, objective: str) -> bool:
        asks = re.findall(r'sloth_slo="(\w+)"', expr)
        return bool(re.search(rf"{re.escape(name)}\b", expr)) and (not objective or not asks or objective in asks)

    seen: list[tuple[str, str, str]] = []
    while more := [rule for rule in recorded if rule not in seen and read(rule[0], rule[1])]:
        seen += more
        expr = " ".join([expr, *(made_of for _, _, made_of in more)])
    return expr


def page() -> str:
    with tempfile.TemporaryDirectory() as name:
        template = copy_template(Path(name) / "template")
        found = [uses(render(template, Path(name) / str(number), answers)) for number, answers in enumerate(FULL)]
    rows = [
        "| name | kind | unit | labels | what | only with | plotted | alerts |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for metric in catalogue():
        series = re.compile(rf"\b(ray_)?{metric['name']}(_bucket|_count)?\b")
        plotted, alerts = (
            sorted({use for each in found for use, expr in each[kind].items() if series.search(expr)})
            for kind in (0, 1)
        )
        cells = [
            f"`{metric['name']}`",
            metric["kind"],
            metric["unit"],
            ", ".join(f"`{label}`" for label in metric["labels"]),
            metric["what"],
            metric.get("only", ""),
            ", ".join(plotted),
            ", ".join(alerts),
        ]
        rows.append("| " + " | ".join(cells) + " |")
    return HEAD + "\n".join(rows) + "\n" + TAIL


if __name__ == "__main__":
    PAGE.write_text(page())
    print(f"wrote {PAGE.relative_to(ROOT)}")
