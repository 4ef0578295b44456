"""What ships is looked at by a real Prometheus: no empty panel or rule under load, counts that agree, alerts on faults.

A machine without a GPU has no GPU metrics: theirs are served beside the service, in the exporter's own format.
"""

import json
import os
import re
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.database import running_database
from tests.observe.exposition import gpu_exposition, serving
from tests.observe.load import Sent, loaded, send
from tests.observe.panels import expressions
from tests.prometheus import Prometheus, is_ready, running_prometheus
from tests.run.conftest import Render
from tests.run.light import put_light_embedder, put_light_model
from tests.run.service import RayHead, container, feature_store, process, python_of, wait_for
from tests.run.test_retrieval import run_job
from tests.store import free_port, running_store
from tests.variants import AXES, second_model

FILLED_S, ALERT_S = 90, 120
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


def write_features(folder: Path, env: dict[str, str], user: str, hours_ago: float) -> None:
    """Aggregates of a user, as they were some hours ago."""
    at = (datetime.now(UTC) - timedelta(hours=hours_ago)).isoformat()
    row = {"view": "user_activity", "entity": user, "at": at, "values": {"orders_7d": 1, "spend_7d": 2.0}}
    path = folder / "rows.jsonl"
    path.write_text(json.dumps(row))
    done = run_job(folder, "jobs.write_features", str(path), **env)
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


@pytest.mark.parametrize(
    ("mode", "features", "database"),
    [("container", "redis", "qdrant_cloud"), ("ray", "redis", "qdrant_cloud"), ("container", "feast", "pinecone")],
)
def test_every_panel_and_every_rule_has_data_while_the_service_is_loaded_and_no_alert_fires(
    mode: str, features: str, database: str, render: Render, request: pytest.FixtureRequest
) -> None:
    share = {"gpu_type": "l4", "model_gpu_share": 0.5} if mode == "ray" else {}
    second = second_model(name="light", **({"gpu_share": 0.5} if mode == "ray" else {}))
    patient = {"latency_objective_ms": 4000}  # on a busy machine too, searches come in time
    folder = render(
        serving=mode, features=features, **AXES["vector_db"][database], more_models=[second], **share, **patient
    )
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
    wait_for("there is another", lambda: len(head.replicas()[application] - before) == 1, 120)
    wait_for(
        "all run",
        lambda: len(head.replicas()[application]) == len(before) and httpx.get(f"{head.url}/readyz").is_success,
        60,
    )


def at_once(rules: str, window: str = "6s", half_hour: str = "6s") -> str:
    """The same rules over seconds: faults in a test are as short. What they remember for days they still do."""
    rules = re.sub(r"for: \w+", "for: 0s", rules)
    return re.sub(r"\[(\d+[smh])\]", lambda found: f"[{half_hour if found[1] == '30m' else window}]", rules)


def fires(prometheus: Prometheus, *names: str) -> None:
    for name in names:
        wait_for(f"{name} fires", lambda name=name: name in prometheus.firing(), ALERT_S, 0.5)  # type: ignore[misc]


def resolves(prometheus: Prometheus, *names: str) -> None:
    for name in names:
        wait_for(f"{name} resolves", lambda name=name: name not in prometheus.firing(), ALERT_S, 0.5)  # type: ignore[misc]


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
            port = url.rpartition(":")[2]
            with running_prometheus(folder, {"service": f"127.0.0.1:{port}"}, at_once) as prometheus:
                healthy = [body("light"), QUERY]
                with loaded(url, healthy, 2):
                    wait_for("there is a rate", lambda: bool(prometheus.query("rate(service_requests_total[6s])")), 30)
                    assert {"FeatureStoreFailing", "RetrievalDegraded", "NoReplicaReady"} & prometheus.firing() == set()
                    store.stop()
                    fires(prometheus, "FeatureStoreFailing")
                    store.start()
                    fill(folder, env)
                    resolves(prometheus, "FeatureStoreFailing")
                    database.stop()
                    fires(prometheus, "RetrievalDegraded")
                    database.start()
                    fires(prometheus, "SearchHasNoIndex")
                    fill(folder, env)
                    resolves(prometheus, "SearchHasNoIndex", "RetrievalDegraded")
                with loaded(url, [body("light", user="nobody"), QUERY], 2):
                    fires(prometheus, "FeaturesMissing")
                with loaded(url, healthy, 2):
                    resolves(prometheus, "FeaturesMissing")
                    overload = ("LoadRejected", "QueueGrowing", "AvailabilityBudgetBurningFast")
                    with loaded(url, [body("light", count=60)], 32):
                        fires(prometheus, *overload)
                    resolves(prometheus, *overload)
                write_features(folder, env, "user-9", hours_ago=48)
                with loaded(url, [body("light", user="user-9"), QUERY], 2):
                    fires(prometheus, "FeaturesStale")
                    write_features(folder, env, "user-9", hours_ago=0)
                    resolves(prometheus, "FeaturesStale")
                service.close()
                fires(prometheus, "NoReplicaReady")
                with container(folder, port, **env):
                    resolves(prometheus, "NoReplicaReady")


def test_alerts_of_a_service_on_ray_fire_while_their_fault_lasts_and_resolve_after(render: Render) -> None:
    """On a head of its own, which is lost in the end."""
    second = second_model(name="light", min_replicas=1, max_replicas=1)
    folder = render(serving="ray", model_max_batch_size=1, model_max_replicas=2, more_models=[second])
    put_light_model(folder, "minilm", 0.05)
    put_light_model(folder, "light")
    config = yaml.safe_load((folder / "config/serve.yaml").read_text())
    for application in config["applications"]:
        for deployment in application["deployments"]:
            deployment["autoscaling_config"] |= {"upscale_delay_s": 1, "look_back_period_s": 2}
    head = RayHead(num_cpus=8, num_gpus=0, python=python_of(folder))
    target = head.metrics.removeprefix("http://").removesuffix("/metrics")
    with running_prometheus(folder, {"service": target}, lambda rules: at_once(rules, "15s", "90s")) as prometheus:
        with head.running(folder / "config/ray.env"):
            url = head.deploy(folder, config)
            resolves(prometheus, "NoReplicaReady", "RayHeadDown")
            with loaded(url, [body("light", count=1)], 1, 0.1):
                overload = ("LoadRejected", "QueueGrowing", "AvailabilityBudgetBurningFast", "LatencyBudgetBurningFast")
                with loaded(url, [body("minilm", count=4)], 64):
                    fires(prometheus, "AutoscalerAtMax", *overload)
                resolves(prometheus, "AutoscalerAtMax", *overload)
                for _ in range(3):
                    kill_a_replica(head, "light")
                fires(prometheus, "ReplicasRestarting")
        fires(prometheus, "RayHeadDown", "NoReplicaReady")
        with head.running(folder / "config/ray.env"):
            head.deploy(folder, config)
            resolves(prometheus, "RayHeadDown", "NoReplicaReady", "ReplicasRestarting")


@pytest.mark.parametrize("grafana", [False, True], ids=["alone", "with-grafana"])
def test_observing_opens_a_prometheus_on_the_running_service_and_says_what_is_missing(
    grafana: bool, render: Render, tmp_path: Path
) -> None:
    path = put_grafana(tmp_path) if grafana else os.environ["PATH"]
    folder = render(serving="container", model_name="seen")
    put_light_model(folder, "seen")
    port = free_port()
    command = [sys.executable, "-m", "monitoring.observe", "--port", str(port), "--grafana-port", str(free_port())]
    command.append("--target")
    nothing = subprocess.run(
        [*command, f"127.0.0.1:{free_port()}"], cwd=folder, capture_output=True, text=True, check=False, timeout=30
    )
    assert nothing.returncode == 2
    assert "run `make dev` in another terminal first" in nothing.stderr
    with container(folder) as url, process([*command, url.removeprefix("http://")], folder, PATH=path):
        prometheus = Prometheus(f"http://127.0.0.1:{port}")
        wait_for("Prometheus is ready", lambda: is_ready(prometheus.url), 30)
        route, asked = "/v1/models/seen/predict", {"instances": [{"text": "a text"}]}
        assert httpx.post(f"{url}{route}", json=asked).status_code == 200
        wait_for("it is scraped", lambda: prometheus.value("sum(service_requests_total)") == 1, 60)
        assert {rule["health"] for rule in prometheus.rules()} <= {"ok", "unknown"}
        assert prometheus.rules()
        if grafana:
            wait_for("Grafana is started", (tmp_path / "seen.json").exists, 30)
            shown = json.loads((tmp_path / "seen.json").read_text())
            assert shown["asked"] == "/api/health"
            assert shown["arguments"] == ["server", f"--homepath={tmp_path}"]
            provisioning = Path(shown["environment"]["GF_PATHS_PROVISIONING"])
            (source,) = yaml.safe_load((provisioning / "datasources/service.yaml").read_text())["datasources"]
            assert (source["type"], source["url"], source["isDefault"]) == ("prometheus", prometheus.url, True)
            (provider,) = yaml.safe_load((provisioning / "dashboards/service.yaml").read_text())["providers"]
            assert Path(provider["options"]["path"], "overview.json").exists()
            grafana_url = f"http://127.0.0.1:{shown['environment']['GF_SERVER_HTTP_PORT']}"
            assert httpx.get(grafana_url).is_success
        taken = subprocess.run(
            [*command, url.removeprefix("http://")], cwd=folder, capture_output=True, text=True, check=False, timeout=30
        )
        assert (taken.returncode, taken.stderr) == (2, f"port {port} is taken: choose another with --port\n")
        usual = "import sys; from monitoring.observe import port_of; print(port_of(None, int(sys.argv[1])))"
        other = subprocess.check_output([sys.executable, "-c", usual, str(port)], cwd=folder, text=True)
        assert int(other) not in (0, port)
    assert not is_ready(prometheus.url)
    if grafana:
        with pytest.raises(httpx.ConnectError):
            httpx.get(grafana_url)


# What stands for Grafana, which cannot be installed here: it tells how it was started, and answers.
GRAFANA = f"""#!{sys.executable}
import http.server, json, os, pathlib, sys

class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        folder = pathlib.Path(sys.argv[0]).parent.parent
        seen = {{"arguments": sys.argv[1:], "environment": dict(os.environ), "asked": self.path}}
        (folder / "seen.new").write_text(json.dumps(seen))
        (folder / "seen.new").rename(folder / "seen.json")
        self.send_response(200)
        self.end_headers()

address = (os.environ["GF_SERVER_HTTP_ADDR"], int(os.environ["GF_SERVER_HTTP_PORT"]))
http.server.ThreadingHTTPServer(address, Answer).serve_forever()
"""


def put_grafana(folder: Path) -> str:
    """A path on which there is a Grafana, installed in `folder` as its archive would."""
    (folder / "conf").mkdir()
    (folder / "conf/defaults.ini").touch()
    (folder / "bin").mkdir()
    program = folder / "bin/grafana"
    program.write_text(GRAFANA)
    program.chmod(0o755)
    return f"{program.parent}{os.pathsep}{os.environ['PATH']}"
