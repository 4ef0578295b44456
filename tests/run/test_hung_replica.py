"""A replica that hangs, as one does whose card's driver is stuck, keeps nobody waiting for long."""

import os
import signal

import httpx
from dotenv import dotenv_values

from tests.run.conftest import Render
from tests.run.light import put_light_model
from tests.run.service import RayHead, wait_for


def pid_of_replica(head: RayHead, name: str) -> int:
    (replica,) = head.applications()[name]["deployments"]["model"]["replicas"]
    return int(replica["pid"])


def test_a_caller_of_a_replica_that_hangs_is_answered_within_the_limit(ray_head: RayHead, render: Render) -> None:
    folder = render(serving="ray", model_name="light", model_max_replicas=1)
    put_light_model(folder, "light")
    url = f"{ray_head.deploy(folder)}/v1/models/light/predict"
    limit_s = float(dotenv_values(folder / "config/ray.env")["RAY_SERVE_HAPROXY_TIMEOUT_SERVER_S"] or 0)
    body = {"instances": [{"text": "ab"}]}
    assert httpx.post(url, json=body, timeout=30).status_code == 200
    pid = pid_of_replica(ray_head, "light")
    os.kill(pid, signal.SIGSTOP)
    try:
        assert httpx.post(url, json=body, timeout=limit_s + 5).status_code == 500
    finally:
        os.kill(pid, signal.SIGCONT)
    wait_for("the replica answers again", lambda: httpx.post(url, json=body, timeout=30).status_code == 200, 60)
