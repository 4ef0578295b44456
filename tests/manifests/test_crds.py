"""`make crds` brings the files that are pinned, or none and a reason."""

from __future__ import annotations

import functools
import hashlib
import http.server
import socket
import socketserver
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from scripts.crds import SOURCES, Source, download
from tests.manifests.schemas import crd_folder

CONTENT = {"one.yaml": b"kind: One\n", "two.yaml": b"kind: Two\n"}
SOURCE = Source(
    "someone/something",
    "v1",
    "0123abc",
    "crds",
    {name: hashlib.sha256(content).hexdigest() for name, content in CONTENT.items()},
)


@pytest.fixture
def mirror(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """The address of a server that has the files, and the folder that it serves them from."""
    folder = tmp_path / "mirror/someone/something/raw/0123abc/crds"
    folder.mkdir(parents=True)
    for name, content in CONTENT.items():
        (folder / name).write_bytes(content)
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path / "mirror"))
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), handler) as server:  # looks no name of itself up
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}", folder
        server.shutdown()


def test_files_are_downloaded_and_say_where_they_come_from(mirror: tuple[str, Path], tmp_path: Path) -> None:
    download([SOURCE], tmp_path / "work/crds", mirror[0])
    assert {path.name for path in (tmp_path / "work/crds").iterdir()} == {*CONTENT, "README.md"}
    assert (tmp_path / "work/crds/one.yaml").read_bytes() == CONTENT["one.yaml"]
    text = (tmp_path / "work/crds/README.md").read_text()
    assert "one.yaml, two.yaml: someone/something v1, commit 0123abc" in text
    assert "Apache License 2.0" in text


def test_files_of_an_older_version_are_replaced(mirror: tuple[str, Path], tmp_path: Path) -> None:
    (tmp_path / "crds").mkdir()
    (tmp_path / "crds/one.yaml").write_text("kind: Older\n")
    download([SOURCE], tmp_path / "crds", mirror[0])
    assert (tmp_path / "crds/one.yaml").read_bytes() == CONTENT["one.yaml"]


def test_a_file_with_another_sum_is_refused_and_nothing_is_left_behind(
    mirror: tuple[str, Path], tmp_path: Path
) -> None:
    (mirror[1] / "two.yaml").write_text("kind: Other\n")
    with pytest.raises(SystemExit, match=r"two\.yaml has the SHA-256 \w{64}, not \w{64}: nothing was kept"):
        download([SOURCE], tmp_path / "crds", mirror[0])
    assert [path.name for path in tmp_path.iterdir()] == ["mirror"]


def test_a_file_that_is_not_there_is_named(mirror: tuple[str, Path], tmp_path: Path) -> None:
    missing = replace(SOURCE, sums={**SOURCE.sums, "three.yaml": "0" * 64})
    with pytest.raises(SystemExit, match=r"crds/three\.yaml cannot be downloaded: .*404"):
        download([missing], tmp_path / "crds", mirror[0])
    assert [path.name for path in tmp_path.iterdir()] == ["mirror"]


def test_without_the_network_it_says_what_to_do(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]  # closed again: nobody listens there
    with pytest.raises(SystemExit, match=r"cannot be downloaded: .*name a mirror with --base"):
        download([SOURCE], tmp_path / "crds", f"http://127.0.0.1:{port}")
    assert not list(tmp_path.iterdir())


def test_the_files_that_the_tests_read_are_those_that_are_pinned() -> None:
    for source in SOURCES:
        for file, expected in source.sums.items():
            assert hashlib.sha256((crd_folder() / file).read_bytes()).hexdigest() == expected, file


def test_every_pinned_file_defines_what_its_name_says() -> None:
    for file in (file for source in SOURCES for file in source.sums):
        spec = yaml.load((crd_folder() / file).read_text(), Loader=yaml.CSafeLoader)["spec"]
        assert file == f"{spec['group']}_{spec['names']['plural']}.yaml"
