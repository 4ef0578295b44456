"""What the container does when callers leave, come all at once, wait too long, or the process is told to stop."""

import asyncio
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path

import httpx
import pytest
import yaml

from tests.run.conftest import Render
from tests.run.light import put_light_model
from tests.run.service import container, environment, process, ready, wait_for
from tests.store import free_port

BATCH_S = 0.4
PATH = "/v1/models/slow/predict"
ONE = {"instances": [{"text": "ab"}]}


@pytest.fixture(scope="module")
def folder(render: Render) -> Path:
    """A render whose model takes BATCH_S for any batch of at most two texts."""
    rendered = render(serving="container", model_name="slow", model_max_batch_size=2)
    put_light_model(rendered, "slow", BATCH_S)
    config = rendered / "config/service.yaml"
    settings = yaml.safe_load(config.read_text())
    settings["models"][0]["request_timeout_s"] = 2
    settings["models"][0]["batch"]["max_queue_length"] = 16
    config.write_text(yaml.safe_dump(settings))
    return rendered


@pytest.fixture(scope="module")
def url(folder: Path) -> Iterator[str]:
    with container(folder) as started:
        yield started


def counted(url: str, series: str) -> float:
    lines = httpx.get(f"{url}/metrics", timeout=30).text.splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(series))


def test_an_overload_is_refused_at_once_or_given_up_in_time_and_never_an_error(url: str) -> None:
    async def many() -> list[httpx.Response]:
        async with httpx.AsyncClient(base_url=url, timeout=30) as client:
            return await asyncio.gather(*(client.post(PATH, json=ONE) for _ in range(60)))

    responses = asyncio.run(many())
    statuses = {response.status_code for response in responses}
    assert {200, 429} <= statuses <= {200, 429, 504}
    for response in responses:
        if response.status_code == 429:
            assert response.json()["type"] == "urn:problem-type:queue-full"
            assert int(response.headers["retry-after"]) >= 1
    assert httpx.post(url + PATH, json=ONE, timeout=30).status_code == 200


def test_a_prediction_that_does_not_come_in_time_is_a_504_problem(url: str) -> None:
    body = {"instances": [{"text": "ab"}] * 16}
    response = httpx.post(url + PATH, json=body, timeout=30)
    assert response.status_code == 504
    assert response.json()["type"] == "urn:problem-type:deadline-passed"
    assert "2.0 s" in response.json()["detail"]


def test_inputs_of_a_caller_who_hung_up_are_dropped_not_run(url: str) -> None:
    before = counted(url, "service_dropped_inputs_total{")
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(url + PATH, json={"instances": [{"text": "ab"}] * 8}, timeout=BATCH_S / 2)
    wait_for("inputs are dropped", lambda: counted(url, "service_dropped_inputs_total{") >= before + 4, 30)
    assert counted(url, 'service_requests_total{model="slow",outcome="cancelled"}') >= 1


def test_an_idle_connection_stays_open_so_that_a_load_balancer_never_meets_one_that_closes(url: str) -> None:
    connection = HTTPConnection(url.removeprefix("http://"), timeout=30)
    connection.request("GET", "/healthz")
    assert connection.getresponse().read()
    assert connection.sock is not None
    connection.sock.settimeout(7)  # uvicorn alone closes after 5
    with pytest.raises(TimeoutError):
        connection.sock.recv(1)
    connection.close()


def test_a_stop_finishes_what_is_in_flight(folder: Path) -> None:
    port = free_port()
    command = [sys.executable, "-m", "service.runtime.container", "--port", str(port)]
    with process(command, folder) as started:
        base = f"http://127.0.0.1:{port}"
        wait_for("the service is ready", lambda: ready(base))
        answers: list[int] = []

        def ask() -> None:
            answers.append(httpx.post(base + PATH, json={"instances": [{"text": "ab"}] * 4}, timeout=30).status_code)

        caller = threading.Thread(target=ask)
        caller.start()
        wait_for("a batch has run", lambda: counted(base, "service_batches_total{") >= 1, 30, interval_s=0.05)
        started.send_signal(signal.SIGTERM)
        caller.join()
        assert answers == [200]
        started.wait(30)


def test_settings_that_cannot_be_used_end_the_start_in_words(folder: Path, tmp_path: Path) -> None:
    config = tmp_path / "service.yaml"
    config.write_text((folder / "config/service.yaml").read_text().replace("max_batch_size", "max_batch_sise"))
    command = [sys.executable, "-m", "service.runtime.container", "--config", str(config)]
    done = subprocess.run(
        command, cwd=folder, env=environment(folder), capture_output=True, check=False, text=True, timeout=120
    )
    assert done.returncode == 2
    assert "models.0.batch.max_batch_sise" in done.stderr
    assert "Traceback" not in done.stderr
