"""What ships is looked at by a real Prometheus: no empty panel or rule under load, counts that agree, alerts on faults.

A machine without a GPU has no GPU metrics: theirs are served beside the service, in the exporter's own format.
"""

import os
import re
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.database import running_database
from tests.observe.exposition import gpu_exposition, serving
from tests.observe.load import Sent, loaded, send
from tests.observe.panels import expressions
from tests.prometheus import Prometheus, is_ready, running_prometheus
from tests.run.conftest import Render
from tests.run.light import put_light_embedder, put_light_model
from tests.run.service import RayHead, container, feature_store, process, wait_for
from tests.run.test_retrieval import run_job
from tests.store import free_port, running_store
from tests.variants import second_model

FILLED_S = 90
RATE = "15s"
QUERY = ("/v1/search", {"query": "a text", "limit": 2})
EXAMPLES = (
    ["jobs.write_features", "jobs/example_features.jsonl"],
    ["jobs.index_documents", "jobs/example_documents.jsonl"],
)


def body(model: str, user: str = "user-1", text: str = "a text", count: int = 3) -> tuple[str, dict[str, Any]]:
    return f"/v1/models/{model}/predict", {"instances": [{"text": text, "user_id": user}] * count}


@contextmanager
def started(folder: Path, request: pytest.FixtureRequest, env: dict[str, str]) -> Iterator[tuple[str, str]]:
    """The service of a render: its URL, and host:port of its metrics."""
    if (folder / "config/service.yaml").exists():
        with container(folder, LOG_LEVEL="WARNING", **env) as url:
            yield url, url.removeprefix("http://")
    else:
        head: RayHead = request.getfixturevalue("ray_head")
        url = head.deploy(folder, env=env)
        yield url, head.metrics.removeprefix("http://").removesuffix("/metrics")


def fill(folder: Path, env: dict[str, str]) -> None:
    """Put the examples of a render into its stores."""
    for job in EXAMPLES:
        done = run_job(folder, *job, **env)
        assert done.returncode == 0, done.stderr


def empty(prometheus: Prometheus, folder: Path) -> list[str]:
    """Panels and recording rules without data, and rules that Prometheus cannot evaluate."""
    rules = prometheus.rules()
    found = [f"rule {rule['name']}: {rule.get('lastError')}" for rule in rules if rule["health"] == "err"]
    recorded = {rule["name"] for rule in rules if rule["type"] == "recording"}
    found += [f"rule {name} has no data" for name in sorted(recorded) if not prometheus.query(name)]
    for dashboard, panel, expr in expressions(folder, RATE):
        if not prometheus.query(expr):
            found.append(f"{dashboard}, {panel}: {expr}")
    return found


@pytest.mark.parametrize("mode", ["container", "ray"])
def test_every_panel_and_every_rule_has_data_while_the_service_is_loaded_and_no_alert_fires(
    mode: str, render: Render, request: pytest.FixtureRequest
) -> None:
    share = {"gpu_type": "l4", "model_gpu_share": 0.5} if mode == "ray" else {}
    second = second_model(name="light", **({"gpu_share": 0.5} if mode == "ray" else {}))
    patient = {"latency_objective_ms": 4000}  # on a busy machine too, searches come in time
    folder = render(serving=mode, features="redis", vector_db="qdrant_cloud", more_models=[second], **share, **patient)
    put_light_embedder(folder, "minilm")
    put_light_model(folder, "light", 0.01)
    with feature_store(folder) as env, ExitStack() as stack:
        fill(folder, env)
        url, target = stack.enter_context(started(folder, request, env))
        gpus = stack.enter_context(serving(gpu_exposition(["light", "minilm"])))
        targets = {"service": target} | ({"gpus": gpus} if mode == "ray" else {})
        bodies = [body("light"), body("minilm"), QUERY]
        with running_prometheus(folder, targets) as prometheus, loaded(url, bodies, 2, 0.05) as sent:
            until_s = time.monotonic() + FILLED_S
            while (absent := empty(prometheus, folder)) and time.monotonic() < until_s:
                time.sleep(2)
            assert absent == []
            assert prometheus.firing() == set()
    assert set(sent.statuses) == {200}


def bucket(seconds: float, bounds: list[float]) -> int:
    """The number of the bucket that holds a latency."""
    return sum(bound < seconds for bound in bounds)


def agree(prometheus: Prometheus, prefix: str, model: str, sent: Sent, tokens: int) -> None:
    """What was scraped is what was sent: requests and tokens exactly, the median latency within a bucket."""

    def value(series: str, labels: str = "") -> float | None:
        return prometheus.value(f'sum({prefix}service_{series}{{model="{model}"{labels}}})')

    def counted() -> bool:
        return value("requests_total", ',outcome="ok"') == sent.statuses[200] == value("request_seconds_count")

    wait_for(f"{sent.statuses[200]} requests are counted", counted, 60, 1)
    assert value("batch_tokens_total") == tokens
    buckets = f'sum by (le) ({prefix}service_request_seconds_bucket{{model="{model}"}})'
    bounds = sorted(float(each["metric"]["le"]) for each in prometheus.query(buckets))
    median_s = prometheus.value(f"histogram_quantile(0.5, {buckets})")
    assert median_s is not None
    assert abs(bucket(median_s, bounds) - bucket(statistics.median(sent.took_ms) / 1e3, bounds)) <= 1


@pytest.mark.parametrize("mode", ["container", "ray"])
def test_scraped_values_agree_with_what_callers_counted_also_after_a_replica_was_killed(
    mode: str, render: Render, request: pytest.FixtureRequest
) -> None:
    two = {"model_min_replicas": 2, "model_max_replicas": 2} if mode == "ray" else {}
    folder = render(serving=mode, model_name=f"counted-{mode}", **two)
    put_light_model(folder, f"counted-{mode}", 0.03)
    prefix, text = ("ray_" if mode == "ray" else ""), "twelve chars"
    sent = Sent()
    with started(folder, request, {}) as (url, target), running_prometheus(folder, {"service": target}) as prometheus:
        for killed in [False, True] if mode == "ray" else [False]:
            if killed:
                kill_a_replica(request.getfixturevalue("ray_head"), f"counted-{mode}")
            with ExitStack() as stack:
                clients = [stack.enter_context(httpx.Client(timeout=30)) for _ in range(2)]
                for number in range(60):
                    count = 1 + number % 3
                    bodies = [body(f"counted-{mode}", text=text, count=count)]
                    bodies[0][1]["instances"] = [{"text": text}] * count
                    send(url, bodies, sent, clients[number % 2])
            assert set(sent.statuses) == {200}
            agree(prometheus, prefix, f"counted-{mode}", sent, tokens=120 * len(text) * (2 if killed else 1))


def kill_a_replica(head: RayHead, application: str) -> None:
    """By its process; returns when another has taken its place."""
    before = head.replicas()[application]
    (deployment,) = head.applications()[application]["deployments"].values()
    os.kill(deployment["replicas"][0]["pid"], signal.SIGKILL)
    wait_for("the replica is gone", lambda: head.replicas()[application] != before, 60)
    wait_for("there are two again", lambda: len(head.replicas()[application] - before) == 1, 120)
    wait_for(
        "both run", lambda: len(head.replicas()[application]) == 2 and httpx.get(f"{head.url}/readyz").is_success, 60
    )


def at_once(rules: str) -> str:
    """The same rules over seconds: faults in a test are as short."""
    return re.sub(r"\[\d+[smh]\]", "[6s]", re.sub(r"for: \w+", "for: 0s", rules))


def test_alerts_fire_while_their_fault_lasts_and_resolve_after(render: Render) -> None:
    second = second_model(name="light")
    folder = render(serving="container", features="redis", vector_db="qdrant_cloud", more_models=[second])
    put_light_embedder(folder, "minilm")
    put_light_model(folder, "light", 0.02)
    with running_store() as store, running_database(folder) as database:
        env = {"FEATURE_STORE_URL": store.url, "LOG_LEVEL": "CRITICAL", **database.env()}

        fill(folder, env)
        with ExitStack() as service:
            url = service.enter_context(container(folder, **env))
            targets = {"service": url.removeprefix("http://")}
            with running_prometheus(folder, targets, at_once) as prometheus:

                def fires(name: str) -> None:
                    wait_for(f"{name} fires", lambda: name in prometheus.firing(), 60, 0.5)

                def resolves(name: str) -> None:
                    wait_for(f"{name} resolves", lambda: name not in prometheus.firing(), 60, 0.5)

                healthy = [body("light"), QUERY]
                with loaded(url, healthy, 2):
                    wait_for("there is a rate", lambda: bool(prometheus.query("rate(service_requests_total[6s])")), 30)
                    assert {"FeatureStoreFailing", "RetrievalDegraded", "NoReplicaReady"} & prometheus.firing() == set()
                    store.stop()
                    fires("FeatureStoreFailing")
                    store.start()
                    fill(folder, env)
                    resolves("FeatureStoreFailing")
                    database.stop()
                    fires("RetrievalDegraded")
                    database.start()
                    fires("SearchHasNoIndex")
                    fill(folder, env)
                    resolves("SearchHasNoIndex")
                    resolves("RetrievalDegraded")
                with loaded(url, [body("light", user="nobody"), QUERY], 2):
                    fires("FeaturesMissing")
                with loaded(url, healthy, 2):
                    resolves("FeaturesMissing")
                    with loaded(url, [body("light", count=60)], 32):
                        fires("LoadRejected")
                        fires("QueueGrowing")
                        fires("AvailabilityBudgetBurningFast")
                    resolves("LoadRejected")
                    resolves("QueueGrowing")
                    resolves("AvailabilityBudgetBurningFast")
                service.close()
                fires("NoReplicaReady")


def test_observing_opens_a_prometheus_on_the_running_service_and_says_what_is_missing(render: Render) -> None:
    folder = render(serving="container", model_name="seen")
    put_light_model(folder, "seen")
    port = free_port()
    command = [sys.executable, "-m", "monitoring.observe", "--port", str(port), "--target"]
    nothing = subprocess.run(
        [*command, f"127.0.0.1:{free_port()}"], cwd=folder, capture_output=True, text=True, check=False, timeout=30
    )
    assert nothing.returncode == 2
    assert "run `make dev` in another terminal first" in nothing.stderr
    with container(folder) as url, process([*command, url.removeprefix("http://")], folder):
        prometheus = Prometheus(f"http://127.0.0.1:{port}")
        wait_for("Prometheus is ready", lambda: is_ready(prometheus.url), 30)
        path, asked = "/v1/models/seen/predict", {"instances": [{"text": "a text"}]}
        assert httpx.post(f"{url}{path}", json=asked).status_code == 200
        wait_for("it is scraped", lambda: prometheus.value("sum(service_requests_total)") == 1, 60)
        assert {rule["health"] for rule in prometheus.rules()} <= {"ok", "unknown"}
        assert prometheus.rules()
