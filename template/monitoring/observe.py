"""Prometheus beside the running service: `make observe`. Its rules and series are those that the cluster has.

Prometheus itself must be installed. Where Grafana is too, it is opened with the dashboards of monitoring/dashboards/.
Both keep their data in a folder that goes when they end.
"""

import argparse
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import webbrowser
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import yaml

from monitoring import grafana

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


def port_of(asked: int | None, usual: int) -> int | None:
    """The port that was asked for, None if it is taken; else the usual one, or a free one where that is taken.

    Debian's package, for one, starts a Prometheus of its own on the usual port.
    """
    for port in (usual, 0) if asked is None else (asked,):
        with suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            found: int = probe.getsockname()[1]
            return found
    return None


@contextmanager
def started(command: list[str], more: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """A process with `more` in its environment, until the end of the block."""
    with subprocess.Popen(command, env={**os.environ, **more}) as process:
        try:
            yield process
        finally:
            process.terminate()


def ready(process: subprocess.Popen[bytes], url: str) -> bool:
    """Does it answer, before it ends or READY_S are over?"""
    until_s = time.monotonic() + READY_S
    while process.poll() is None and time.monotonic() < until_s:
        if answers(url):
            return True
        time.sleep(0.2)
    return False


def with_grafana(stack: ExitStack, folder: Path, prometheus: str, asked_port: int | None) -> str | None:
    """The page of its dashboards; None where Grafana is not installed or does not start, which is told."""
    command = grafana.program()
    if command is None:
        return None
    home = grafana.home(command[0])
    if home is None:
        print(f"{command[0]} is there, and its files are not: set GF_PATHS_HOME to the folder with conf/defaults.ini")
        return None
    port = port_of(asked_port, 3000)
    if port is None:
        print(f"port {asked_port} is taken: choose another with --grafana-port")
        return None
    settings = grafana.settings(folder, prometheus, port)
    page = f"http://127.0.0.1:{port}"
    process = stack.enter_context(started([*command, f"--homepath={home}"], settings))
    if ready(process, f"{page}/api/health"):
        return f"{page}/dashboards"
    logs = "".join(path.read_text() for path in (folder / "logs").glob("*.log"))
    print(f"grafana does not answer, its status is {process.poll()}, and these are the last lines of its log:")
    print("\n".join(logs.splitlines()[-5:]), flush=True)
    return None


def main() -> None:
    """Run Prometheus until it is interrupted. Exit status 2: it, a service to scrape or the port is not to be had."""
    parser = argparse.ArgumentParser(prog="python -m monitoring.observe", description=main.__doc__)
    parser.add_argument(
        "--target", help="host:port of the service's metrics (default: as in monitoring/prometheus.yml)"
    )
    parser.add_argument("--port", type=int, help="where Prometheus listens (default: 9090, or a free one)")
    parser.add_argument("--grafana-port", type=int, help="where Grafana listens (default: 3000, or a free one)")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # so that what is started here ends too
    program = shutil.which("prometheus")
    if program is None:
        parser.exit(2, "no `prometheus` on the path: install it (Debian: `apt install prometheus`; macOS: by brew)\n")
    written = yaml.safe_load((FOLDER / "prometheus.yml").read_text())
    target = options.target or written["scrape_configs"][0]["static_configs"][0]["targets"][0]
    if not answers(f"http://{target}/metrics"):
        parser.exit(2, f"nothing answers http://{target}/metrics: run `make dev` in another terminal first\n")
    port = port_of(options.port, 9090)
    if port is None:
        parser.exit(2, f"port {options.port} is taken: choose another with --port\n")
    with tempfile.TemporaryDirectory(prefix="observe-") as name, ExitStack() as stack:
        folder = Path(name)
        config = folder / "prometheus.yml"
        config.write_text(yaml.safe_dump(configuration(target)))
        command = [
            program,
            f"--config.file={config}",
            f"--storage.tsdb.path={folder}/data",
            f"--web.listen-address=127.0.0.1:{port}",
            "--log.level=warn",
        ]
        page = f"http://127.0.0.1:{port}"
        prometheus = stack.enter_context(started(command, {}))
        if not ready(prometheus, f"{page}/-/ready"):
            sys.exit(f"prometheus does not answer, its status is {prometheus.poll()}: what it printed says why")
        print(f"ready: alerts {page}/alerts, rules {page}/rules, series {page}/graph; Ctrl-C ends it", flush=True)
        show = f"{page}/alerts"
        if opened := with_grafana(stack, folder / "grafana", page, options.grafana_port):
            show = opened
            print(f"dashboards: {opened}", flush=True)
        if sys.stdout.isatty() and (os.environ.get("DISPLAY") or sys.platform == "darwin"):
            webbrowser.open(show)
        with suppress(KeyboardInterrupt):
            prometheus.wait()


if __name__ == "__main__":
    main()
