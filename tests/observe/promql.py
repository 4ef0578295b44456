"""Which metrics and labels a PromQL expression names, and which of them do not exist."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import promql_parser as promql
import yaml

from tests.variants import ROOT

# What Prometheus adds to each series of a target, and Ray to each of a replica.
OF_TARGET = {"namespace", "pod", "instance", "job"}
# What monitors copy of the pods, or of the Service, of what they scrape; by source of a metric.
OF_SERVICE, OF_DATABASE = "app_kubernetes_io_name", "app_kubernetes_io_part_of"
COPIED = {"service": {OF_SERVICE}, "ray": {OF_SERVICE}, "qdrant": {OF_DATABASE}}
OF_REPLICA = {"application", "deployment", "replica"}
# Labels of what our recording rules make.
BY_MODEL = {"namespace", "model"}
OF_OBJECTIVE = {"sloth_service", "sloth_slo"}
# What Prometheus makes itself.
BUILT_IN = {"ALERTS": {"alertname", "alertstate", "severity", "owner", "namespace", "model"}}


def catalogue(serving: str) -> dict[str, set[str]]:
    """Each series of extensions/metrics.yml, by its name in this serving mode, and the labels that it may have.

    Sums of histograms are left out: Ray makes them up.
    """
    series = dict(BUILT_IN)
    for metric in yaml.safe_load((ROOT / "extensions" / "metrics.yml").read_text()):
        if metric.get("only") in {"ray", "container"} - {serving}:
            continue
        ours = metric["source"] == "service" and serving == "ray"
        name = f"ray_{metric['name']}" if ours else metric["name"]
        labels = {*metric["labels"], *OF_TARGET, *COPIED.get(metric["source"], ()), *(OF_REPLICA if ours else ())}
        if metric["kind"] == "histogram":
            series |= {f"{name}_bucket": labels | {"le"}, f"{name}_count": labels}
        else:
            series[name] = labels
    return series


def recorded_by(rules: Iterable[Mapping[str, Any]]) -> dict[str, set[str]]:
    """What recording rules make, and its labels: all are by namespace and model, and say whose they are."""
    names = {str(rule["record"]) for rule in rules if "record" in rule}
    return {name: BY_MODEL | (OF_OBJECTIVE if name.startswith("slo:") else {OF_SERVICE}) for name in names}


def metrics_of(expression: str) -> list[tuple[str, set[str]]]:
    """Every selector: its metric, and the labels that it must have: in matchers, and in `by` and `on` around it."""
    return [(name, labels) for name, labels in _selectors(promql.parse(expression), frozenset())]


def unknown(expression: str, series: Mapping[str, set[str]], recorded: Mapping[str, set[str]]) -> list[str]:
    """What `expression` names that is neither in the catalogue nor recorded."""
    known = {**series, **recorded}
    faults = []
    for name, labels in metrics_of(expression):
        if name not in known:
            faults.append(f"there is no metric {name}")
        elif extra := sorted(labels - known[name]):
            faults.append(f"{name} has no label {', '.join(extra)}")
    return faults


def _selectors(node: Any, wanted: frozenset[str]) -> Iterator[tuple[str, set[str]]]:
    """wanted: the labels that what stands around `node` expects of it."""
    match node:
        case promql.VectorSelector():
            matchers = node.matchers.matchers
            name = node.name or next((item.value for item in matchers if item.name == "__name__"), "")
            yield name, {item.name for item in matchers if item.name != "__name__"} | wanted
        case promql.MatrixSelector():
            yield from _selectors(node.vector_selector, wanted)
        case promql.AggregateExpr():
            yield from _selectors(node.expr, wanted | frozenset(node.modifier.labels if node.modifier else ()))
            if node.param is not None:
                yield from _selectors(node.param, frozenset())
        case promql.BinaryExpr():
            # Of `and`, `unless`, and of the one side of many to one, only what is matched on or named reaches outside.
            card = promql.VectorMatchCardinality
            how = node.modifier.card if node.modifier else None
            on = frozenset(node.modifier.matching.labels if node.modifier and node.modifier.matching else ())
            named = frozenset((node.modifier.group_labels if node.modifier else None) or ())
            whole, part = on | (wanted - named), on | named
            yield from _selectors(node.lhs, part if how == card.OneToMany else whole)
            right_is_part = str(node.op) in ("and", "unless") or how == card.ManyToOne
            yield from _selectors(node.rhs, part if right_is_part else whole)
        case promql.Call():
            if node.func.name in ("label_replace", "label_join"):
                made, sources = node.args[1].val, node.args[3:4] if node.func.name == "label_replace" else node.args[3:]
                wanted = (wanted - {made}) | {source.val for source in sources}
            for argument in node.args:
                yield from _selectors(argument, wanted)
        case promql.ParenExpr() | promql.UnaryExpr() | promql.SubqueryExpr():
            yield from _selectors(node.expr, wanted)
        case promql.NumberLiteral() | promql.StringLiteral():
            pass
        case _:
            raise TypeError(f"no rule for {type(node).__name__}: add one to {__name__}")
