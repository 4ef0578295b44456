"""A service that runs its own Qdrant, rendered once; and every overlay of every variant, built once."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.manifests.built import Overlay, build, environments, read, with_files
from tests.rendering import compiled_once, render
from tests.variants import AXES, Answers

# Renders to spoil. Between them they have every kind of object.
SAMPLES: dict[str, Answers] = {
    "ray": {
        "serving": "ray",
        "gpu_type": "l4",
        **AXES["models"]["two-halves"],
        "features": "redis",
        **AXES["vector_db"]["qdrant_cloud"],
        "head_fault_tolerance": True,
        "platform": "gke",
        "ingress": "gateway",
        "gitops": "argocd",
        "secrets": "external",
        "weights": "cache",
    },
    "container": {
        "serving": "container",
        "features": "feast",
        **AXES["vector_db"]["qdrant_self_hosted"],
        "platform": "gke",
        "ingress": "ingress",
        "gitops": "flux",
        "model_source": "/models/minilm",
    },
    "claims": {
        "serving": "ray",
        "gpu_type": "l4",
        "model_gpu_share": 1,
        "gpu_sharing": "dra",
        **AXES["vector_db"]["qdrant_self_hosted"],
    },
    "two-groups": {
        "serving": "ray",
        **AXES["models"]["two"],
        "platform": "gke",
        "ingress": "ingress",
        "gitops": "flux",
    },
}


@pytest.fixture(scope="session")
def service(template: Path, made_once: Callable[[str, Callable[[Path], object]], Path]) -> Path:
    def make(folder: Path) -> None:
        with compiled_once():
            for factor in (2, 3):
                answers = {**AXES["vector_db"]["qdrant_self_hosted"], "qdrant_replication_factor": factor}
                render(template, folder / str(factor), answers)

    return made_once("self-hosted", make) / "2"


@pytest.fixture(scope="session")
def overlays(
    renders: dict[str, Path], made_once: Callable[[str, Callable[[Path], object]], Path]
) -> dict[str, Overlay]:
    """Every overlay of every variant by variant/environment, as kustomize builds it, and what is applied beside it.

    A laptop's cluster gets neither a database of its own nor jobs by hand.
    """
    names = {f"{name}/{each}": (folder, each) for name, folder in renders.items() for each in environments(folder)}

    def make(target: Path) -> None:
        def write(name: str) -> None:
            path = target / f"{name}.yaml"
            path.parent.mkdir(exist_ok=True)
            path.write_text(build(*names[name]))

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(write, names))

    texts = made_once("overlays", make)
    built = {
        name: Overlay(name, folder, read((texts / f"{name}.yaml").read_text())) for name, (folder, _) in names.items()
    }
    return {name: each if each.environment == "local" else with_files(each) for name, each in built.items()}


@pytest.fixture(scope="session")
def samples(template: Path, made_once: Callable[[str, Callable[[Path], object]], Path]) -> dict[str, Path]:
    """Name and folder of SAMPLES: copy what you change."""

    def make(target: Path) -> None:
        with compiled_once():
            for name, answers in SAMPLES.items():
                render(template, target / name, answers)

    folder = made_once("samples", make)
    return {name: folder / name for name in SAMPLES}
