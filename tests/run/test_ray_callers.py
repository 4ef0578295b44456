"""A replica drops the inputs of callers who left, and Serve does not watch for them as well."""

from pathlib import Path
from typing import Any

import httpx
import pytest
from ray.serve._private.direct_ingress_http_util import ASGIDIReceiveProxy

from tests.run.conftest import Render
from tests.run.light import SOURCE, put_light_model
from tests.run.service import RayHead, wait_for

BATCH_S = 0.4
WATCHER = ASGIDIReceiveProxy._fetch_until_disconnect.__qualname__
WATCH = f'[task for task in asyncio.all_tasks() if "{WATCHER}" in repr(task)]'


def of(texts: int) -> dict[str, Any]:
    return {"instances": [{"text": "ab"}] * texts}


def answers(url: str) -> bool:
    try:
        return httpx.post(url, json=of(1), timeout=30).status_code == 200
    except httpx.HTTPError:
        return False


def test_inputs_of_a_caller_who_hung_up_are_dropped_not_run(ray_head: RayHead, render: Render) -> None:
    folder = render(serving="ray", model_name="slow", model_max_batch_size=2)
    put_light_model(folder, "slow", BATCH_S)
    ray_head.deploy(folder)
    # Not through HAProxy: with `option splice-request`, which Serve gives it, it keeps some departures to itself.
    urls = [f"http://127.0.0.1:{port}/v1/models/slow/predict" for port in ray_head.replica_ports]
    url = next(url for url in urls if answers(url))
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(url, json=of(16), timeout=BATCH_S / 2)

    def logged() -> list[dict[str, Any]]:
        return [record for record in ray_head.log_records("predict") if record["instances"] == 16]

    wait_for("the request that nobody waits for is logged", lambda: bool(logged()))
    (record,) = logged()
    assert record["outcome"] == "cancelled"
    assert len(record["batches"]) < 8


def watches(head: RayHead, folder: Path) -> int:
    """How many requests Serve watches while the model runs for the only one."""
    source = SOURCE.format(seconds=0.0).replace("import time", "import asyncio\nimport time")
    (folder / "service/models/light.py").write_text(source.replace("len(item.ids)", f"len({WATCH})"))
    response = httpx.post(f"{head.deploy(folder)}/v1/models/light/predict", json=of(1), timeout=30)
    return int(response.json()["predictions"][0]["length"])


def test_serve_keeps_no_watch_of_its_own_over_a_prediction(ray_head: RayHead, render: Render) -> None:
    folder = render(serving="ray", model_name="light")
    assert watches(ray_head, folder) == 0


def test_the_watch_of_serve_is_seen_where_there_is_one(ray_head: RayHead, render: Render) -> None:
    folder = render(serving="ray", model_name="light")
    told = folder / "service/runtime/ray_http.py"
    told.write_text(told.read_text().replace('"/predict"', '"/never"'))
    assert watches(ray_head, folder) == 1
