"""A home folder with the template in it, and tiny weights in place of those that the hub would send."""

import importlib.util
import os
import socket
import subprocess
from pathlib import Path

import pytest

from tests.docs.documents import ROOT, Reader, copy_anew
from tests.rendering import copy_template


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "slow: starts a service")


@pytest.fixture(scope="session")
def tiny_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    os.environ["HF_HUB_OFFLINE"] = "1"
    from transformers import AutoModel

    spec = importlib.util.spec_from_file_location("tiny", ROOT / "template" / "tests" / "tiny.py")
    assert spec is not None
    assert spec.loader is not None
    tiny = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tiny)
    folder: Path = tiny.save_tiny(tmp_path_factory.mktemp("weights"), AutoModel)
    return folder


@pytest.fixture(scope="session")
def home_with_service(tmp_path_factory: pytest.TempPathFactory, tiny_weights: Path) -> Reader:
    """`~/raypath`, and `~/text-service` as the tutorial makes it; each is kept aside to start every document anew."""
    home = tmp_path_factory.mktemp("home")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        reader = Reader(home, tiny_weights, probe.getsockname()[1])
    template = copy_template(home / "raypath")
    git = ["git", "-C", str(template), "-c", "user.name=t", "-c", "user.email=t@example.com"]
    subprocess.run([*git, "init", "--quiet", "--initial-branch=main"], check=True)
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "--quiet", "-m", "template"], check=True)
    copy_anew(template, home / ".kept" / "raypath")
    made = "copier copy ~/raypath ~/text-service && cd ~/text-service && git init -q && git add . && git commit -qm 1"
    reader.run(made, "the service of the documents")
    copy_anew(home / "text-service", home / ".kept" / "text-service")
    return reader


@pytest.fixture
def reader(home_with_service: Reader) -> Reader:
    for name in ("raypath", "text-service"):
        copy_anew(home_with_service.home / ".kept" / name, home_with_service.home / name)
    return home_with_service
