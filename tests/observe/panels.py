"""The panels of a render's dashboards, and their expressions as a Prometheus without Grafana can run them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

DASHBOARDS = "monitoring/dashboards"
Dashboard = dict[str, Any]
Panel = dict[str, Any]


def dashboards(folder: Path) -> dict[str, Dashboard]:
    """Name -> dashboard, of the service rendered in `folder`."""
    return {path.stem: json.loads(path.read_text()) for path in sorted((folder / DASHBOARDS).glob("*.json"))}


def panels(dashboard: Dashboard) -> list[Panel]:
    """All that shows something: rows are titles only."""
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def values(dashboard: Dashboard, window: str) -> dict[str, str]:
    """What Grafana would put in place of its variables, with everything selected."""
    found = {"__rate_interval": window, "__range": window}
    for variable in dashboard["templating"]["list"]:
        found[variable["name"]] = variable["query"] if variable["type"] == "textbox" else ".*"
    return found


def substituted(expression: str, dashboard: Dashboard, window: str) -> str:
    known = values(dashboard, window)
    return re.sub(r"\$(?:\{(\w+)\}|(\w+))", lambda found: known[found[1] or found[2]], expression)


def expressions(folder: Path, window: str = "15s") -> list[tuple[str, str, str]]:
    """(dashboard, title of the panel, expression) of every query. `window` is at least twice the scrape interval."""
    return [
        (name, panel["title"], substituted(target["expr"], dashboard, window))
        for name, dashboard in dashboards(folder).items()
        for panel in panels(dashboard)
        for target in panel["targets"]
    ]
