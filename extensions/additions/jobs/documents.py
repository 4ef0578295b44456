"""Documents to index, from JSON Lines or Parquet: read one by one, checked, with the line or row of what is wrong."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from pydantic import ValidationError

from service.runtime.retrieval import Document
from service.runtime.settings import explain


class DocumentError(ValueError):
    """A file that cannot be indexed; the message names the file, the place and what is wrong."""


@dataclass(frozen=True)
class Survey:
    """What is known of a file once it was read through. fields: of the metadata, by type (bool, int, float or str).

    fingerprint: the same for the same documents in the same order, whatever the kind of file.
    """

    count: int
    fields: dict[str, type]
    fingerprint: str


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
        if path.suffix == ".parquet":
            with pq.ParquetFile(path) as file:
                for batch in file.iter_batches(1024):
                    for row in batch.to_pylist():
                        number += 1
                        yield document_of_row(row)
        else:
            with path.open(encoding="utf-8") as lines:
                for line in lines:
                    number += 1
                    if line.strip():
                        yield document_of_line(line)
    except ValidationError as error:
        raise DocumentError(f"{path}, document {number}, cannot be used:\n{explain(error)}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DocumentError(f"{path} cannot be read: {error}") from None


def survey(path: Path) -> Survey:
    """Read a file through, so that nothing is written of one that has a fault. Raises DocumentError."""
    digest = hashlib.sha256()
    seen: set[str] = set()
    fields: dict[str, type] = {}
    for document in read(path):
        if document.id in seen:
            raise DocumentError(f"{path} has the id {document.id!r} twice: an index holds one document of each id")
        seen.add(document.id)
        digest.update(json.dumps(document.model_dump(), sort_keys=True).encode())
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
    return Survey(len(seen), fields, digest.hexdigest())
