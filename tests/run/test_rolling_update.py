"""A change of the Serve config and a change of the code reach a service under load without one failed request.

The load is open: requests arrive whether or not earlier ones are answered, at half of what the service was measured to
carry just before. The models sleep, so that what is short is replicas and not this machine's cores.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from benchmarks.serving.client import Spec
from tests.run.conftest import Render
from tests.run.light import put_light_model
from tests.run.service import RayHead, wait_for
from tests.variants import ROOT

NAME, REPLICAS, REQUESTS = "rolled", 2, 2000
BATCH_S, BATCH = 0.05, 4


def client(url: str, work: Path, *, rate: float, seconds: float) -> subprocess.Popen[str]:
    """Load on the model: of 64 connections, or of `rate` requests/s where that is above 0."""
    spec = Spec(
        url=f"{url}/v1/models/{NAME}/predict",
        bodies=[json.dumps({"instances": [{"text": "some words"}]})],
        connections=0 if rate else 64,
        rate=rate,
        warmup_s=1.0,
        measure_s=seconds,
        seed=1,
    )
    path = work / f"spec-{rate}.json"
    path.write_text(json.dumps(spec))
    command = [sys.executable, "-m", "benchmarks.serving.client", str(path)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def outcome(started: subprocess.Popen[str]) -> dict[str, Any]:
    printed, _ = started.communicate(timeout=300)
    assert started.returncode == 0
    return dict(json.loads(printed))


def length(url: str) -> int:
    """What the model answers: the code before the change counts right, the one after it adds a thousand."""
    body = {"instances": [{"text": "four"}]}
    answer = httpx.post(f"{url}/v1/models/{NAME}/predict", json=body, timeout=30)
    return int(answer.json()["predictions"][0]["length"])


@pytest.mark.parametrize("change", ["config", "code"])
def test_an_update_under_load_fails_no_request(ray_head: RayHead, render: Render, change: str, tmp_path: Path) -> None:
    folder = render(serving="ray", model_name=NAME, model_min_replicas=REPLICAS, model_max_replicas=REPLICAS)
    put_light_model(folder, NAME, seconds=BATCH_S)
    config = yaml.safe_load((folder / "config/serve.yaml").read_text())
    config["applications"][0]["deployments"][0]["user_config"]["max_batch_size"] = BATCH
    url = ray_head.deploy(folder, config)
    before = ray_head.replicas()[NAME]
    capacity = outcome(client(url, tmp_path, rate=0, seconds=5))["completed_per_s"]
    rate = capacity / 2
    assert rate < 0.6 * REPLICAS * BATCH / BATCH_S, "the model is not what bounds the load"

    load = client(url, tmp_path, rate=rate, seconds=max(45.0, 1.1 * REQUESTS / rate))
    try:
        if change == "config":
            # Both that reach running replicas, and such that start new ones.
            config["applications"][0]["deployments"][0]["user_config"]["max_queue_length"] += 1
            config["applications"][0]["args"]["request_timeout_s"] += 1
            ray_head.deploy(folder, config)
        else:
            newer = Path(shutil.copytree(folder, tmp_path / "newer"))
            model = newer / f"service/models/{NAME}.py"
            model.write_text(model.read_text().replace("length=len(item.ids)", "length=1000 + len(item.ids)"))
            ray_head.deploy(newer, config)
        wait_for(
            "every replica is a new one",
            lambda: len(found := ray_head.replicas()[NAME]) == REPLICAS and not found & before,
            timeout_s=120,
        )
        assert load.poll() is None, "the load ended before the update did: nothing was shown"
    finally:
        found = outcome(load)
    print(f"{change}: {len(found['latencies_ms'])} answered at {rate:.0f}/s of {capacity:.0f}/s, {found['failures']}")
    assert found["failures"] == {}
    assert len(found["latencies_ms"]) >= REQUESTS
    assert length(url) == (1004 if change == "code" else 4)
