"""Back up the vector database to object storage: `python -m jobs.backup_qdrant --bucket s3://BUCKET/SERVICE/NAMESPACE`.

A snapshot of Qdrant holds what one node has of one collection, so every node is asked for every collection. A snapshot
goes to the bucket in pieces, is compared by size and checksum, and is deleted on the node. When all are there, the
backup is complete, and complete ones beyond the newest `--keep` are deleted with whatever is older. When something
failed, the rest is kept, nothing is deleted, and the exit status is 1: run it again.
"""

import argparse
import contextlib
import hashlib
import json
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import product
from typing import Any

import httpx
from boto3.s3.transfer import TransferConfig
from tqdm import tqdm

from jobs.qdrant_backups import (
    SNAPSHOT_S,
    Bucket,
    Complete,
    KeyRefused,
    Pod,
    PodError,
    Snapshot,
    StoreError,
    options_of,
    quoted,
)

# A store takes at most 10,000 parts of one object.
SMALLEST_PART_BYTES, MOST_PARTS = 8 * 2**20, 9_000


class Download:
    """A snapshot on its way: a file to read from, that counts and digests what passes."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self.size_bytes, self._digest = 0, hashlib.sha256()
        self._chunks, self._rest = chunks, b""

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()

    def read(self, size: int = -1) -> bytes:
        parts, missing = [self._rest], size - len(self._rest)
        while (size < 0 or missing > 0) and (chunk := next(self._chunks, b"")):
            parts.append(chunk)
            missing -= len(chunk)
        data = b"".join(parts)
        size = len(data) if size < 0 else size
        data, self._rest = data[:size], data[size:]
        self.size_bytes += len(data)
        self._digest.update(data)
        return data


def transfer(pod: Pod, path: str, made: dict[str, Any], bucket: Bucket, key: str, doing: str) -> tuple[int, str]:
    """Bring a snapshot to the bucket and return its size in bytes and its sha256; raises PodError if it differs."""
    config = TransferConfig(
        use_threads=False,  # one part in memory at a time
        multipart_chunksize=max(SMALLEST_PART_BYTES, made["size"] // MOST_PARTS),
    )
    timeout = httpx.Timeout(60, connect=10)
    with pod.explained(doing), pod.client.stream("GET", path, timeout=timeout) as answer:
        if answer.is_error:
            answer.read()  # what it says is told
        answer.raise_for_status()
        download = Download(answer.iter_raw())
        bucket.client.upload_fileobj(download, bucket.name, key, Config=config)
    stored = bucket.client.head_object(Bucket=bucket.name, Key=key)["ContentLength"]
    checksum = made.get("checksum") or download.sha256
    if (made["size"], checksum) != (stored, download.sha256):
        bucket.client.delete_object(Bucket=bucket.name, Key=key)
        raise PodError(
            f"{pod.name} {doing}: the node announced {made['size']} bytes with sha256 {checksum}, and "
            f"{stored} bytes with {download.sha256} came; the copy is deleted"
        )
    return stored, download.sha256


def back_up(pod: Pod, collection: str, bucket: Bucket, backup: str) -> Snapshot:
    """One snapshot: made, brought to the bucket, and deleted on the node, whatever happens."""
    doing = f"does not back up collection {collection}"
    path = f"/collections/{quoted(collection)}/snapshots"
    made = pod.ask("POST", f"{path}?wait=true", doing, SNAPSHOT_S)["result"]
    path = f"{path}/{quoted(made['name'])}"
    place = f"{pod.name}/{quoted(collection)}.snapshot"
    try:
        size_bytes, sha256 = transfer(pod, path, made, bucket, bucket.key(backup, place), doing)
    except BaseException:
        # What went wrong first is what counts.
        try:
            pod.ask("DELETE", f"{path}?wait=true", doing)
        except (PodError, KeyRefused):
            print(f"{pod.name} keeps the snapshot {made['name']} of {collection}: delete it there", file=sys.stderr)
        raise
    pod.ask("DELETE", f"{path}?wait=true", f"does not delete its snapshot {made['name']} of {collection}")
    return Snapshot(pod=pod.name, collection=collection, key=place, size_bytes=size_bytes, sha256=sha256)


def first_that_answers(pods: list[Pod]) -> tuple[Pod, list[str]]:
    """A node and the collections of the cluster, which every node knows."""
    for pod in pods:
        try:
            return pod, pod.collections()
        except PodError as error:
            failed = error
    raise PodError(f"no node answers; the last one: {failed}")


def counted(pod: Pod, collections: list[str]) -> dict[str, int]:
    """Documents by collection; one that cannot be counted, as nodes are away, is left out and backed up nonetheless."""
    counts = {}
    for collection in collections:
        with contextlib.suppress(PodError):
            counts[collection] = pod.points(collection)
    return counts


def run(pods: list[Pod], bucket: Bucket, backup: str) -> list[str]:
    """Make one backup, and return what failed."""
    bucket.backups()  # a bucket that is not there, or not ours, is told before any snapshot is made
    pod, collections = first_that_answers(pods)
    aliases = pod.ask("GET", "/aliases", "does not list its aliases")["result"]["aliases"]
    version, before = pod.version(), counted(pod, collections)
    failures, snapshots = [], []
    # A bar on a terminal, a line for each snapshot elsewhere.
    for each, collection in tqdm(list(product(pods, collections)), disable=None, unit="snapshot"):
        try:
            snapshots.append(back_up(each, collection, bucket, backup))
        except (PodError, *StoreError) as error:
            text = str(error) if isinstance(error, PodError) else f"{each.name} collection {collection}: {error}"
            failures.append(text)
            line = f"FAILED: {text}"
        else:
            line = f"{each.name} {collection}: {snapshots[-1].size_bytes} bytes"
        if not sys.stderr.isatty():
            print(line, flush=True)
    if failures:
        return failures
    after = counted(pod, collections)
    points = {name: count for name, count in before.items() if after.get(name) == count}
    bucket.put(backup, "aliases.json", json.dumps(aliases))
    complete = Complete(version=version, snapshots=snapshots, points=points)
    bucket.put(backup, "complete.json", complete.model_dump_json(indent=1))
    return []


def forget(bucket: Bucket, keep: int) -> list[str]:
    """Delete what is older than the newest `keep` complete backups, and return the names."""
    backups = bucket.backups()
    complete = [name for name, is_complete in backups.items() if is_complete]
    old = [name for name in backups if len(complete) >= keep and name < complete[keep - 1]]
    for name in old:
        bucket.delete(name)
    return old


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m jobs.backup_qdrant", description=__doc__.partition("\n")[0])
    parser.add_argument("--keep", type=int, default=14, help="complete backups that stay (default: 14)")
    options = options_of(parser)
    if options.keep < 1:
        parser.error(f"--keep is {options.keep}: keep at least 1")
    backup = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
    where = f"{options.bucket}/{backup}"
    try:
        failures = run(options.pods, options.bucket, backup)
        if failures:
            listed = "\n  ".join(failures)
            sys.exit(f"the backup {where} is not complete, and no old one is deleted; run it again:\n  {listed}")
        print(f"the backup {where} is complete")
        if old := forget(options.bucket, options.keep):
            print(f"deleted {', '.join(old)}: the newest {options.keep} are kept")
    except (PodError, KeyRefused) as error:
        sys.exit(f"the backup {where} is not complete: {error}")
    except StoreError as error:
        sys.exit(f"the backup {where} is not complete, or old ones are not deleted; the store says: {error}")


if __name__ == "__main__":
    main()
