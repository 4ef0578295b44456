"""What an index is and becomes, with the stand-ins of both databases: filters, names, switches, what may be deleted.

And what the jobs that write one refuse: files that change, numbers that nobody compares, keys that nobody can send.
"""

import asyncio
import json
import math
import os
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from qdrant_client.common.client_exceptions import ResourceExhaustedResponse

from jobs import index_documents, qdrant_backups
from jobs.documents import DocumentError, read, survey
from service.runtime import retrieval_pinecone
from service.runtime.retrieval import (
    Condition,
    Document,
    NotIndexed,
    RetrievalSettings,
    Retriever,
)
from service.runtime.retrieval_pinecone import PineconeIndexWriter, PineconeRetriever
from service.runtime.retrieval_pinecone import load_retrieval_settings as load_pinecone_settings
from service.runtime.retrieval_qdrant import QdrantIndexWriter, QdrantRetriever, QdrantSettings, load_retrieval_settings
from service.runtime.search_endpoint import SearchRequest
from service.runtime.settings import SettingsError
from tests.database import answering
from tests.run.service import wait_for
from tests.runtime import ROOT
from tests.runtime.test_retrieval import CONFIG, SETTINGS
from tests.store import free_port

KEY = "right"
KINDS = ("qdrant", "pinecone")


@contextmanager
def stand_in(kind: str) -> Iterator[str]:
    """The address of a database with nothing in it."""
    port = free_port()
    with subprocess.Popen(
        [sys.executable, "-m", f"tests.embedded_{kind}", str(port)],
        cwd=ROOT / "extensions/additions",
        env={**os.environ, "VECTOR_DB_API_KEY": KEY},
    ) as process:

        def listens() -> bool:
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", port)) == 0

        try:
            wait_for("the vector database listens", listens, 30, 0.05)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.kill()


@pytest.fixture(scope="module")
def addresses() -> Iterator[dict[str, str]]:
    with stand_in("qdrant") as qdrant, stand_in("pinecone") as pinecone:
        yield {"qdrant": qdrant, "pinecone": pinecone}


class Made:
    """A database of one kind, with a name of its own for the indexes of one test."""

    def __init__(self, kind: str, url: str) -> None:
        self.kind = kind
        given = {**SETTINGS.model_dump(), "url": url, "api_key": KEY, "deadline_ms": 5000}
        self.settings = QdrantSettings.model_validate({**given, "namespace": f"n{uuid.uuid4().hex[:8]}"})

    def writer(self) -> Any:
        return QdrantIndexWriter(self.settings) if self.kind == "qdrant" else PineconeIndexWriter(self.settings)

    def reader(self) -> Retriever:
        return QdrantRetriever(self.settings) if self.kind == "qdrant" else PineconeRetriever(self.settings)

    def name(self, content: str) -> str:
        return f"{self.settings.alias}-{content}"

    async def built(self, content: str, *documents: Document) -> Any:
        """A writer that has filled an index and not served it."""
        writer = self.writer()
        await writer.begin(self.name(content), 2, {})
        some = documents or (Document(id="a", text=content),)
        await writer.upsert(some, [[1.0, 0.0]] * len(some))
        return writer

    async def finished(self, content: str, prune: bool = False) -> None:
        """What a whole run of the job does with an index of one document."""
        writer = await self.built(content)
        await index_documents.finish(writer, self.name(content), 1, prune)
        await writer.close()

    async def found(self, where: Mapping[str, Condition] | None = None) -> set[str]:
        """Texts of the documents that a new replica finds."""
        reader = self.reader()
        await reader.open(2)
        (hits,) = await reader.search([[1.0, 0.0]], 100, where or {})
        await reader.close()
        return {hit.text for hit in hits}

    async def held(self, content: str) -> int:
        """Documents in an index, served or not; 0 if there is none."""
        writer = self.writer()
        try:
            if isinstance(writer, QdrantIndexWriter):
                names = [each.name for each in (await writer._client.get_collections()).collections]
                return (await writer._client.count(self.name(content))).count if self.name(content) in names else 0
            assert isinstance(writer, PineconeIndexWriter)
            stats = (await writer._client.describe_index_stats()).namespaces
            return stats[self.name(content)].vector_count if self.name(content) in stats else 0
        finally:
            await writer.close()


@pytest.fixture
def qdrant(addresses: dict[str, str]) -> Made:
    return Made("qdrant", addresses["qdrant"])


@pytest.fixture
def pinecone(addresses: dict[str, str]) -> Made:
    return Made("pinecone", addresses["pinecone"])


@pytest.fixture(params=KINDS)
def database(request: pytest.FixtureRequest, addresses: dict[str, str]) -> Made:
    return Made(request.param, addresses[request.param])


BEYOND = 2**53 + 2
STORED = {
    "whole": 5,
    "fraction": 5.5,
    "as a float": 5.0,
    "none": 0,
    "one": 1,
    "large": BEYOND,
    "next": BEYOND + 1,
    "true": True,
    "text": "5",
    "texts": ["5", "6"],
}


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ("5", {"whole", "as a float"}),
        ("5.0", {"whole", "as a float"}),
        ("5.5", {"fraction"}),
        ("[5, 5.5]", {"whole", "as a float", "fraction"}),
        ('[5, "5"]', {"whole", "as a float", "text", "texts"}),
        ('"5"', {"text", "texts"}),
        ("1", {"one"}),
        ("true", {"true"}),
        ("false", set()),
        (str(BEYOND), {"large"}),
        (f"[{BEYOND + 1}]", {"next"}),
        ('{"gt": 4, "lt": 6}', {"whole", "as a float", "fraction"}),
        ('{"gte": 5, "lte": 5}', {"whole", "as a float"}),
    ],
)
def test_numbers_are_compared_as_numbers_alike_in_both_databases(
    database: Made, where: str, expected: set[str]
) -> None:
    documents = [Document(id=name, text=name, metadata={"x": value}) for name, value in STORED.items()]
    asked = SearchRequest.model_validate_json(f'{{"query": "x", "where": {{"x": {where}}}}}').where

    async def scenario() -> set[str]:
        writer = await database.built("a", *documents)
        await writer.serve()
        await writer.close()
        return await database.found(asked)

    assert asyncio.run(scenario()) == expected


def test_pruning_deletes_what_was_served_once_and_not_what_another_job_is_building(
    database: Made, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retrieval_pinecone, "POINTER_S", 0.0)

    async def scenario() -> None:
        await database.finished("first")
        other = await database.built("other")
        await database.finished("second", prune=True)
        assert await database.held("first") == 1, "it was served until a moment ago"
        await database.finished("second", prune=True)
        assert (await database.held("first"), await database.held("other")) == (0, 1)
        await index_documents.finish(other, database.name("other"), 1, prune=True)
        await other.close()
        assert await database.found() == {"other"}

    asyncio.run(scenario())
    said = capsys.readouterr().out
    assert f"{database.name('first')} is deleted" in said
    assert f"{database.name('other')} stays, as another job may be building it" in said


def test_an_index_that_a_job_takes_up_again_is_not_deleted_until_it_has_been_replaced_again(
    database: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retrieval_pinecone, "POINTER_S", 0.0)

    async def scenario() -> None:
        await database.finished("first")
        await database.finished("second")
        again = await database.built("first")
        await database.finished("second", prune=True)
        assert await database.held("first") == 1
        await again.serve()
        await again.close()
        await database.finished("first", prune=True)
        assert await database.found() == {"first"}
        await database.finished("third", prune=True)
        await database.finished("third", prune=True)
        assert (await database.held("first"), await database.held("second")) == (0, 0)
        assert await database.found() == {"third"}

    asyncio.run(scenario())


def test_pruning_waits_until_no_replica_reads_what_was_served(pinecone: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    """Replicas follow a switch within POINTER_S, and the second job ends right after the first."""
    monkeypatch.setattr(retrieval_pinecone, "POINTER_S", 0.3)

    async def scenario() -> float:
        await pinecone.finished("first")
        switched_s = time.time()
        await pinecone.finished("second")
        await pinecone.finished("second", prune=True)
        assert await pinecone.held("first") == 0
        return time.time() - switched_s

    assert asyncio.run(scenario()) >= 0.9


def test_jobs_that_begin_the_same_index_at_once_all_go_on_with_it(qdrant: Made) -> None:
    async def scenario() -> None:
        writers = [qdrant.writer() for _ in range(6)]
        await asyncio.gather(*(writer.begin(qdrant.name("a"), 2, {"n": int}) for writer in writers))
        for writer in writers:
            await writer.close()

    asyncio.run(scenario())


class Embedder:
    """Vectors without a model. on_embed: what happens meanwhile."""

    dimension = 2
    cut = 0

    def __init__(self, on_embed: Callable[[], None] = lambda: None) -> None:
        self._on_embed = on_embed

    def embed(self, documents: Sequence[Document]) -> Iterator[index_documents.Embedded]:
        self._on_embed()
        yield list(documents), [[1.0, 0.0] for _ in documents]


def lines(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


@pytest.mark.parametrize("change", ["another text", "one more", "one less"])
def test_nothing_of_a_file_that_changes_while_it_is_indexed_is_served_or_written(
    qdrant: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    monkeypatch.setattr(index_documents, "WINDOW", 2)
    monkeypatch.setattr(index_documents, "COUNT_S", 0.0)
    rows = [{"id": f"d{n}", "text": f"text {n}"} for n in range(6)]
    changed = {
        "another text": [*rows[:5], {"id": "d5", "text": "another"}],
        "one more": [*rows, {"id": "d6", "text": "another"}],
        "one less": rows[:5],
    }[change]
    path = lines(tmp_path / "documents.jsonl", *rows)
    found = survey(path)
    lines(path, *changed)
    model = cast(Any, Embedder())
    with pytest.raises(DocumentError, match="changed while it was indexed: run it again"):
        asyncio.run(index_documents.build(path, found, qdrant.settings, model, prune=False))
    with pytest.raises(NotIndexed):
        asyncio.run(qdrant.found())
    lines(path, *rows)
    asyncio.run(index_documents.build(path, survey(path), qdrant.settings, model, prune=False))
    assert asyncio.run(qdrant.found()) == {row["text"] for row in rows}


def test_what_can_be_read_only_once_is_refused_before_it_is_read() -> None:
    reading, writing = os.pipe()
    os.close(writing)
    try:
        with pytest.raises(DocumentError, match="is no regular file, and it is read twice"):
            survey(Path(f"/dev/fd/{reading}"))
    finally:
        os.close(reading)


@pytest.mark.parametrize(
    ("value", "words"), [("NaN", "nan is no number"), ("1e999", "inf is no number"), (str(2**63), "more than 64 bits")]
)
def test_a_number_that_no_database_compares_is_refused_with_its_line_and_key(
    tmp_path: Path, value: str, words: str
) -> None:
    path = tmp_path / "documents.jsonl"
    path.write_text(f'{{"id": "a", "text": "a"}}\n{{"id": "b", "text": "b", "metadata": {{"price": {value}}}}}\n')
    with pytest.raises(DocumentError, match=rf"document 2, cannot be used:\n  metadata\.price: .*{words}"):
        survey(path)


def test_a_number_that_parquet_holds_and_no_database_compares_is_refused_too(tmp_path: Path) -> None:
    path = tmp_path / "documents.parquet"
    pq.write_table(pa.table({"id": ["a", "b"], "text": ["a", "b"], "price": [1.0, math.nan]}), path)
    with pytest.raises(DocumentError, match=r"document 2, cannot be used:\n  metadata\.price: .*nan is no number"):
        survey(path)


@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1 and then nothing of the kind", b'{"id": "a", "text": "a"}\n'])
def test_a_file_that_is_no_parquet_is_told_in_words(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "documents.parquet"
    path.write_bytes(content)
    with pytest.raises(DocumentError, match=r"documents\.parquet cannot be read: "):
        survey(path)


def test_a_parquet_file_that_was_cut_off_is_told_in_words(tmp_path: Path) -> None:
    path = tmp_path / "documents.parquet"
    pq.write_table(pa.table({"id": ["a"], "text": ["a"]}), path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DocumentError, match="cannot be read"):
        survey(path)


def test_a_byte_order_mark_before_the_first_line_is_no_part_of_it(tmp_path: Path) -> None:
    path = tmp_path / "documents.jsonl"
    path.write_text('{"id": "a", "text": "a"}\n', encoding="utf-8-sig")
    assert [document.id for document in read(path)] == ["a"]


def run_main(database: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str | None = None) -> str:
    """What the job says as it fails."""
    settings = database.settings.model_copy(update={"url": url} if url else {})
    monkeypatch.setattr(index_documents, "load_retrieval_settings", lambda: settings)
    monkeypatch.setattr(index_documents, "DocumentEmbedder", lambda name: Embedder())
    path = lines(tmp_path / "documents.jsonl", {"id": "a", "text": "a"})
    monkeypatch.setattr(sys, "argv", ["index_documents", str(path)])
    with pytest.raises(SystemExit) as ended:
        index_documents.main()
    return str(ended.value.code)


@pytest.mark.parametrize(
    ("status", "words"), [(429, "ResourceExhaustedResponse"), (200, "VECTOR_DB_URL answers no JSON")]
)
def test_a_database_that_limits_or_answers_no_json_is_told_in_words(
    qdrant: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int, words: str
) -> None:
    port = free_port()
    with answering(port, status):
        said = run_main(qdrant, tmp_path, monkeypatch, f"http://127.0.0.1:{port}")
    assert said.startswith(f"not indexed: {words}")
    assert said.endswith("run it again, and it goes on from here")


def test_a_write_that_the_database_limits_is_told_in_words(
    qdrant: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Writes are tasks of a group, which raises them together."""

    async def limited(*_: Any) -> None:
        raise ResourceExhaustedResponse("too many writes", 1)

    monkeypatch.setattr(QdrantIndexWriter, "upsert", limited)
    assert "not indexed: ResourceExhaustedResponse: too many writes" in run_main(qdrant, tmp_path, monkeypatch)


SECRETS = ["very-secret\n", " very-secret", "very-secret\r", "very-sec\tret", "very-secr\u00e9t", "very\x00-secret"]


@pytest.mark.parametrize("load", [load_retrieval_settings, load_pinecone_settings])
@pytest.mark.parametrize("key", SECRETS)
def test_a_key_that_no_header_can_carry_is_refused_and_not_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str, load: Callable[[Path], RetrievalSettings]
) -> None:
    path = tmp_path / "retrieval.yaml"
    path.write_text(CONFIG + f"api_key: {json.dumps(key)}\n")
    monkeypatch.delenv("VECTOR_DB_API_KEY", raising=False)
    with pytest.raises(SettingsError, match="VECTOR_DB_API_KEY") as refused:
        load(path)
    assert "very" not in str(refused.value)
    path.write_text(CONFIG + "api_key: very-secret of two words\n")
    assert load(path).key == "very-secret of two words"


def test_a_job_that_backs_up_refuses_such_a_key_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import argparse

    monkeypatch.setenv("VECTOR_DB_API_KEY", "very-secret\n")
    monkeypatch.setattr(sys, "argv", ["backup", "--bucket", "s3://bucket/prefix"])
    with pytest.raises(SystemExit):
        qdrant_backups.options_of(argparse.ArgumentParser())
    said = capsys.readouterr().err
    assert "VECTOR_DB_API_KEY" in said
    assert "very" not in said


def test_a_node_that_answers_no_json_is_told_in_words() -> None:
    port = free_port()
    with answering(port, 200):
        pod = qdrant_backups.Pod(0, f"http://127.0.0.1:{port}", None, None)
        with pytest.raises(qdrant_backups.PodError, match=r"qdrant-0 does not tell its version: .* answers no JSON"):
            pod.version()


def test_the_job_over_ray_reads_a_batch_as_the_other_job_reads_the_file(tmp_path: Path) -> None:
    """Whole numbers with gaps, absent values, lists, and lines that end only where JSON ends them."""
    from jobs.index_documents_ray import documents_of, lines_of

    rows = [
        {"id": "a", "text": "a\u2028b", "n": 2**53 + 1, "flag": True, "topics": ["x", "y"]},
        {"id": "b", "text": "b\u0085", "n": None, "flag": None, "topics": None},
    ]
    table = pa.Table.from_pylist(rows)
    parquet = tmp_path / "documents.parquet"
    pq.write_table(table, parquet)
    assert documents_of(table) == list(read(parquet))
    text = tmp_path / "documents.jsonl"
    documents = [document.model_dump() for document in read(parquet)]
    written = "\n \n".join(json.dumps(document, ensure_ascii=False) for document in documents)
    text.write_text(written, encoding="utf-8-sig")
    with pa.OSFile(str(text)) as file:
        blocks = list(lines_of(file))
    assert [document for block in blocks for document in documents_of(block)] == list(read(text)) == list(read(parquet))
