"""A service beside a store that stops, hangs, crawls, refuses or lies: no error, little delay, back by itself."""

import json
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import yaml

from tests.run.conftest import Render
from tests.run.light import put_light_model
from tests.run.service import RayHead, container, environment, python_of, wait_for
from tests.store import SlowProxy, Store, running_store

REQUESTS = 200
ROUNDS = 5
RECOVERY_S = 10
PASSWORD = "right"  # noqa: S105
PATH = "/v1/models/light/predict"
BODY = {"instances": [{"text": "a text", "user_id": "user-1"}]}

ROWS = (
    '{"view": "user_activity", "entity": "user-1", "at": "now", "values": {"orders_7d": 3, "spend_7d": 9.5}}',
    '{"view": "recent_events", "entity": "user-1", "at": "now", "values": {"kind": "viewed", "item": "shoes"}}',
)


class Stage:
    """A started service with its store behind a proxy, and the deadline that the service keeps.

    env: tells a job where the store is.
    """

    def __init__(self, url: str, store: Store, proxy: SlowProxy, folder: Path, env: dict[str, str]) -> None:
        self.url, self.store, self.proxy, self.folder, self.env = url, store, proxy, folder, env
        self.deadline_ms = yaml.safe_load((folder / "config/features.yaml").read_text())["deadline_ms"]

    def fill(self) -> None:
        path = self.folder / "rows.jsonl"
        views = (self.folder / "service/features/views.py").read_text()
        path.write_text("".join(f"{row}\n" for row in ROWS if json.loads(row)["view"] in views))
        command = [str(python_of(self.folder)), "-m", "jobs.write_features", str(path)]
        env = environment(self.folder, **self.env)
        subprocess.run(command, cwd=self.folder, env=env, check=True, timeout=60)

    def ask(self, client: httpx.Client) -> tuple[float, httpx.Response]:
        started = time.perf_counter()
        response = client.post(PATH, json=BODY)
        return (time.perf_counter() - started) * 1e3, response

    def load(self) -> tuple[float, set[int], set[str]]:
        """p99 in ms of REQUESTS requests in a row, their statuses, and what was degraded."""
        with httpx.Client(base_url=self.url, timeout=30) as client:
            self.ask(client)
            answers = [self.ask(client) for _ in range(REQUESTS)]
        statuses = {response.status_code for _, response in answers}
        degraded = {each for _, response in answers for each in response.json()["degraded"]}
        return statistics.quantiles([ms for ms, _ in answers], n=100)[98], statuses, degraded

    def healthy(self) -> bool:
        with httpx.Client(base_url=self.url, timeout=30) as client:
            return not self.ask(client)[1].json()["degraded"]


@contextmanager
def started(serving: str, folder: Path, env: dict[str, str], request: pytest.FixtureRequest) -> Iterator[str]:
    if serving == "container":
        with container(folder, **env) as url:
            yield url
    else:
        head: RayHead = request.getfixturevalue("ray_head")
        yield head.deploy(folder, env=env)


@pytest.fixture(scope="module", params=[("container", "redis"), ("container", "feast"), ("ray", "redis")], ids="-".join)
def stage(request: pytest.FixtureRequest, render: Render, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """A service with each kind of store: Redis, and Feast as in production, with Redis online and a SQL registry."""
    serving, features = request.param
    folder = render(serving=serving, features=features, model_name="light")
    put_light_model(folder, "light")
    with running_store(PASSWORD) as store, SlowProxy(store.port).running() as proxy:
        if features == "redis":
            through, direct = (
                {"FEATURE_STORE_URL": f"redis://127.0.0.1:{port}/0", "FEATURE_STORE_PASSWORD": PASSWORD}
                for port in (proxy.port, store.port)
            )
        else:
            data = tmp_path_factory.mktemp("feast")
            through, direct = (
                {
                    "FEATURE_STORE_CONFIG": "feature_repo/production.yaml",
                    "FEATURE_DATA": str(data),
                    "FEATURE_REGISTRY": f"sqlite:///{data}/registry.db",
                    "FEATURE_STORE_CONNECTION": f"127.0.0.1:{port},password={PASSWORD}",
                }
                for port in (proxy.port, store.port)
            )
            apply(folder, direct)
        made = Stage("", store, proxy, folder, direct)
        made.fill()
        with started(serving, folder, through, request) as made.url:
            wait_for("features are read", made.healthy, RECOVERY_S)
            yield made


def apply(folder: Path, env: dict[str, str]) -> None:
    """What `make plan` and `make apply` do."""
    feast = [str(python_of(folder).with_name("feast")), "--chdir", "feature_repo"]
    feast += ["--feature-store-yaml", str(folder / env["FEATURE_STORE_CONFIG"])]
    for command in ([*feast, "plan"], [*feast, "apply"]):
        done = subprocess.run(
            command,
            cwd=folder,
            env=environment(folder, **env),
            check=False,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        if "plan" in command:
            assert "Created feature view user_activity_v1" in done.stdout


def stop(stage: Stage) -> Callable[[], None]:
    stage.store.stop()

    def mend() -> None:
        stage.store.start()
        stage.fill()

    return mend


def hang(stage: Stage) -> Callable[[], None]:
    stage.store.pause()
    return stage.store.resume


def crawl(stage: Stage) -> Callable[[], None]:
    """Ten times what a healthy read takes here."""
    stage.proxy.delay_s = 0.01

    def mend() -> None:
        stage.proxy.delay_s = 0.0

    return mend


def refuse(stage: Stage) -> Callable[[], None]:
    """Another password, and every connection made anew."""
    client = stage.store.client()
    client.config_set("requirepass", "another")
    client.client_kill_filter(_type="normal", skipme=True)

    def mend() -> None:
        client.config_set("requirepass", PASSWORD)

    return mend


def poison(stage: Stage) -> Callable[[], None]:
    """Values that no reader understands; their times stay as they were."""
    client = stage.store.client()
    for key in client.scan_iter("*"):
        if client.type(key) == b"hash":
            for field in client.hkeys(key):
                if b"_ts" not in field:
                    client.hset(key, field, b"\xff\xff not a value")
    return stage.fill


@pytest.mark.parametrize(
    ("fault", "degrades"), [(stop, True), (hang, True), (crawl, False), (refuse, True), (poison, True)]
)
def test_a_fault_of_the_store_costs_no_request_and_at_most_the_deadline(
    stage: Stage, fault: Callable[[Stage], Callable[[], None]], degrades: bool
) -> None:
    """No request fails in any round. A machine that stops for a moment makes a good store late, too: one round of some
    must show the store read without fault before and after, the outcome of the fault, and its cost."""
    faults = []
    for _ in range(ROUNDS):
        normal_ms, statuses, before = stage.load()
        assert statuses == {200}
        mend = fault(stage)
        try:
            fault_ms, statuses, during = stage.load()
        finally:
            mend()
        assert statuses == {200}
        began = time.monotonic()
        wait_for("features are read again", stage.healthy, RECOVERY_S, 0.05)
        print(
            f"{fault.__name__}: p99 {normal_ms:.1f} ms, with the fault {fault_ms:.1f} ms, "
            f"deadline {stage.deadline_ms} ms, back after {time.monotonic() - began:.2f} s, {sorted(during)}"
        )
        assert bool(during) or not degrades, "the fault was not noticed"
        assert {each.partition(": ")[2] for each in before | during} <= {"error", "timeout"}
        late = fault_ms > normal_ms + stage.deadline_ms
        faults.append({"degraded before": before, "degraded": during, "late": late, "ms": (normal_ms, fault_ms)})
        if not (before or late or (during and not degrades)):
            return
    raise AssertionError(f"every round fell short, with a deadline of {stage.deadline_ms} ms: {faults}")
