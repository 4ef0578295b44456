"""Batch limits live in `user_config`: a change reaches running replicas, under load, without a restart or a failure."""

import threading

import httpx
import yaml

from tests.run.conftest import Render
from tests.run.service import RayHead, wait_for


def counted(head: RayHead, name: str) -> float:
    """A counter of the model, as Prometheus would scrape it."""
    lines = httpx.get(head.metrics, timeout=30).text.splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name) and 'model="tuned"' in line)


def batches_for_sixteen_equal_texts(head: RayHead, inputs_before: int) -> float:
    """How many batches sixteen texts of one request make. Counters lag, so each reading waits for its input count."""

    def all_counted(inputs: int) -> bool:
        return counted(head, "ray_service_batch_inputs_total") == inputs

    wait_for(f"{inputs_before} inputs are counted", lambda: all_counted(inputs_before), 60)
    batches_before = counted(head, "ray_service_batches_total")
    body = {"instances": [{"text": "the same words"}] * 16}
    assert httpx.post(f"{head.url}/v1/models/tuned/predict", json=body, timeout=60).status_code == 200
    wait_for(f"{inputs_before + 16} inputs are counted", lambda: all_counted(inputs_before + 16), 60)
    return counted(head, "ray_service_batches_total") - batches_before


def test_a_new_batch_size_takes_effect_without_a_restart_or_a_failed_request(ray_head: RayHead, render: Render) -> None:
    folder = render(serving="ray", model_name="tuned", model_max_replicas=1)
    config = yaml.safe_load((folder / "config/serve.yaml").read_text())
    ray_head.deploy(folder, config)
    replicas = ray_head.replicas()
    assert batches_for_sixteen_equal_texts(ray_head, inputs_before=0) <= 2

    statuses: list[int] = []
    stop = threading.Event()

    def load() -> None:
        with httpx.Client(timeout=60) as client:
            while not stop.is_set():
                body = {"instances": [{"text": "some words " * (1 + len(statuses) % 9)}]}
                statuses.append(client.post(f"{ray_head.url}/v1/models/tuned/predict", json=body).status_code)

    callers = [threading.Thread(target=load) for _ in range(8)]
    for caller in callers:
        caller.start()
    try:
        wait_for("load runs", lambda: len(statuses) > 50)
        config["applications"][0]["deployments"][0]["user_config"]["max_batch_size"] = 1
        ray_head.deploy(folder, config)

        def changed() -> bool:
            records = ray_head.log_records("batch limits changed")
            return any(record["model"] == "tuned" and record["max_batch_size"] == 1 for record in records)

        wait_for("the replica took the new limits", changed, 60)
        count = len(statuses)
        wait_for("load goes on", lambda: len(statuses) > count + 50)
    finally:
        stop.set()
        for caller in callers:
            caller.join()
    assert set(statuses) == {200}
    assert ray_head.replicas() == replicas
    assert batches_for_sixteen_equal_texts(ray_head, inputs_before=16 + len(statuses)) == 16
