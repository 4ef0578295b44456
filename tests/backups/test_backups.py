"""The backup and restore jobs of a rendered service, run as its CronJob and its runbook run them."""

from __future__ import annotations

import hashlib
import json
import os
import random
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import pytest
import trustme
from moto.server import ThreadedMotoServer

from tests.backups.nodes import KEY, Cluster, running
from tests.rendering import compiled_once, render
from tests.store import free_port
from tests.variants import AXES

BUCKET, PREFIX = "backups-of-search", "text-service"
ADDRESS = f"s3://{BUCKET}/{PREFIX}"
LARGE_BYTES = 20 * 2**20  # several parts of an upload


def part(documents: int, size_bytes: int) -> bytes:
    """What a node holds of a collection; ends in bytes that text would lose."""
    return documents.to_bytes(4, "big") + random.Random(documents).randbytes(size_bytes) + b"\r\n\0"


@dataclass
class Store:
    """An S3 server of our own."""

    url: str
    environment: dict[str, str] = field(init=False)

    def __post_init__(self) -> None:
        self.environment = {
            "AWS_ACCESS_KEY_ID": "someone",
            "AWS_SECRET_ACCESS_KEY": "something",
            "AWS_REGION": "eu-central-1",
            "AWS_DEFAULT_REGION": "eu-central-1",
            "AWS_ENDPOINT_URL_S3": self.url,
        }
        self.client: Any = boto3.client(
            "s3",
            endpoint_url=self.url,
            region_name="eu-central-1",
            aws_access_key_id="someone",
            aws_secret_access_key="something",
        )

    def held(self) -> list[str]:
        return [each["Key"] for each in self.client.list_objects_v2(Bucket=BUCKET).get("Contents", [])]

    def read(self, key: str) -> bytes:
        content: bytes = self.client.get_object(Bucket=BUCKET, Key=key)["Body"].read()
        return content

    def backups(self) -> set[str]:
        return {key.split("/")[1] for key in self.held() if key.startswith(f"{PREFIX}/")}

    def complete(self) -> list[str]:
        return sorted(key.split("/")[1] for key in self.held() if key.endswith("/complete.json"))

    def plant(self, name: str, complete: bool = True) -> None:
        """An older backup, with a file of its own."""
        for path in ["qdrant-0/old.snapshot", *(["complete.json"] if complete else [])]:
            self.client.put_object(Bucket=BUCKET, Key=f"{PREFIX}/{name}/{path}", Body=b"{}")


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    port = free_port()
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=port, verbose=False)
    server.start()
    yield f"http://127.0.0.1:{port}"
    server.stop()


@pytest.fixture
def store(s3: str) -> Iterator[Store]:
    store = Store(s3)
    store.client.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": "eu-central-1"})
    yield store
    for key in store.held():
        store.client.delete_object(Bucket=BUCKET, Key=key)
    store.client.delete_bucket(Bucket=BUCKET)


@pytest.fixture(scope="module")
def folder(template: Path, made_once: Callable[[str, Callable[[Path], object]], Path]) -> Path:
    def make(folder: Path) -> None:
        with compiled_once():
            render(template, folder, AXES["vector_db"]["qdrant_self_hosted"])

    return made_once("backed-up", make)


def filled(cluster: Cluster) -> Cluster:
    cluster.put("documents-1", [part(100, LARGE_BYTES), part(200, 1000), part(300, 1000)])
    cluster.put("documents 2/ä", [part(1, 10), part(2, 10), part(3, 10)])
    cluster.aliases["documents"] = "documents-1"
    return cluster


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with running(filled(Cluster())) as cluster:
        yield cluster


@dataclass
class Jobs:
    """Starts a job of the service, in a process like its pod's."""

    folder: Path
    store: Store

    def __call__(
        self, job: str, cluster: Cluster, *options: str, address: str = ADDRESS, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", f"jobs.{job}_qdrant", f"--bucket={address}", *options]
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "VECTOR_DB_"))}
        return subprocess.run(
            [*command, "--pods", *(node.url for node in cluster.nodes)],
            cwd=self.folder,
            env={**kept, **self.store.environment, "VECTOR_DB_API_KEY": KEY, "PYTHONPATH": ".", **environment},
            check=False,
            capture_output=True,
            text=True,
            timeout=120,
        )


@pytest.fixture
def run(folder: Path, store: Store) -> Jobs:
    return Jobs(folder, store)


def last_line(done: subprocess.CompletedProcess[str]) -> str:
    return done.stderr.strip().splitlines()[-1]


def emptied(cluster: Cluster) -> list[dict[str, bytes]]:
    """Take everything from the nodes, and return it."""
    parts = [dict(node.parts) for node in cluster.nodes]
    for node in cluster.nodes:
        node.parts.clear()
    cluster.aliases.clear()
    return parts


def test_a_backup_holds_every_collection_of_every_node_the_aliases_and_what_it_is(
    run: Jobs, store: Store, cluster: Cluster
) -> None:
    done = run("backup", cluster)
    assert done.returncode == 0, done.stderr
    (backup,) = store.complete()
    assert f"{ADDRESS}/{backup} is complete" in done.stdout
    complete = json.loads(store.read(f"{PREFIX}/{backup}/complete.json"))
    assert len(complete["snapshots"]) == 6
    assert complete["version"] == "1.19.0"
    assert complete["points"] == {"documents-1": 600, "documents 2/ä": 6}
    for snapshot in complete["snapshots"]:
        content = store.read(f"{PREFIX}/{backup}/{snapshot['key']}")
        node = cluster.nodes[int(snapshot["pod"].removeprefix("qdrant-"))]
        assert content == node.parts[snapshot["collection"]]
        assert (len(content), hashlib.sha256(content).hexdigest()) == (snapshot["size_bytes"], snapshot["sha256"])
    aliases = json.loads(store.read(f"{PREFIX}/{backup}/aliases.json"))
    assert aliases == [{"alias_name": "documents", "collection_name": "documents-1"}]
    assert len(store.held()) == 8


def test_no_snapshot_stays_on_a_node(run: Jobs, cluster: Cluster) -> None:
    assert run("backup", cluster).returncode == 0
    assert [node.made for node in cluster.nodes] == [2, 2, 2]
    assert all(not node.snapshots for node in cluster.nodes)


def test_a_large_snapshot_is_uploaded_in_parts(run: Jobs, store: Store, cluster: Cluster) -> None:
    assert run("backup", cluster).returncode == 0
    (backup,) = store.complete()
    head = store.client.head_object(Bucket=BUCKET, Key=f"{PREFIX}/{backup}/qdrant-0/documents-1.snapshot")
    assert head["ContentLength"] == len(cluster.nodes[0].parts["documents-1"])
    assert head["ETag"].strip('"').endswith("-3")


def test_a_restore_brings_back_every_byte_and_the_aliases(run: Jobs, store: Store, cluster: Cluster) -> None:
    assert run("backup", cluster).returncode == 0
    had = emptied(cluster)
    done = run("restore", cluster, "--backup", "newest")
    assert done.returncode == 0, done.stderr
    assert [node.parts for node in cluster.nodes] == had
    assert cluster.aliases == {"documents": "documents-1"}
    assert "documents-1 (600 documents)" in done.stdout


def test_backups_are_listed_and_one_is_restored_by_its_name(run: Jobs, store: Store, cluster: Cluster) -> None:
    store.plant("20200101T000000Z", complete=False)
    assert run("backup", cluster).returncode == 0
    (backup,) = store.complete()
    listed = run("restore", cluster)
    assert listed.stdout.splitlines() == [f"{backup}  complete", "20200101T000000Z  not complete"]
    emptied(cluster)
    assert run("restore", cluster, "--backup", backup).returncode == 0
    assert cluster.collections()


def test_everything_goes_over_tls_with_an_authority_of_ones_own(run: Jobs, store: Store, tmp_path: Path) -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.cert_pem.write_to_path(tmp_path / "ca.crt")
    with running(filled(Cluster(context))) as cluster:
        done = run("backup", cluster, VECTOR_DB_CA=str(tmp_path / "ca.crt"))
        assert done.returncode == 0, done.stderr
        refused = run("backup", cluster)
        assert refused.returncode == 1
        assert "certificate verify failed" in refused.stderr


@pytest.mark.parametrize("down", [0, 2])
def test_when_a_node_is_down_the_others_are_backed_up_and_the_job_fails(
    run: Jobs, store: Store, cluster: Cluster, down: int
) -> None:
    cluster.nodes[down].stop()
    done = run("backup", cluster)
    assert done.returncode == 1
    assert "is not complete, and no old one is deleted" in done.stderr
    assert f"qdrant-{down} does not back up collection documents-1" in done.stderr
    assert cluster.nodes[down].url in done.stderr
    assert "Traceback" not in done.stderr
    assert len([key for key in store.held() if key.endswith(".snapshot")]) == 4
    assert not store.complete()


def test_a_node_that_dies_while_it_sends_spoils_its_own_part_only(run: Jobs, store: Store, cluster: Cluster) -> None:
    cluster.nodes[1].die_while_sending = "documents-1"
    done = run("backup", cluster)
    assert done.returncode == 1
    assert "qdrant-1 does not back up collection documents-1" in done.stderr
    assert "Traceback" not in done.stderr
    kept = {key.split("/", 2)[2] for key in store.held()}
    assert "qdrant-2/documents-1.snapshot" in kept
    assert not any(key.startswith("qdrant-1/documents-1") for key in kept)
    assert not store.complete()


def test_a_snapshot_that_arrives_changed_is_not_kept(run: Jobs, store: Store, cluster: Cluster) -> None:
    cluster.nodes[2].corrupt = "documents-1"
    done = run("backup", cluster)
    assert done.returncode == 1
    assert "qdrant-2 does not back up collection documents-1: the node announced" in done.stderr
    assert not any("qdrant-2/documents-1" in key for key in store.held())
    assert all(not node.snapshots for node in cluster.nodes)
    assert not store.complete()


@pytest.mark.parametrize("job", [("backup",), ("restore", "--backup", "newest")])
def test_a_wrong_key_is_told_in_a_sentence(run: Jobs, store: Store, cluster: Cluster, job: tuple[str, ...]) -> None:
    assert run("backup", cluster).returncode == 0
    done = run(job[0], cluster, *job[1:], VECTOR_DB_API_KEY="a-key-of-others")
    assert done.returncode == 1
    assert "answers 401: the key in VECTOR_DB_API_KEY is not the one that the nodes have" in last_line(done)
    assert "a-key-of-others" not in done.stdout + done.stderr
    assert len(store.complete()) == 1


def test_a_bucket_that_is_not_there_is_told_before_a_snapshot_is_made(run: Jobs, cluster: Cluster) -> None:
    done = run("backup", cluster, address="s3://no-such-bucket/text-service")
    assert done.returncode == 1
    assert "the store says:" in last_line(done)
    assert "NoSuchBucket" in last_line(done)
    assert [node.made for node in cluster.nodes] == [0, 0, 0]


@pytest.mark.parametrize(
    "address", ["backups", "s3://backups", "https://backups.example.com/text-service", "s3:///text-service"]
)
def test_an_address_that_is_none_is_refused(run: Jobs, cluster: Cluster, address: str) -> None:
    done = run("backup", cluster, address=address)
    assert done.returncode == 2
    assert "is no place for backups: give s3://BUCKET/SERVICE/NAMESPACE" in last_line(done)


OLD = [f"2026010{day}T021700Z" for day in range(1, 6)]


def test_the_newest_complete_backups_are_kept_and_nothing_else_is_touched(
    run: Jobs, store: Store, cluster: Cluster
) -> None:
    for name in OLD:
        store.plant(name, complete=name not in (OLD[0], OLD[3]))
    others = ["other-service/20260101T021700Z/complete.json", f"{PREFIX}/notes.txt", f"{PREFIX}-2/{OLD[0]}/x"]
    for key in others:
        store.client.put_object(Bucket=BUCKET, Key=key, Body=b"mine")
    done = run("backup", cluster, "--keep", "2")
    assert done.returncode == 0, done.stderr
    (new,) = store.backups() - {*OLD, "notes.txt"}
    # Complete are 2, 3, 5 and the new one: the newest two stay, and nothing older than these does.
    assert store.backups() - {"notes.txt"} == {OLD[4], new}
    assert set(others) <= set(store.held())


def test_incomplete_backups_between_those_that_are_kept_stay(run: Jobs, store: Store, cluster: Cluster) -> None:
    for name in OLD:
        store.plant(name, complete=name != OLD[3])
    assert run("backup", cluster, "--keep", "3").returncode == 0
    assert set(OLD) & store.backups() == {OLD[2], OLD[3], OLD[4]}


def test_nothing_is_deleted_when_the_new_backup_is_not_complete(run: Jobs, store: Store, cluster: Cluster) -> None:
    for name in OLD:
        store.plant(name)
    cluster.nodes[0].stop()
    assert run("backup", cluster, "--keep", "1").returncode == 1
    assert set(OLD) <= store.backups()


def test_fewer_than_one_backup_cannot_be_kept(run: Jobs, cluster: Cluster) -> None:
    done = run("backup", cluster, "--keep", "0")
    assert done.returncode == 2
    assert "--keep is 0: keep at least 1" in last_line(done)


def test_a_backup_that_is_not_complete_is_not_restored(run: Jobs, store: Store, cluster: Cluster) -> None:
    assert run("backup", cluster).returncode == 0
    store.plant("20200101T000000Z", complete=False)
    emptied(cluster)
    done = run("restore", cluster, "--backup", "20200101T000000Z")
    assert done.returncode == 1
    assert "nothing is restored: the backup 20200101T000000Z is not complete; complete ones in" in last_line(done)
    assert store.complete()[0] in last_line(done)
    assert not cluster.collections()


def test_a_backup_that_is_not_there_is_told(run: Jobs, cluster: Cluster) -> None:
    done = run("restore", cluster, "--backup", "newest")
    assert done.returncode == 1
    assert "the backup newest is not there; complete ones in s3://backups-of-search/text-service: none" in done.stderr


def test_what_is_there_is_overwritten_only_when_asked(run: Jobs, store: Store, cluster: Cluster) -> None:
    assert run("backup", cluster).returncode == 0
    good = dict(cluster.nodes[1].parts)
    cluster.nodes[1].parts["documents-1"] = part(7, 7)
    done = run("restore", cluster, "--backup", "newest")
    assert done.returncode == 1
    assert "documents-1 would be overwritten: give --overwrite" in last_line(done)
    assert cluster.nodes[1].parts["documents-1"] == part(7, 7)
    assert run("restore", cluster, "--backup", "newest", "--overwrite").returncode == 0
    assert cluster.nodes[1].parts == good


def test_a_snapshot_that_was_changed_in_the_bucket_is_refused(run: Jobs, store: Store, cluster: Cluster) -> None:
    assert run("backup", cluster).returncode == 0
    (backup,) = store.complete()
    store.client.put_object(Bucket=BUCKET, Key=f"{PREFIX}/{backup}/qdrant-1/documents-1.snapshot", Body=part(9, 9))
    emptied(cluster)
    done = run("restore", cluster, "--backup", "newest")
    assert done.returncode == 1
    assert "qdrant-1 does not restore collection documents-1: status 400" in last_line(done)
    assert "checksum mismatch" in last_line(done)


def test_a_backup_of_another_minor_version_is_refused(run: Jobs, cluster: Cluster) -> None:
    assert run("backup", cluster).returncode == 0
    emptied(cluster)
    cluster.version = "1.20.1"
    done = run("restore", cluster, "--backup", "newest")
    assert done.returncode == 1
    assert "was made with Qdrant 1.19.0 and qdrant-0 runs 1.20.1" in last_line(done)
    cluster.version = "1.19.4"
    assert run("restore", cluster, "--backup", "newest").returncode == 0


def test_what_was_written_to_during_the_backup_is_not_counted(run: Jobs, store: Store, cluster: Cluster) -> None:
    cluster.documents_per_count = 1
    assert run("backup", cluster).returncode == 0
    (backup,) = store.complete()
    assert json.loads(store.read(f"{PREFIX}/{backup}/complete.json"))["points"] == {}
    cluster.documents_per_count = 0
    emptied(cluster)
    done = run("restore", cluster, "--backup", "newest")
    assert done.returncode == 0
    assert "not counted, as they were written to" in done.stdout


def test_documents_that_are_missing_after_a_restore_are_told(run: Jobs, cluster: Cluster) -> None:
    assert run("backup", cluster).returncode == 0
    emptied(cluster)
    cluster.lost = 1
    done = run("restore", cluster, "--backup", "newest")
    assert done.returncode == 1
    assert last_line(done).startswith("not all is restored: ")
    assert "documents-1 holds 599 documents of 600" in last_line(done)
