"""Prometheus beside the running service: `make observe`. Its rules and series are those that the cluster has.

Prometheus itself must be installed; it keeps its data in a folder that goes when it ends. A Grafana that reads from it
can import the dashboards: monitoring/dashboards/*.json.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import webbrowser
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).parent
READY_S = 30


def configuration(target: str) -> dict[str, Any]:
    """monitoring/prometheus.yml, scraping `target` and with the rules wherever the file is written."""
    found: dict[str, Any] = yaml.safe_load((FOLDER / "prometheus.yml").read_text())
    found["rule_files"] = [str(FOLDER / pattern) for pattern in found["rule_files"]]
    found["scrape_configs"][0]["static_configs"][0]["targets"] = [target]
    return found


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except (urllib.error.URLError, OSError):
        return False


def main() -> None:
    """Run Prometheus until it is interrupted. Exit status 2: it is not installed, or there is no service to scrape."""
    parser = argparse.ArgumentParser(prog="python -m monitoring.observe", description=main.__doc__)
    parser.add_argument(
        "--target", help="host:port of the service's metrics (default: as in monitoring/prometheus.yml)"
    )
    parser.add_argument("--port", type=int, default=9090, help="where Prometheus listens (default: 9090)")
    options = parser.parse_args()
    program = shutil.which("prometheus")
    if program is None:
        parser.exit(2, "no `prometheus` on the path: install it (Debian: `apt install prometheus`; macOS: by brew)\n")
    written = yaml.safe_load((FOLDER / "prometheus.yml").read_text())
    target = options.target or written["scrape_configs"][0]["static_configs"][0]["targets"][0]
    if not answers(f"http://{target}/metrics"):
        parser.exit(2, f"nothing answers http://{target}/metrics: run `make dev` in another terminal first\n")
    with tempfile.TemporaryDirectory(prefix="prometheus-") as folder:
        config = Path(folder) / "prometheus.yml"
        config.write_text(yaml.safe_dump(configuration(target)))
        command = [
            program,
            f"--config.file={config}",
            f"--storage.tsdb.path={folder}/data",
            f"--web.listen-address=127.0.0.1:{options.port}",
            "--log.level=warn",
        ]
        with subprocess.Popen(command) as prometheus:
            page = f"http://127.0.0.1:{options.port}"
            until_s = time.monotonic() + READY_S
            while not answers(f"{page}/-/ready") and prometheus.poll() is None and time.monotonic() < until_s:
                time.sleep(0.2)
            if prometheus.poll() is not None:
                sys.exit(f"prometheus ended with status {prometheus.returncode}: what it printed says why")
            print(f"ready: alerts {page}/alerts, rules {page}/rules, series {page}/graph; Ctrl-C ends it", flush=True)
            if sys.stdout.isatty() and (os.environ.get("DISPLAY") or sys.platform == "darwin"):
                webbrowser.open(f"{page}/alerts")
            try:
                prometheus.wait()
            except KeyboardInterrupt:
                prometheus.wait()


if __name__ == "__main__":
    main()
