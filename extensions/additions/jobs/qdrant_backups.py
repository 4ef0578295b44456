"""What backing up and restoring the vector database share: its nodes, and the place where backups lie.

A backup is a folder `<time>/` under `s3://BUCKET/PREFIX/`, with a snapshot per node and collection in
`<node>/<collection>.snapshot`, the aliases in `aliases.json`, and `complete.json`, which is written last: a backup
without it is none. The object store's address and credentials come from where boto3 looks for them (AWS_... in the
environment, or a role); the key of the nodes from VECTOR_DB_API_KEY, and their authority's certificate, a path, from
VECTOR_DB_CA.
"""

import argparse
import os
import re
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote, urlsplit

import boto3
import httpx
from boto3.exceptions import Boto3Error
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from pydantic import BaseModel

PODS = [f"https://qdrant-{number}.qdrant-headless:6333" for number in range(3)]
BACKUP = re.compile(r"\d{8}T\d{6}Z")
# A node answers a request to make or to take in a snapshot when it is done, which takes long for a large one.
SNAPSHOT_S = 3600.0
REQUEST_S = 30.0
REFUSED = (401, 403)

StoreError = (BotoCoreError, ClientError, Boto3Error)


class PodError(Exception):
    """A node did not do what it was asked to; the text says which, what, and why."""


class KeyRefused(Exception):
    """The nodes do not accept the key: no use in asking the others."""


class Snapshot(BaseModel):
    """key: where it lies under the backup's folder."""

    pod: str
    collection: str
    key: str
    size_bytes: int
    sha256: str


class Complete(BaseModel):
    """`complete.json`. points: by collection; absent where documents were written while the backup was made."""

    version: str
    snapshots: list[Snapshot]
    points: dict[str, int]


class Pod:
    """One node of the database, named `qdrant-N` by its place in `--pods`. Requests raise PodError or KeyRefused."""

    def __init__(self, number: int, url: str, key: str | None, ca: str | None) -> None:
        self.name, self.url = f"qdrant-{number}", url.rstrip("/")
        self.client = httpx.Client(
            base_url=self.url,
            headers={"api-key": key} if key else {},
            timeout=httpx.Timeout(REQUEST_S, connect=10),
            transport=httpx.HTTPTransport(
                retries=2, verify=ssl.create_default_context(cafile=ca) if url.startswith("https") else True
            ),
        )

    @contextmanager
    def explained(self, doing: str) -> Iterator[None]:
        """Errors of HTTP inside, in words: which node failed at what, and why."""
        try:
            yield
        except httpx.HTTPStatusError as error:
            answer = error.response
            if answer.status_code in REFUSED:
                raise KeyRefused(
                    f"{self.name} ({self.url}) answers {answer.status_code}: the key in VECTOR_DB_API_KEY is not the "
                    f"one that the nodes have; give them and this job the same Secret"
                ) from None
            raise PodError(f"{self.name} {doing}: status {answer.status_code}, {answer.text[:300].strip()}") from None
        except httpx.HTTPError as error:
            raise PodError(f"{self.name} {doing}: {self.url} gave {type(error).__name__}: {error}") from None

    def ask(self, method: str, path: str, doing: str, timeout_s: float = REQUEST_S, **request: Any) -> Any:
        """The JSON that a request gets."""
        with self.explained(doing):
            timeout = httpx.Timeout(timeout_s, connect=10)
            answer = self.client.request(method, path, timeout=timeout, **request).raise_for_status()
        try:
            return answer.json()
        except ValueError:
            raise PodError(f"{self.name} {doing}: {self.url} answers no JSON, but {answer.text[:100]!r}") from None

    def collections(self) -> list[str]:
        found = self.ask("GET", "/collections", "does not list its collections")
        return sorted(each["name"] for each in found["result"]["collections"])

    def points(self, collection: str) -> int:
        """The exact number of points on all nodes together."""
        path, doing = f"/collections/{quoted(collection)}/points/count", f"does not count collection {collection}"
        return int(self.ask("POST", path, doing, SNAPSHOT_S, json={"exact": True})["result"]["count"])

    def version(self) -> str:
        return str(self.ask("GET", "/", "does not tell its version")["version"])


class Bucket:
    """The backups under one `s3://BUCKET/PREFIX`; never touches a key outside. Raises StoreError."""

    def __init__(self, address: str) -> None:
        """Raises ValueError with the remedy."""
        parts = urlsplit(address)
        if parts.scheme != "s3" or not parts.netloc or not parts.path.strip("/"):
            raise ValueError(f"{address!r} is no place for backups: give s3://BUCKET/SERVICE/NAMESPACE")
        self.name, self.prefix = parts.netloc, f"{parts.path.strip('/')}/"
        retries = {"max_attempts": 3, "mode": "standard"}
        self.client = boto3.client("s3", config=Config(connect_timeout=10, read_timeout=60, retries=retries))

    def __str__(self) -> str:
        return f"s3://{self.name}/{self.prefix.rstrip('/')}"

    def keys(self, backup: str = "") -> list[str]:
        """Every key of a backup, or of all."""
        pages = self.client.get_paginator("list_objects_v2").paginate(
            Bucket=self.name, Prefix=f"{self.prefix}{backup}{'/' if backup else ''}"
        )
        return [each["Key"] for page in pages for each in page.get("Contents", [])]

    def backups(self) -> dict[str, bool]:
        """Name of each backup -> whether it is complete; the newest first."""
        found: dict[str, bool] = {}
        for key in self.keys():
            name, _, rest = key.removeprefix(self.prefix).partition("/")
            if BACKUP.fullmatch(name) and rest:
                found[name] = found.get(name, False) or rest == "complete.json"
        return dict(sorted(found.items(), reverse=True))

    def key(self, backup: str, path: str) -> str:
        return f"{self.prefix}{backup}/{path}"

    def put(self, backup: str, path: str, text: str) -> None:
        self.client.put_object(Bucket=self.name, Key=self.key(backup, path), Body=text.encode())

    def open(self, backup: str, path: str) -> Any:
        """The object, to be read in pieces."""
        return self.client.get_object(Bucket=self.name, Key=self.key(backup, path))["Body"]

    def delete(self, backup: str) -> None:
        """Delete a backup; what tells that it is complete goes first, so that a half of one is never taken for one."""
        for key in sorted(self.keys(backup), key=lambda key: not key.endswith("/complete.json")):
            self.client.delete_object(Bucket=self.name, Key=key)


def quoted(name: str) -> str:
    """A name as a part of a path."""
    return quote(name, safe="")


def options_of(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """The options of a job, with those that both jobs have: `bucket` is a Bucket, `pods` are Pods."""
    parser.add_argument("--bucket", required=True, help="where backups lie, s3://BUCKET/SERVICE/NAMESPACE")
    parser.add_argument(
        "--pods", nargs="+", default=PODS, metavar="URL", help="every node, by number (default: of this namespace)"
    )
    options = parser.parse_args()
    key, ca = os.environ.get("VECTOR_DB_API_KEY"), os.environ.get("VECTOR_DB_CA")
    # As the service checks it, whose code a backup does not depend on: httpx prints such a key whole in what it raises.
    if key and not (key.isascii() and key.isprintable() and key == key.strip()):
        parser.error(
            "VECTOR_DB_API_KEY begins or ends with a space or a line break, or holds a character that cannot be sent: "
            "write it anew, with `printf %s` where it was `echo`"
        )
    try:
        options.bucket = Bucket(options.bucket)
        options.pods = [Pod(number, url, key, ca) for number, url in enumerate(options.pods)]
    except ValueError as error:
        parser.error(str(error))
    except OSError as error:
        parser.error(f"VECTOR_DB_CA is {ca!r}: it cannot be read as a file of certificates: {error}")
    return options
