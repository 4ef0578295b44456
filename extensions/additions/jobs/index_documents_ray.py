"""Index documents on a Ray cluster: `python -m jobs.index_documents_ray FILE --workers 4 --gpus 0.5`.

As `jobs.index_documents`, with the same promises and the same index; Ray Data reads the file and hands windows of it to
workers, each with the embedding model and a share of a GPU. FILE must be at the same place on every node.
"""

import argparse
import asyncio
import sys
from pathlib import Path
from typing import Any

import numpy as np
import ray
import ray.data
from ray.exceptions import RayError

from jobs.documents import DocumentError, document_of_line, document_of_row, survey
from jobs.index_documents import WINDOW, DocumentEmbedder, IndexingError, build_name, finish, write_window
from service.runtime.retrieval import Document
from service.runtime.settings import SettingsError
from service.runtime.vector_index import DatabaseError, IndexWriter, load_retrieval_settings


class WindowWriter:
    """Embeds and writes windows of documents. One in each worker."""

    def __init__(self, build: str, fields: dict[str, type]) -> None:
        self._settings = load_retrieval_settings()
        self._model = DocumentEmbedder(self._settings.embedder)
        self._build, self._fields = build, fields

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        rows = [dict(zip(batch, values, strict=True)) for values in zip(*batch.values(), strict=True)]
        documents = [document_of_line(row["text"]) if "id" not in row else _of(row) for row in rows]
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


def _of(row: dict[str, Any]) -> Document:
    """Columns come as numpy's own types."""
    plain = {key: value.item() if isinstance(value, np.generic) else value for key, value in row.items()}
    return document_of_row(plain)


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
    rows = ray.data.read_parquet(str(path)) if path.suffix == ".parquet" else ray.data.read_text(str(path))
    written = rows.repartition(target_num_rows_per_block=WINDOW).map_batches(
        WindowWriter,
        fn_constructor_args=(build, found.fields),
        batch_size=WINDOW,
        concurrency=workers,
        num_cpus=1,
        num_gpus=gpus,
    )
    totals = written.sum(["documents", "cut"])
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
    except (DocumentError, IndexingError, SettingsError, TimeoutError, RayError, *DatabaseError) as error:
        sys.exit(f"not indexed: {type(error).__name__}: {error}")


if __name__ == "__main__":
    main()
