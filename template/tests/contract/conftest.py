"""The service under test: one that runs already (`SERVICE_URL`), or this repository's, started with tiny weights."""

import copy
import importlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import pytest
import yaml

STARTUP_S = 180
LAUNCHERS = {"config/service.yaml": "service.runtime.container", "config/serve.yaml": "service.runtime.ray_local"}
CONFIG, LAUNCHER = next((path, module) for path, module in LAUNCHERS.items() if Path(path).exists())


def having(key: str, node: Any) -> Iterator[dict[str, Any]]:
    """Every mapping of a configuration file that has `key`, wherever it stands, in the order of the file."""
    if isinstance(node, dict) and key in node:
        yield node
    children = node.values() if isinstance(node, dict) else node if isinstance(node, list) else []
    for child in children:
        yield from having(key, child)


def tests_of(name: str) -> ModuleType:
    """The team's test module of the model `name`."""
    return importlib.import_module(f"tests.models.test_{name.replace('-', '_')}")


SETTINGS = yaml.safe_load(Path(CONFIG).read_text())
MODELS = [model["name"] for model in having("source", SETTINGS)]
QUEUES = dict(zip(MODELS, (limits["max_queue_length"] for limits in having("max_queue_length", SETTINGS)), strict=True))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Base URL of a ready service."""
    if given := os.environ.get("SERVICE_URL"):
        yield given
        return
    config = copy.deepcopy(SETTINGS)
    for model in having("source", config):
        model["source"] = str(tests_of(model["name"]).save_weights(tmp_path_factory.mktemp("weights")))
    path = tmp_path_factory.mktemp("config") / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    port = free_port()
    command = [sys.executable, "-m", LAUNCHER, "--config", str(path), "--port", str(port)]
    if LAUNCHER.endswith("ray_local"):
        command += ["--dashboard-port", "0"]
    process = subprocess.Popen(command)
    try:
        wait_until_ready(f"http://127.0.0.1:{port}", process)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def wait_until_ready(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + STARTUP_S
    while time.monotonic() < deadline:
        assert process.poll() is None, f"the service ended with status {process.returncode}; its output is above"
        try:
            if httpx.get(f"{url}/readyz").status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.2)
    raise TimeoutError(f"{url} was not ready within {STARTUP_S} s; its output is above")


@pytest.fixture(scope="session")
def http(url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=url, timeout=30) as client:
        yield client


@pytest.fixture(params=MODELS)
def model(request: pytest.FixtureRequest) -> str:
    """The name of each model in turn."""
    return str(request.param)


@pytest.fixture
def example(model: str) -> dict[str, Any]:
    """A valid instance of the model."""
    return dict(tests_of(model).EXAMPLE)


@pytest.fixture
def long_example(model: str) -> dict[str, Any]:
    """A valid instance with more tokens than the model takes."""
    return dict(tests_of(model).LONG_EXAMPLE)
