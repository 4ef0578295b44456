"""The garbage collector keeps no request waiting: what was loaded is not walked, in the container and on Ray."""

from pathlib import Path

import httpx

from tests.run.conftest import Render
from tests.run.light import put_light_model
from tests.run.service import RayHead, container

# The light model's answer: milliseconds of a full collection, or how many young objects start a small one.
MEASURED = """started = time.perf_counter()
        gc.collect()
        pause_ms = int((time.perf_counter() - started) * 1e3)
        lengths = [pause_ms if len(item.ids) == len("pause") else gc.get_threshold()[0] for item in batch]
        return [Prediction(length=length) for length in lengths]"""


def measuring(render: Render, serving: str) -> Path:
    folder = render(serving=serving, model_name="light", model_max_replicas=1)
    put_light_model(folder, "light")
    model = folder / "service/models/light.py"
    code = model.read_text().replace("import time", "import gc\nimport time")
    model.write_text(code.replace("return [Prediction(length=len(item.ids)) for item in batch]", MEASURED))
    return folder


def asked(url: str, text: str) -> int:
    answer = httpx.post(f"{url}/v1/models/light/predict", json={"instances": [{"text": text}]}, timeout=60)
    return int(answer.json()["predictions"][0]["length"])


def assert_short(url: str) -> None:
    asked(url, "pause")  # what the start left
    assert min(asked(url, "pause") for _ in range(5)) < 25  # 46 and more where libraries are walked
    assert asked(url, "objects") == 10_000  # 700 come together in some 60 requests


def test_a_full_collection_in_the_container_is_short_and_small_ones_are_seldom(render: Render) -> None:
    with container(measuring(render, "container")) as url:
        assert_short(url)


def test_a_full_collection_in_a_replica_is_short_and_small_ones_are_seldom(render: Render, ray_head: RayHead) -> None:
    assert_short(ray_head.deploy(measuring(render, "ray")))
