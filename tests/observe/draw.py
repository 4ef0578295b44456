"""Draw a dashboard from a Prometheus, to look at where no Grafana runs.

`python -m tests.observe.draw RENDERED_FOLDER PROMETHEUS_URL OUT.png [--dashboard overview] [--minutes 10]`
Layout, queries, titles, units and thresholds are those of the JSON; the rest is not what Grafana would draw.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import time
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tests.observe.panels import Dashboard, Panel, dashboards, substituted

COLUMN_IN, LINE_IN = 0.62, 0.34  # inches of a column of the grid, and of a unit of height
POINTS = 240
COLORS = {"green": "#4b9a52", "orange": "#e0752d", "red": "#c4302b", "blue": "#3b76c0"}
NOTE = "Drawn by tests/observe/draw.py from the queries of {name}.json against a live Prometheus, not by Grafana."

# (labels, [(Unix time, value)]) of each series that an expression gives.
Series = list[tuple[dict[str, str], list[tuple[float, float]]]]
Query = Callable[[str], Series]


def prometheus(url: str, minutes: float) -> Query:
    """Range queries over the last minutes."""
    end_s = time.time()
    step_s = max(1, minutes * 60 / POINTS)

    def query(expression: str) -> Series:
        asked = {"query": expression, "start": end_s - minutes * 60, "end": end_s, "step": step_s}
        with urllib.request.urlopen(f"{url}/api/v1/query_range?{urllib.parse.urlencode(asked)}", timeout=30) as answer:
            results = json.load(answer)["data"]["result"]
        return [(one["metric"], [(float(at), float(value)) for at, value in one["values"]]) for one in results]

    return query


def words(value: float, unit: str) -> str:
    """A value with its unit, as short as Grafana writes it."""
    if not math.isfinite(value):
        return "-"
    if unit == "percentunit":
        return f"{value * 100:.3g} %"
    if unit in ("s", "ms"):
        seconds = value / 1000 if unit == "ms" else value
        return f"{seconds:.3g} s" if seconds >= 1 or seconds == 0 else f"{seconds * 1000:.3g} ms"
    steps = [(2**30, " GiB"), (2**20, " MiB"), (1, " B")] if unit == "bytes" else [(1e6, " M"), (1e3, " k"), (1, "")]
    size, prefix = next((step for step in steps if abs(value) >= step[0]), steps[-1])
    suffix = {"reqps": " req/s", "ops": " ops/s", "percent": " %", "celsius": " °C", "watt": " W"}.get(unit, "")
    return f"{value / size:.3g}{prefix}{suffix}"


def color_of(value: float, steps: list[dict[str, Any]]) -> str:
    passed = [step["color"] for step in steps if step["value"] is None or value >= step["value"]]
    return COLORS[passed[-1]]


def legend(pattern: str, labels: dict[str, str]) -> str:
    return re.sub(r"\{\{(\w+)\}\}", lambda found: labels.get(found[1], ""), pattern).strip()


def clock(axes: Axes) -> None:
    axes.xaxis.set_major_formatter(lambda value, _: time.strftime("%H:%M:%S", time.gmtime(value)))
    axes.xaxis.set_major_locator(mpl.ticker.MaxNLocator(4))
    axes.tick_params(labelsize=6.5, length=2)


def lines(axes: Axes, panel: Panel, found: list[tuple[str, list[tuple[float, float]]]]) -> None:
    unit = panel["fieldConfig"]["defaults"]["unit"]
    stacked = panel["fieldConfig"]["defaults"]["custom"]["stacking"]["mode"] == "normal"
    below: dict[float, float] = {}
    for name, points in found:
        times = [at for at, _ in points]
        heights = [value + (below.get(at, 0.0) if stacked else 0.0) for at, value in points]
        (line,) = axes.plot(
            times, heights, linewidth=1, clip_on=False, zorder=3, label=f"{name}: {words(points[-1][1], unit)}"
        )
        if stacked:
            axes.fill_between(times, [below.get(at, 0.0) for at in times], heights, alpha=0.3, color=line.get_color())
            below |= dict(zip(times, heights, strict=True))
    steps = panel["fieldConfig"]["defaults"]["thresholds"]["steps"]
    if panel["fieldConfig"]["defaults"]["custom"]["thresholdsStyle"]["mode"] != "off":
        for step in steps[1:]:
            axes.axhline(step["value"], color=COLORS[step["color"]], linestyle="--", linewidth=1)
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(lambda value, _: words(value, unit))
    clock(axes)
    axes.grid(alpha=0.25)
    axes.legend(fontsize=6, loc="upper left", bbox_to_anchor=(-0.02, -0.12), ncols=2, frameon=False, labelspacing=0.2)


def heat(axes: Axes, panel: Panel, found: Series) -> None:
    """Buckets count what is below their bound: each less the one before is what it holds itself."""
    unit = panel["fieldConfig"]["defaults"]["unit"]
    rows = sorted((float(labels["le"]), dict(points)) for labels, points in found)
    times = sorted({at for _, points in rows for at in points})
    cells, before = [], dict.fromkeys(times, 0.0)
    for _, points in rows:
        now = {at: points.get(at, before[at]) for at in times}
        cells.append([max(0.0, now[at] - before[at]) or math.nan for at in times])
        before = now
    axes.pcolormesh(times, range(len(rows)), cells, cmap="Oranges", shading="nearest")
    axes.set_yticks(range(len(rows)), [words(bound, unit) if math.isfinite(bound) else "more" for bound, _ in rows])
    clock(axes)
    axes.tick_params(axis="y", labelsize=5)


def numbers(axes: Axes, panel: Panel, found: list[tuple[str, list[tuple[float, float]]]]) -> None:
    """The last value of each series, large, in the colour of its threshold."""
    axes.set_axis_off()
    defaults = panel["fieldConfig"]["defaults"]
    codes = defaults["mappings"][0]["options"] if defaults["mappings"] else {}
    for place, (name, points) in enumerate(found):
        value = points[-1][1]
        text = codes.get(f"{value:g}", {}).get("text") or words(value, defaults["unit"])
        height = 1 - (place + 0.5) / len(found)
        color = color_of(value, defaults["thresholds"]["steps"])
        axes.text(0.5, height, text, ha="center", va="bottom", fontsize=14, color=color, transform=axes.transAxes)
        axes.text(0.5, height - 0.03, name, ha="center", va="top", fontsize=6, transform=axes.transAxes)


def draw(name: str, dashboard: Dashboard, query: Query, window: str) -> Figure:
    height = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in dashboard["panels"]) + 3
    figure = pyplot.figure(figsize=(24 * COLUMN_IN, height * LINE_IN), facecolor="white")
    figure.text(0.01, 1 - 0.8 / height, dashboard["title"], fontsize=13, weight="bold", va="center")
    figure.text(0.01, 1 - 1.9 / height, NOTE.format(name=name), fontsize=8, va="center", color="#555555")
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        left, top = place["x"] / 24, 1 - (place["y"] + 3) / height
        if panel["type"] == "row":
            figure.text(left + 0.01, top - 0.5 / height, panel["title"], fontsize=9, weight="bold", va="center")
            continue
        box = (left + 0.1 / 24, top - (place["h"] - 0.1) / height, (place["w"] - 0.2) / 24, (place["h"] - 0.2) / height)
        figure.add_artist(
            mpl.patches.Rectangle(box[:2], box[2], box[3], fill=False, edgecolor="#cccccc", linewidth=0.7)
        )
        figure.text(left + 0.35 / 24, top - 0.75 / height, panel["title"], fontsize=9, va="center")
        found = [
            (target["legendFormat"], series)
            for target in panel["targets"]
            for series in query(substituted(target["expr"], dashboard, window))
        ]
        # Numbers fill the panel; all else has ticks at the left, and its legend below.
        sides, below = (0.4, 0.4) if panel["type"] in ("stat", "gauge") else (1.4, 1.4)
        if panel["type"] == "timeseries":
            below += 0.3 * math.ceil(len(found) / 2)
        inner = (
            left + sides / 24,
            top - (place["h"] - below) / height,
            (place["w"] - 0.4 - sides) / 24,
            (place["h"] - 1.2 - below) / height,
        )
        axes = figure.add_axes(inner, label=panel["title"])
        if not found:
            axes.text(0.5, 0.5, "no data", ha="center", transform=axes.transAxes)
        elif panel["type"] == "heatmap":
            heat(axes, panel, [series for _, series in found])
        else:
            named = [(legend(pattern, labels), points) for pattern, (labels, points) in found]
            (lines if panel["type"] == "timeseries" else numbers)(axes, panel, named)
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="a rendered service")
    parser.add_argument("url", help="of a Prometheus that scrapes it")
    parser.add_argument("out", type=Path, help="the picture")
    parser.add_argument("--dashboard", default="overview")
    parser.add_argument("--minutes", type=float, default=10, help="how far back")
    parser.add_argument("--window", default="1m", help="of rates: at least four scrapes")
    arguments = parser.parse_args()
    dashboard = dashboards(arguments.folder)[arguments.dashboard]
    query = prometheus(arguments.url.rstrip("/"), arguments.minutes)
    draw(arguments.dashboard, dashboard, query, arguments.window).savefig(
        arguments.out, dpi=110, metadata={"Software": None}
    )


if __name__ == "__main__":
    main()
