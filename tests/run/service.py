"""Start what a render contains, ask it, and stop exactly what was started here."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import yaml
from dotenv import dotenv_values

from tests.store import free_port

READY_S = 240
SLOTS = ("minilm", "second-model", "light", *(f"{tag}-{number}" for tag in ("half", "many") for number in range(5)))
STOP_S = 60


def wait_for(what: str, condition: Callable[[], bool], timeout_s: float = READY_S, interval_s: float = 0.3) -> None:
    """Return once `condition` holds; an AssertionError names `what` did not happen in time."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if condition():
            return
        time.sleep(interval_s)
    raise AssertionError(f"not within {timeout_s} s: {what}")


# The environment of services with Feast, see the Makefile.
FEAST_PYTHON = Path(sys.prefix, "feast/bin/python")


def python_of(folder: Path) -> Path:
    """The Python that has what the render in `folder` depends on."""
    return FEAST_PYTHON if (folder / "service/runtime/features_feast.py").exists() else Path(sys.executable)


def environment(folder: Path, **extra: str) -> dict[str, str]:
    """The environment of a process of the render in `folder`: its Python's tools, no model hub."""
    path = f"{python_of(folder).parent}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "PYTHONPATH": str(folder), "HF_HUB_OFFLINE": "1", **extra}


@contextmanager
def process(command: list[str], folder: Path, **extra: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process with a group of its own, ended with SIGTERM, and by force only if it does not end."""
    started = subprocess.Popen(command, cwd=folder, env=environment(folder, **extra), start_new_session=True)
    try:
        yield started
    finally:
        started.send_signal(signal.SIGTERM)
        try:
            started.wait(STOP_S)
        except subprocess.TimeoutExpired:
            os.killpg(started.pid, signal.SIGKILL)
            started.wait(STOP_S)
            raise


def ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz", timeout=5).status_code == 200
    except httpx.HTTPError:
        return False


@contextmanager
def container(folder: Path, port: str = "", **env: str) -> Iterator[str]:
    """The base URL of the render in `folder`, run as its image would run it, with `env` in its environment.

    port: a free one unless it is given.
    """
    port = port or str(free_port())
    url = f"http://127.0.0.1:{port}"
    command = [str(python_of(folder)), "-m", "service.runtime.container", "--port", port]
    with process(command, folder, **env) as started:
        wait_for(f"{url} is ready", lambda: started.poll() is not None or ready(url))
        assert started.poll() is None, f"the container ended with status {started.returncode}"
        yield url


@contextmanager
def feature_store(folder: Path) -> Iterator[dict[str, str]]:
    """The embedded stores that the render in `folder` ships; yields what its service needs to find them."""
    if not (folder / "tests/local_store.py").exists():
        yield {}
        return
    code = """
import json, sys
from tests.local_store import running_stores
with running_stores() as found:
    print(json.dumps(found), flush=True)
    sys.stdin.read()
"""
    command = [str(python_of(folder)), "-c", code]
    with subprocess.Popen(
        command, cwd=folder, env=environment(folder), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as keeper:
        assert keeper.stdin
        assert keeper.stdout
        found = keeper.stdout.readline()
        assert found, "the embedded stores did not start; its output is above"
        try:
            yield dict(json.loads(found))
        finally:
            keeper.stdin.close()


class RayHead:
    """A Ray head with logical GPUs on ports of its own, on which Serve configs are deployed one after the other."""

    def __init__(self, num_cpus: int, num_gpus: int, python: Path) -> None:
        """python: the one whose packages the deployed renders find."""
        self._ray = str(python.with_name("ray"))
        self.url = f"http://127.0.0.1:{free_port()}"
        self._num_cpus, self._num_gpus = num_cpus, num_gpus
        self._dashboard_port, self._metrics_port, self._gcs_port = free_port(), free_port(), free_port()
        self.dashboard = f"http://127.0.0.1:{self._dashboard_port}"
        self.metrics = f"http://127.0.0.1:{self._metrics_port}/metrics"
        self.address = f"127.0.0.1:{self._gcs_port}"
        self.replica_ports = range(0)
        self.temp_dir = Path(tempfile.mkdtemp(prefix="ray-"))  # short: it holds sockets

    @contextmanager
    def running(self, ray_env: Path, **env: str) -> Iterator["RayHead"]:
        """ray_env: the render's `config/ray.env`, as every node of a cluster gets it. env: of its pods."""
        command = [
            *(self._ray, "start", "--head", "--block", "--disable-usage-stats"),
            *("--port", str(self._gcs_port), "--dashboard-port", str(self._dashboard_port)),
            *("--metrics-export-port", str(self._metrics_port), "--temp-dir", str(self.temp_dir)),
            *(
                "--num-cpus",
                str(self._num_cpus),
                "--num-gpus",
                str(self._num_gpus),
                "--ray-client-server-port",
                str(free_port()),
            ),
            *("--dashboard-agent-listen-port", str(free_port())),
            # The places that worker pods of a service with several models advertise, for the names that tests use.
            *("--resources", json.dumps({f"slot-{name}": 100 for name in SLOTS})),
        ]
        switches = {name: value or "" for name, value in dotenv_values(ray_env).items()}
        first = free_port()
        self.replica_ports = range(first, first + 101)
        own = {
            "RAY_AUTH_MODE": "disabled",
            "RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT": str(first),
            "RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT": str(self.replica_ports[-1]),
            "RAY_SERVE_HAPROXY_METRICS_PORT": str(free_port()),
            "RAY_SERVE_HAPROXY_STATS_PORT": str(free_port()),
            "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(free_port()),
            "RAY_SERVE_PROXY_MIN_DRAINING_PERIOD_S": "1",
            "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "1",
            # Its applications are deleted before the head is ended: nothing is left that Ray would have to wait for.
            "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "1",
            # Gauges live for twice as long, and the service sets its own every 5 s.
            "RAY_metrics_report_interval_ms": "3000",
            "PYTHONPATH": str(ray_env.parent.parent),  # as in an image: Serve's proxies import the service, too
        }
        self.temp_dir.mkdir(exist_ok=True)  # a head that was lost may come back
        try:
            with process(command, self.temp_dir, **switches, **{**own, **env}) as started:
                wait_for("the Ray dashboard answers", lambda: started.poll() is not None or self._answers())
                assert started.poll() is None, f"ray start ended with status {started.returncode}"
                yield self
                httpx.delete(f"{self.dashboard}/api/serve/applications/", timeout=STOP_S)
        finally:
            shutil.rmtree(self.temp_dir, ignore_errors=True)

    def _answers(self) -> bool:
        try:
            return httpx.get(f"{self.dashboard}/api/serve/applications/", timeout=5).status_code == 200
        except httpx.HTTPError:
            return False

    def submit(self, folder: Path, config: dict[str, Any], env: dict[str, str]) -> None:
        """Deploy `config` with the code of the render in `folder`, replacing whatever runs."""
        config["http_options"]["port"] = int(self.url.rsplit(":", 1)[1])
        for application in config["applications"]:
            application["runtime_env"] = {"env_vars": {"PYTHONPATH": str(folder), "HF_HUB_OFFLINE": "1", **env}}
        response = httpx.put(f"{self.dashboard}/api/serve/applications/", json=config, timeout=60)
        assert response.status_code == 200, response.text

    def deploy(self, folder: Path, config: dict[str, Any] | None = None, env: dict[str, str] | None = None) -> str:
        """Deploy the shipped config (or `config`) and wait until it runs; returns the base URL.

        env: what the pods of a cluster would have in their environment.
        """
        config = config or yaml.safe_load((folder / "config/serve.yaml").read_text())
        self.submit(folder, config, env or {})
        names = {application["name"] for application in config["applications"]}

        def running() -> bool:
            found = self.applications()
            failed = {name: app["message"] for name, app in found.items() if app["status"] == "DEPLOY_FAILED"}
            assert not failed, failed
            return found.keys() == names and all(app["status"] == "RUNNING" for app in found.values())

        wait_for(f"the applications {sorted(names)} run", running)
        wait_for(f"{self.url} is ready", lambda: ready(self.url))
        return self.url

    def applications(self) -> dict[str, Any]:
        """Serve's own account of what runs, by application."""
        details = httpx.get(f"{self.dashboard}/api/serve/applications/", timeout=30).json()
        return dict(details["applications"])

    def replicas(self) -> dict[str, set[str]]:
        """The actor ids of each application's running replicas."""
        return {
            name: {
                replica["actor_id"]
                for deployment in application["deployments"].values()
                for replica in deployment["replicas"]
                if replica["state"] == "RUNNING"
            }
            for name, application in self.applications().items()
        }

    def log_records(self, message: str) -> list[dict[str, Any]]:
        """The JSON log records of all replicas with this message, oldest first within a replica."""
        records = []
        for path in self.temp_dir.glob("session_latest/logs/worker-*.err"):
            for line in path.read_text(errors="replace").splitlines():
                if line.startswith("{") and f'"message": "{message}"' in line:
                    records.append(json.loads(line))
        return records


def run_contract(folder: Path, url: str, **env: str) -> None:
    """The shipped contract suite of the render in `folder` against the service at `url`."""
    command = [str(python_of(folder)), "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/contract"]
    done = subprocess.run(
        command,
        cwd=folder,
        env=environment(folder, SERVICE_URL=url, **env),
        capture_output=True,
        check=False,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout[-6000:]


def contract(folder: Path) -> None:
    """Start the render in `folder` by its own tests, with tiny weights, and run its whole suite."""
    command = [str(python_of(folder)), "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(
        command, cwd=folder, env=environment(folder), capture_output=True, check=False, text=True, timeout=600
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-3000:]


def predictions_of_the_plain_class(folder: Path, model: dict[str, Any], texts: list[str]) -> list[Any]:
    """What `service/models/<name>.py` predicts by itself, one text at a time, in a process without any server."""
    code = """
import importlib, json, sys, torch
from service.runtime.settings import ModelSettings
settings, texts = json.load(sys.stdin)
settings = ModelSettings.model_validate({k: v for k, v in settings.items() if k in ModelSettings.model_fields})
torch.set_num_threads(settings.cpu_threads)
module = importlib.import_module("service.models." + settings.module)
model = module.Model(settings, torch.device("cpu"))
def predict(text):
    return model.predict(model.encode([module.Instance(text=text)], model.max_tokens))[0].model_dump()
print(json.dumps([predict(text) for text in texts]))
"""
    done = subprocess.run(
        [str(python_of(folder)), "-c", code],
        cwd=folder,
        env=environment(folder),
        input=json.dumps([model, texts]),
        capture_output=True,
        check=False,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return list(json.loads(done.stdout))
