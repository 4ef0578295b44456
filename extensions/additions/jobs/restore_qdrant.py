"""List backups of the vector database, or restore one: `python -m jobs.restore_qdrant --bucket s3://BUCKET/SERVICE/NAMESPACE`.

`--backup NAME`, or `newest`, restores that backup: every node gets back its part of every collection, then the aliases
are set, then the documents are counted. A backup that is not complete is refused, and so are collections that are there
already, unless `--overwrite` says so. A restore that was stopped is run again with `--overwrite`.
"""

import argparse
import json
import sys
import time

import httpx
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

# Copies that have just been restored may still be joining.
COUNT_S = 15.0


class Refused(Exception):
    """The restore is not begun; the text says why, and what to do."""


def chosen(bucket: Bucket, name: str) -> tuple[str, Complete]:
    """The backup of that name, or the newest complete one, and what it holds."""
    backups = bucket.backups()
    complete = [each for each, is_complete in backups.items() if is_complete]
    if name == "newest" and complete:
        name = complete[0]
    if not backups.get(name):
        why = "is not complete" if name in backups else "is not there"
        raise Refused(f"the backup {name} {why}; complete ones in {bucket}: {', '.join(complete) or 'none'}")
    return name, Complete.model_validate_json(bucket.open(name, "complete.json").read())


def check(backup: Complete, pods: list[Pod], overwrite: bool) -> None:
    """Raises Refused when the backup does not fit these nodes."""
    by_name = {pod.name for pod in pods}
    if lost := {each.pod for each in backup.snapshots} - by_name:
        raise Refused(f"the backup holds parts of {', '.join(sorted(lost))}: name as many nodes with --pods")
    for pod in pods:
        if pod.version().split(".")[:2] != backup.version.split(".")[:2]:
            raise Refused(
                f"the backup was made with Qdrant {backup.version} and {pod.name} runs {pod.version()}: snapshots need "
                f"the same minor version, so run that one, restore, and upgrade then"
            )
    there = sorted({each.collection for each in backup.snapshots} & set(pods[0].collections()))
    if there and not overwrite:
        raise Refused(f"{', '.join(there)} would be overwritten: give --overwrite if what is there may be lost")


def upload(pod: Pod, snapshot: Snapshot, bucket: Bucket, backup: str) -> None:
    """Stream one snapshot from the bucket to its node, which compares the checksum before it uses it."""
    doing = f"does not restore collection {snapshot.collection}"
    with pod.explained(doing):
        pod.client.post(
            f"/collections/{quoted(snapshot.collection)}/snapshots/upload",
            params={"priority": "snapshot", "wait": "true", "checksum": snapshot.sha256},
            files={"snapshot": (snapshot.key.rsplit("/", 1)[-1], bucket.open(backup, snapshot.key))},
            timeout=httpx.Timeout(SNAPSHOT_S, connect=10),
        ).raise_for_status()


def miscounted(pod: Pod, points: dict[str, int]) -> list[str]:
    """Collections that do not hold what was backed up, after giving the nodes a while."""
    deadline = time.monotonic() + COUNT_S
    while True:
        found = {name: pod.points(name) for name in points}
        if found == points or time.monotonic() > deadline:
            break
        time.sleep(1)
    return [f"{name} holds {found[name]} documents of {points[name]}" for name in points if found[name] != points[name]]


def restore(pods: list[Pod], bucket: Bucket, name: str, overwrite: bool) -> None:
    name, backup = chosen(bucket, name)
    check(backup, pods, overwrite)
    by_name = {pod.name: pod for pod in pods}
    # A bar on a terminal, a line for each snapshot elsewhere.
    for snapshot in tqdm(backup.snapshots, disable=None, unit="snapshot"):
        upload(by_name[snapshot.pod], snapshot, bucket, name)
        if not sys.stderr.isatty():
            print(f"{snapshot.pod} {snapshot.collection}: {snapshot.size_bytes} bytes", flush=True)
    aliases = json.loads(bucket.open(name, "aliases.json").read())
    if aliases:
        actions = [{"create_alias": alias} for alias in aliases]
        pods[0].ask("POST", "/collections/aliases", "does not set the aliases", json={"actions": actions})
    if wrong := miscounted(pods[0], backup.points):
        raise PodError(f"{'; '.join(wrong)}: look at the log of the nodes, then run it again with --overwrite")
    uncounted = {each.collection for each in backup.snapshots} - backup.points.keys()
    counted = ", ".join(f"{collection} ({count} documents)" for collection, count in sorted(backup.points.items()))
    print(f"restored {name}: {counted or 'no collection was counted'}")
    if uncounted:
        print(f"not counted, as they were written to while the backup was made: {', '.join(sorted(uncounted))}")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m jobs.restore_qdrant", description=__doc__.partition("\n")[0])
    parser.add_argument("--backup", metavar="NAME", help="the backup to restore, or newest; without it they are listed")
    parser.add_argument("--overwrite", action="store_true", help="replace collections that are there")
    options = options_of(parser)
    try:
        if options.backup:
            restore(options.pods, options.bucket, options.backup, options.overwrite)
            return
        backups = options.bucket.backups()
        for name, is_complete in backups.items():
            print(f"{name}  {'complete' if is_complete else 'not complete'}")
        if not backups:
            print(f"no backup in {options.bucket}")
    except Refused as error:
        sys.exit(f"nothing is restored: {error}")
    except (PodError, KeyRefused) as error:
        sys.exit(f"not all is restored: {error}")
    except StoreError as error:
        sys.exit(f"not all is restored; the store says: {error}")


if __name__ == "__main__":
    main()
