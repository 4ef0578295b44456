"""Index documents for the search: `python -m jobs.index_documents FILE`, JSON Lines or Parquet.

A document has an `id`, a `text` and `metadata` to filter by (in Parquet: every other column). The whole file is checked
first. The index is built beside the one that is served, under a name made of the embedding model and of the documents,
and is served once it holds all of them. A run that was stopped at any point is simply run again: what the index holds
already is not embedded twice. Indexes that were served before stay until `--prune` deletes them.
"""

import argparse
import asyncio
import importlib
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from json import JSONDecodeError
from pathlib import Path
from typing import Any

from tqdm import tqdm

from jobs.documents import DocumentError, Survey, check_unchanged, read, survey
from service.retrieval import embedder
from service.runtime.configured_models import configured_models
from service.runtime.device import claim_device
from service.runtime.interface import Model, Tokens
from service.runtime.partition import fit_cost_model, partition
from service.runtime.retrieval import Document, NotIndexed, RetrievalSettings
from service.runtime.settings import SettingsError
from service.runtime.vector_index import DatabaseError, IndexWriter, load_retrieval_settings

# Documents that are sorted by length together: enough that batches hold texts of the same length.
WINDOW = 2048
# Documents in one write, and writes at once.
WRITE, WRITES = 256, 4
LINE_EVERY_S = 10.0
# Some databases count what was written only after a while.
COUNT_S = 60.0
GOES_ON = "; run it again, and it goes on from here"
# As a shell says of a program that Ctrl-C has ended.
INTERRUPTED = 130

Embedded = tuple[list[Document], list[list[float]]]


class IndexingError(RuntimeError):
    """An index that is not complete; the one that was served is served on."""


class DocumentEmbedder:
    """The embedding model in this process: vectors of documents, in batches of least cost."""

    def __init__(self, name: str) -> None:
        models = configured_models()
        if name not in models:
            raise SettingsError(f"config/retrieval.yaml names the embedder {name!r}, which is no model here")
        self._settings, self._limits = models[name]
        module = importlib.import_module(f"service.models.{self._settings.module}")
        self._instance = module.Instance
        self._model: Model = module.Model(self._settings, claim_device(self._settings))
        self._most_tokens = min(self._model.max_tokens, self._limits.max_batch_tokens)
        self._cost = fit_cost_model(
            run=lambda items, length: self._model.predict([self._model.sample(length)] * items),
            max_items=self._limits.max_batch_size,
            max_tokens=self._limits.max_batch_tokens,
            longest=self._model.max_tokens,
        )
        self.dimension = len(embedder.vector(self._model.predict([self._model.sample(1)])[0]))
        self.cut = 0

    def embed(self, documents: Sequence[Document]) -> Iterator[Embedded]:
        """The documents of each batch and their vectors, the shortest first.

        Raises IndexingError for a document over the token limit when the model refuses those; else `cut` counts it.
        """
        tokens = self._tokens(documents)
        order = sorted(range(len(documents)), key=lambda n: len(tokens[n].ids))
        lengths = [len(tokens[n].ids) for n in order]
        start = 0
        for end in partition(lengths, self._cost, self._limits.max_batch_size, self._limits.max_batch_tokens):
            batch = order[start:end]
            start = end
            predictions = self._model.predict([tokens[n] for n in batch])
            yield [documents[n] for n in batch], [embedder.vector(one) for one in predictions]

    def _tokens(self, documents: Sequence[Document]) -> list[Tokens]:
        instances = [self._instance.model_validate(embedder.document(document.text)) for document in documents]
        tokens = self._model.encode(instances, self._most_tokens)
        long = [document.id for document, item in zip(documents, tokens, strict=True) if item.truncated]
        if long and self._settings.long_text == "refuse":
            raise IndexingError(f"{len(long)} documents have more than {self._most_tokens} tokens, {long[0]!r} first")
        self.cut += len(long)
        return tokens


def windows(path: Path, found: Survey) -> Iterator[list[Document]]:
    """The documents of a file, WINDOW at a time; DocumentError before one that was not there when it was checked."""
    documents, count = read(path), 0
    while window := list(islice(documents, WINDOW)):
        check_unchanged(window, found.digests, path)
        count += len(window)
        yield window
    if count != found.count:
        raise DocumentError(f"{path} changed while it was indexed: run it again")


async def write_window(
    writer: IndexWriter, documents: Sequence[Document], model: DocumentEmbedder, done: Callable[[int], None]
) -> None:
    """Embed and write what the index does not hold of a window; embedding goes on while writes are under way.

    done: is told of documents that are in the index.
    """
    held = await writer.present([document.id for document in documents])
    done(len(held))
    batches = model.embed([document for document in documents if document.id not in held])
    room = asyncio.Semaphore(WRITES)

    async def write(some: Embedded) -> None:
        try:
            await writer.upsert(*some)
        finally:
            room.release()
        done(len(some[0]))

    async with asyncio.TaskGroup() as writes:
        waiting: Embedded = ([], [])
        while (batch := await asyncio.to_thread(next, batches, None)) is not None:
            waiting[0].extend(batch[0])
            waiting[1].extend(batch[1])
            if len(waiting[0]) >= WRITE:
                await room.acquire()
                writes.create_task(write(waiting))
                waiting = ([], [])
        if waiting[0]:
            await room.acquire()
            writes.create_task(write(waiting))


class Progress:
    """A bar with rate and time left on a terminal, a line every LINE_EVERY_S elsewhere."""

    def __init__(self, total: int) -> None:
        self._bar = tqdm(total=total, disable=None, unit="doc")
        self._total, self._done = total, 0
        self._started_s = self._line_s = time.monotonic()

    def add(self, documents: int) -> None:
        self._done += documents
        self._bar.update(documents)
        now_s = time.monotonic()
        if self._bar.disable and now_s - self._line_s > LINE_EVERY_S:
            self._line_s = now_s
            rate = self._done / (now_s - self._started_s)
            left_s = (self._total - self._done) / rate if rate else 0
            print(f"{self._done} of {self._total} documents, {rate:.0f}/s, {left_s:.0f} s left", flush=True)

    def close(self) -> None:
        self._bar.close()


def build_name(settings: RetrievalSettings, found: Survey) -> str:
    """The name of the index of these documents by this model: a run that goes on finds it by itself."""
    return f"{settings.alias}-{found.fingerprint[:12]}"


async def finish(writer: IndexWriter, build: str, count: int, prune: bool) -> None:
    """Serve the index if it holds `count` documents, and say what is left over. Raises IndexingError."""
    until_s = time.monotonic() + COUNT_S
    while (held := await writer.count()) != count and time.monotonic() < until_s:
        await asyncio.sleep(1)
    if held != count:
        raise IndexingError(f"the index {build} holds {held} documents and should hold {count}: it is not served")
    try:
        before = await writer.unserved()
    except NotIndexed:  # the first
        before = {}
    await writer.serve()
    print(f"{count} documents are served from {build}")
    for name, once in (await writer.unserved()).items():
        if not once:
            print(f"{name} stays, as another job may be building it: if none is, delete it in the database")
        # Replicas may read for a moment yet what was served until now.
        elif prune and before.get(name) and await writer.drop(name):
            print(f"{name} is deleted")
        else:
            print(f"{name} is no longer served: the next `--prune` deletes it")


async def build(path: Path, found: Survey, settings: Any, model: DocumentEmbedder, prune: bool) -> None:
    """Raises DocumentError, IndexingError, SettingsError, or what the database's client raises."""
    name = build_name(settings, found)
    writer = IndexWriter(settings)
    progress = Progress(found.count)
    try:
        await writer.begin(name, model.dimension, found.fields)
        for window in windows(path, found):
            await write_window(writer, window, model, progress.add)
        progress.close()
        if model.cut:
            print(f"{model.cut} documents were longer than the model reads, and cut")
        await finish(writer, name, found.count, prune)
    finally:
        progress.close()
        await writer.close()


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m jobs.index_documents", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("file", type=Path, help="JSON Lines, or Parquet if it ends in .parquet")
    parser.add_argument("--prune", action="store_true", help="then delete indexes that were no longer served before")
    return parser.parse_args()


def told(error: BaseException) -> str | None:
    """What a person is told of an error that a person can do something about; None of any other."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, (JSONDecodeError, UnicodeDecodeError)):  # a client raises it as it is
        return f"not indexed: VECTOR_DB_URL answers no JSON: is it the address of the database? ({error}){GOES_ON}"
    if not isinstance(error, (DocumentError, IndexingError, SettingsError, TimeoutError, *DatabaseError)):
        return None
    again = "" if isinstance(error, DocumentError) else GOES_ON
    return f"not indexed: {type(error).__name__}: {error}{again}"


def main() -> None:
    options = arguments()
    try:
        found, settings = survey(options.file), load_retrieval_settings()
        asyncio.run(build(options.file, found, settings, DocumentEmbedder(settings.embedder), options.prune))
    except KeyboardInterrupt:
        print(f"not indexed: stopped{GOES_ON}", file=sys.stderr)
        sys.exit(INTERRUPTED)
    except Exception as error:
        if (words := told(error)) is None:
            raise
        sys.exit(words)


if __name__ == "__main__":
    main()
