"""The garbage collector keeps no request waiting: what was loaded is not walked, in the container and on Ray."""

from pathlib import Path

import httpx
import pytest

from tests.run.conftest import Render
from tests.run.light import put_light_model
from tests.run.service import RayHead, container

# The light model's answer: milliseconds of a full collection, or how many young objects start a small one.
MEASURED = """started = time.perf_counter()
        gc.collect()
        pause_ms = int((time.perf_counter() - started) * 1e3)
        lengths = [pause_ms if len(item.ids) == len("pause") else gc.get_threshold()[0] for item in batch]
        return [Prediction(length=length) for length in lengths]"""


@pytest.fixture
def folder(render: Render, request: pytest.FixtureRequest) -> Path:
    rendered = render(serving=request.param, model_name="light", model_max_replicas=1)
    put_light_model(rendered, "light")
    model = rendered / "service/models/light.py"
    code = model.read_text().replace("import time", "import gc\nimport time")
    model.write_text(code.replace("return [Prediction(length=len(item.ids)) for item in batch]", MEASURED))
    return rendered


def asked(url: str, text: str) -> int:
    answer = httpx.post(f"{url}/v1/models/light/predict", json={"instances": [{"text": text}]}, timeout=60)
    return int(answer.json()["predictions"][0]["length"])


def assert_short(url: str) -> None:
    asked(url, "pause")  # what the start left
    assert min(asked(url, "pause") for _ in range(5)) < 25  # 46 and more where libraries are walked
    assert asked(url, "objects") == 10_000  # 700 come together in some 60 requests


@pytest.mark.parametrize("folder", ["container"], indirect=True)
def test_a_full_collection_in_the_container_is_short_and_small_ones_are_seldom(folder: Path) -> None:
    with container(folder) as url:
        assert_short(url)


@pytest.mark.parametrize("folder", ["ray"], indirect=True)
def test_a_full_collection_in_a_replica_is_short_and_small_ones_are_seldom(folder: Path, ray_head: RayHead) -> None:
    assert_short(ray_head.deploy(folder))
