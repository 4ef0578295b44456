"""GPU shares are honoured: Ray packs replicas on logical GPUs by the share that the answers gave them."""

from collections import Counter
from pathlib import Path

import yaml

from tests.run.conftest import LOGICAL_GPUS, Render
from tests.run.light import put_light_model
from tests.run.service import RayHead, wait_for


def halves(render: Render, models: int, tag: str) -> tuple[Path, list[str]]:
    """A render of `models` models, each on half a card and with one replica, and their names."""
    names = [f"{tag}-{number}" for number in range(models)]
    folder = render(
        serving="ray",
        gpu_type="l4",
        model_name=names[0],
        model_gpu_share=0.5,
        model_max_replicas=1,
        more_models=[{"name": name, "gpu_share": 0.5, "max_replicas": 1} for name in names[1:]],
    )
    for name in names:
        put_light_model(folder, name)
    return folder, names


def cards_of(head: RayHead, names: list[str]) -> dict[str, str]:
    """The logical GPU of each model, as its replica logged it when it was ready."""
    return {record["model"]: record["gpus"] for record in head.log_records("model ready") if record["model"] in names}


def test_two_halves_share_a_card_and_the_third_goes_to_the_second(ray_head: RayHead, render: Render) -> None:
    folder, names = halves(render, 3, "half")
    ray_head.deploy(folder)
    wait_for("three models have logged their card", lambda: len(cards_of(ray_head, names)) == 3)
    cards = cards_of(ray_head, names)
    assert sorted(Counter(cards.values()).values()) == [1, 2]
    assert set(cards.values()) == {"0", "1"}


def test_a_half_for_which_no_card_has_room_waits(ray_head: RayHead, render: Render) -> None:
    folder, names = halves(render, 2 * LOGICAL_GPUS + 1, "many")
    ray_head.submit(folder, yaml.safe_load((folder / "config/serve.yaml").read_text()), {})

    def running() -> list[str]:
        found = ray_head.applications()
        return [name for name in names if found.get(name, {}).get("status") == "RUNNING"]

    wait_for("all but one model run", lambda: len(running()) == 2 * LOGICAL_GPUS)
    (waiting,) = set(names) - set(running())
    assert ray_head.applications()[waiting]["status"] == "DEPLOYING"
    # A replica's log reaches its file through a pipe, so it may come after Serve's word that the model runs.
    wait_for("all but one have logged their card", lambda: len(cards_of(ray_head, names)) == 2 * LOGICAL_GPUS)
    assert sorted(Counter(cards_of(ray_head, names).values()).values()) == [2] * LOGICAL_GPUS
