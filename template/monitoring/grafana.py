"""Grafana with the dashboards that ship, for `make observe`: it asks for no login, and writes to one folder only."""

import os
import shutil
from pathlib import Path

import yaml

DASHBOARDS = Path(__file__).parent / "dashboards"


def program() -> list[str] | None:
    """How Grafana is started; None where it is not installed. Before version 10 it was a program of another name."""
    if found := shutil.which("grafana"):
        return [found, "server"]
    found = shutil.which("grafana-server")
    return [found] if found else None


def home(started_by: str) -> Path | None:
    """The folder of Grafana's own files: GF_PATHS_HOME, or where archives, Homebrew and Debian's packages have it."""
    installed = Path(started_by).resolve().parent.parent
    given = os.environ.get("GF_PATHS_HOME")
    places = [Path(given)] if given else [installed, installed / "share/grafana", Path("/usr/share/grafana")]
    return next((place for place in places if (place / "conf/defaults.ini").exists()), None)


def settings(folder: Path, prometheus: str, port: int) -> dict[str, str]:
    """What Grafana reads from its environment, and the files in `folder` that it leads to.

    prometheus: the URL that the dashboards are drawn from.
    """
    source = {"name": "Prometheus", "type": "prometheus", "access": "proxy", "url": prometheus, "isDefault": True}
    provider = {"name": "service", "type": "file", "options": {"path": str(DASHBOARDS)}}
    for kind, key, entry in (("datasources", "datasources", source), ("dashboards", "providers", provider)):
        path = folder / "provisioning" / kind / "service.yaml"
        path.parent.mkdir(parents=True)
        path.write_text(yaml.safe_dump({"apiVersion": 1, key: [entry]}))
    return {
        "GF_PATHS_PROVISIONING": str(folder / "provisioning"),
        "GF_PATHS_DATA": str(folder / "data"),
        "GF_PATHS_LOGS": str(folder / "logs"),
        "GF_PATHS_PLUGINS": str(folder / "plugins"),
        "GF_LOG_MODE": "file",
        "GF_SERVER_HTTP_ADDR": "127.0.0.1",
        "GF_SERVER_HTTP_PORT": str(port),
        "GF_AUTH_ANONYMOUS_ENABLED": "true",
        "GF_AUTH_ANONYMOUS_ORG_ROLE": "Admin",
        "GF_ANALYTICS_REPORTING_ENABLED": "false",
        "GF_ANALYTICS_CHECK_FOR_UPDATES": "false",
    }
