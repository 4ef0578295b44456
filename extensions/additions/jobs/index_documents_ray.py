"""Index documents on a Ray cluster: `python -m jobs.index_documents_ray FILE --workers 4 --gpus 0.5`.

As `jobs.index_documents`, with the same promises and the same index; Ray Data reads the file and hands windows of it to
workers, each with the embedding model and a share of a GPU. FILE must be at the same place on every node.
"""

import argparse
import asyncio
import io
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import ray
import ray.data
from ray.data.datasource import FileBasedDatasource
from ray.exceptions import RayError, RayTaskError

from jobs.documents import DocumentError, Survey, check_unchanged, document_of_line, document_of_row, survey
from jobs.index_documents import (
    GOES_ON,
    INTERRUPTED,
    WINDOW,
    DocumentEmbedder,
    build_name,
    finish,
    told,
    write_window,
)
from service.runtime.retrieval import Document
from service.runtime.vector_index import IndexWriter, load_retrieval_settings


class Lines(FileBasedDatasource):  # type: ignore[misc]
    """The lines that `jobs.documents` reads: `read_text` ends one also where a text of JSON has U+2028 and the like."""

    def _read_stream(self, f: Any, path: str) -> Iterator[pa.Table]:
        return lines_of(f)


def lines_of(file: Any) -> Iterator[pa.Table]:
    """The lines of an open file that are not blank, in windows."""
    lines = (line for line in io.TextIOWrapper(file, encoding="utf-8-sig") if line.strip())
    while some := list(islice(lines, WINDOW)):
        yield pa.table({"line": some})


def documents_of(batch: pa.Table) -> list[Document]:
    """Rows of Parquet or lines of JSON, in Python's own types as `jobs.documents` gives them."""
    if batch.column_names == ["line"]:
        return [document_of_line(line) for line in batch["line"].to_pylist()]
    return [document_of_row(row) for row in batch.to_pylist()]


class WindowWriter:
    """Embeds and writes windows of documents of `file`. One in each worker."""

    def __init__(self, build: str, found: Survey, file: str) -> None:
        self._settings = load_retrieval_settings()
        self._model = DocumentEmbedder(self._settings.embedder)
        self._build, self._fields = build, found.fields
        self._digests, self._file = found.digests, file

    def __call__(self, batch: pa.Table) -> dict[str, Any]:
        documents = documents_of(batch)
        check_unchanged(documents, self._digests, self._file)
        self._model.cut = 0
        asyncio.run(self._write(documents))
        return {"documents": np.array([len(documents)]), "cut": np.array([self._model.cut])}

    async def _write(self, documents: list[Document]) -> None:
        writer = IndexWriter(self._settings)
        try:
            await writer.begin(self._build, self._model.dimension, self._fields)
            await write_window(writer, documents, self._model, lambda _: None)  # Ray Data shows progress
        finally:
            await writer.close()


def dimension_of(name: str) -> int:
    return DocumentEmbedder(name).dimension


async def begin(build: str, dimension: int, fields: dict[str, type]) -> None:
    """Make the index once, before many workers go on with it."""
    writer = IndexWriter(load_retrieval_settings())
    try:
        await writer.begin(build, dimension, fields)
    finally:
        await writer.close()


async def end(build: str, dimension: int, fields: dict[str, type], count: int, prune: bool) -> None:
    writer = IndexWriter(load_retrieval_settings())
    try:
        await writer.begin(build, dimension, fields)
        await finish(writer, build, count, prune)
    finally:
        await writer.close()


def index(path: Path, workers: int, gpus: float, prune: bool) -> None:
    """Raises DocumentError, IndexingError, SettingsError, or what Ray or the database's client raises."""
    found = survey(path)
    settings = load_retrieval_settings()
    build = build_name(settings, found)
    dimension = ray.get(ray.remote(num_cpus=1, num_gpus=gpus)(dimension_of).remote(settings.embedder))
    asyncio.run(begin(build, dimension, found.fields))
    ray.data.DataContext.get_current().raise_original_map_exception = True  # it is told in words
    if path.suffix == ".parquet":
        rows = ray.data.read_parquet(str(path), partitioning=None)  # a folder `year=2026` is no column
    else:
        rows = ray.data.read_datasource(Lines(str(path)))
    written = rows.repartition(target_num_rows_per_block=WINDOW).map_batches(
        WindowWriter,
        fn_constructor_args=(build, found, str(path)),
        batch_size=WINDOW,
        # In others, whole numbers with gaps become floats and absent ones NaN.
        batch_format="pyarrow",
        concurrency=workers,
        num_cpus=1,
        num_gpus=gpus,
    )
    totals = written.sum(["documents", "cut"])
    if totals["sum(documents)"] != found.count:
        raise DocumentError(f"{path} changed while it was indexed: run it again")
    if totals["sum(cut)"]:
        print(f"{totals['sum(cut)']} documents were longer than the model reads, and cut")
    asyncio.run(end(build, dimension, found.fields, found.count, prune))


def main() -> None:
    described = (__doc__ or "").split("\n")[0]
    parser = argparse.ArgumentParser(prog="python -m jobs.index_documents_ray", description=described)
    parser.add_argument("file", type=Path, help="JSON Lines, or Parquet if it ends in .parquet")
    parser.add_argument("--workers", type=int, default=1, help="copies of the embedding model")
    parser.add_argument("--gpus", type=float, default=0.0, help="share of a GPU for each")
    parser.add_argument("--prune", action="store_true", help="then delete indexes that were no longer served before")
    options = parser.parse_args()
    try:
        index(options.file, options.workers, options.gpus, options.prune)
    except KeyboardInterrupt:
        print(f"not indexed: stopped{GOES_ON}", file=sys.stderr)
        sys.exit(INTERRUPTED)
    except Exception as error:
        words = told(error.cause if isinstance(error, RayTaskError) else error)
        if words is None and not isinstance(error, RayError):
            raise
        sys.exit(words or f"not indexed: {type(error).__name__}: {error}")


if __name__ == "__main__":
    main()
