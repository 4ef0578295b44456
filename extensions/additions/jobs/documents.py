"""Documents to index, from JSON Lines or Parquet: read one by one, checked, with the line or row of what is wrong."""

import hashlib
import json
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from service.runtime.retrieval import Document
from service.runtime.settings import explain

Digests = npt.NDArray[np.uint64]


class DocumentError(ValueError):
    """A file that cannot be indexed; the message names the file, the place and what is wrong."""


@dataclass(frozen=True)
class Survey:
    """What is known of a file once it was read through. fields: of the metadata, by type (bool, int, float or str).

    fingerprint: the same for the same documents in the same order, whatever the kind of file. digests: one of each
    document, sorted.
    """

    count: int
    fields: dict[str, type]
    fingerprint: str
    digests: Digests


def content_of(document: Document) -> bytes:
    return json.dumps(document.model_dump(), sort_keys=True).encode()


def digest_of(content: bytes) -> int:
    """64 bits tell by accident one of two documents for the other as rarely as disks do."""
    return int.from_bytes(hashlib.sha256(content).digest()[:8], "big")


def check_unchanged(documents: Sequence[Document], digests: Digests, file: Path | str) -> None:
    """Raises DocumentError for a document that is not among those whose sorted digests these are."""
    found = np.array([digest_of(content_of(document)) for document in documents], np.uint64)
    places = np.minimum(np.searchsorted(digests, found), len(digests) - 1)
    if (digests[places] != found).any():
        raise DocumentError(f"{file} changed while it was indexed: run it again")


def document_of_line(line: str) -> Document:
    """Raises ValidationError."""
    return Document.model_validate_json(line)


def document_of_row(row: dict[str, Any]) -> Document:
    """A row of Parquet: every column but `id` and `text` is metadata. Raises ValidationError."""
    metadata = {key: value for key, value in row.items() if key not in ("id", "text") and value is not None}
    return Document.model_validate({"id": row.get("id"), "text": row.get("text"), "metadata": metadata})


def read(path: Path) -> Iterator[Document]:
    """The documents of a file, one after the other, never the whole file. Raises DocumentError."""
    number = 0
    try:
        if path.exists() and not path.is_file():
            raise DocumentError(f"{path} is no regular file, and it is read twice: write the documents to one")
        if path.suffix == ".parquet":
            with pq.ParquetFile(path) as file:
                for batch in file.iter_batches(1024):
                    for row in batch.to_pylist():
                        number += 1
                        yield document_of_row(row)
        else:
            with path.open(encoding="utf-8-sig") as lines:
                for line in lines:
                    number += 1
                    if line.strip():
                        yield document_of_line(line)
    except ValidationError as error:
        raise DocumentError(f"{path}, document {number}, cannot be used:\n{explain(error)}") from None
    except (OSError, UnicodeDecodeError, pa.ArrowException) as error:
        raise DocumentError(f"{path} cannot be read: {error}") from None


def survey(path: Path) -> Survey:
    """Read a file through, so that nothing is written of one that has a fault. Raises DocumentError."""
    digest = hashlib.sha256()
    digests = array("Q")
    seen: set[str] = set()
    fields: dict[str, type] = {}
    for document in read(path):
        if document.id in seen:
            raise DocumentError(f"{path} has the id {document.id!r} twice: an index holds one document of each id")
        seen.add(document.id)
        content = content_of(document)
        digest.update(content)
        digests.append(digest_of(content))
        for name, value in document.metadata.items():
            kind = str if isinstance(value, list) else type(value)
            if {kind, fields.get(name)} == {int, float}:
                kind = float
            if fields.setdefault(name, kind) is not kind and kind is not float:
                raise DocumentError(
                    f"{path}: {name} of document {document.id!r} is {kind.__name__} and was {fields[name].__name__} "
                    "before: a field to filter by has one type"
                )
            fields[name] = kind
    if not seen:
        raise DocumentError(f"{path} has no documents")
    return Survey(len(seen), fields, digest.hexdigest(), np.sort(np.frombuffer(digests, np.uint64)))
