"""A real Prometheus for tests: it scrapes what a test names, with the rules of a render, and is asked by HTTP."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import yaml

from tests.run.service import wait_for
from tests.store import free_port

INTERVAL = "1s"


class Prometheus:
    """One that runs, at `url`."""

    def __init__(self, url: str) -> None:
        self.url = url

    def query(self, expr: str) -> list[dict[str, Any]]:
        """The series of an instant query, each with `metric` and `value`."""
        answer = httpx.get(f"{self.url}/api/v1/query", params={"query": expr}, timeout=30)
        assert answer.status_code == 200, f"{expr}: {answer.text}"
        return list(answer.json()["data"]["result"])

    def value(self, expr: str) -> float | None:
        """The one value of a query; None when there is none."""
        found = self.query(expr)
        assert len(found) < 2, f"{expr} has {len(found)} series"
        return float(found[0]["value"][1]) if found else None

    def firing(self) -> set[str]:
        """The names of the alerts that fire."""
        return {each["metric"]["alertname"] for each in self.query('ALERTS{alertstate="firing"}')}

    def rules(self) -> list[dict[str, Any]]:
        """All rules with their health."""
        groups = httpx.get(f"{self.url}/api/v1/rules", timeout=30).json()["data"]["groups"]
        return [rule for group in groups for rule in group["rules"]]


@contextmanager
def running_prometheus(
    folder: Path, targets: Mapping[str, str], change: Callable[[str], str] = lambda text: text
) -> Iterator[Prometheus]:
    """Prometheus with the rules of the render in `folder`, each text of rules as `change` makes it.

    targets: job -> host:port. All series have the labels of the configuration that ships.
    """
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="prometheus-") as name:
        work = Path(name)
        for rules in (folder / "monitoring/alerts").glob("*.rules.yaml"):
            (work / rules.name).write_text(change(rules.read_text()))
        shipped = yaml.safe_load((folder / "monitoring/prometheus.yml").read_text())
        (first,) = shipped["scrape_configs"]
        scrapes = [
            {**first, "job_name": job, "static_configs": [{**first["static_configs"][0], "targets": [target]}]}
            for job, target in targets.items()
        ]
        config = {
            "global": {"scrape_interval": INTERVAL, "evaluation_interval": INTERVAL},
            "rule_files": ["*.rules.yaml"],
            "scrape_configs": scrapes,
        }
        (work / "prometheus.yml").write_text(yaml.safe_dump(config))
        command = [
            "prometheus",
            f"--config.file={work}/prometheus.yml",
            f"--storage.tsdb.path={work}/data",
            f"--web.listen-address=127.0.0.1:{port}",
            "--log.level=error",
        ]
        prometheus = Prometheus(f"http://127.0.0.1:{port}")
        with subprocess.Popen(command) as started:
            try:
                wait_for("Prometheus is ready", lambda: is_ready(prometheus.url), 30)
                yield prometheus
            finally:
                started.terminate()


def is_ready(url: str) -> bool:
    """Whether a Prometheus at `url` answers queries."""
    try:
        return httpx.get(f"{url}/-/ready", timeout=5).status_code == 200
    except httpx.HTTPError:
        return False
