"""What a search promises by itself: bounds, outcomes, one round trip, and an index that changes under it."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from service.runtime.batcher import DeadlinePassed, QueueFull
from service.runtime.deadlines import FAILURES_TO_OPEN, StoreResting
from service.runtime.metrics_prometheus import PrometheusExporter
from service.runtime.problems import ProblemError
from service.runtime.retrieval import (
    Condition,
    Hit,
    IndexMismatch,
    NotIndexed,
    RetrievalSettings,
    SearchRefused,
    check_index,
)
from service.runtime.retrieval import Found as FoundIndex
from service.runtime.retrieval_pinecone import client_of as pinecone_client_of
from service.runtime.retrieval_pinecone import load_retrieval_settings as load_pinecone_settings
from service.runtime.retrieval_qdrant import load_retrieval_settings
from service.runtime.search import Search
from service.runtime.search_endpoint import SearchEndpoint
from service.runtime.settings import SettingsError

DEADLINE_MS = 50
SETTINGS = RetrievalSettings(
    url="http://127.0.0.1:1",
    namespace="shop",
    embedder="minilm",
    revision="c9745ed1d9f207416be6aaf69f8bce8f60ca7468",
    deadline_ms=DEADLINE_MS,
)
HIT = Hit(id="a", text="a text", score=0.5, metadata={})


class Fake:
    """A database that does as it is told."""

    def __init__(self, answer: Callable[[], Awaitable[None]] | None = None) -> None:
        self.answer = answer
        self.opened: list[int] = []
        self.asked = 0
        self.error: Exception | None = None

    async def open(self, dimension: int) -> None:
        self.opened.append(dimension)
        if self.error:
            raise self.error

    async def search(
        self, vectors: Sequence[Sequence[float]], limit: int, where: Mapping[str, Condition]
    ) -> list[list[Hit]]:
        self.asked += 1
        if self.answer:
            await self.answer()
        if self.error:
            raise self.error
        return [[HIT] * limit for _ in vectors]

    async def close(self) -> None:
        """Nothing."""


async def embed(texts: Sequence[str]) -> list[list[float]]:
    return [[1.0, 0.0, 0.0] for _ in texts]


def made(fake: Fake, embedding: Any = embed) -> tuple[Search, Callable[[str], float | None]]:
    """A search, and what it has counted under an outcome."""
    registry = CollectorRegistry()
    search = Search(SETTINGS, fake, embedding, PrometheusExporter(registry))
    labels = {"model": "minilm"}
    return search, lambda outcome: registry.get_sample_value("service_searches_total", {**labels, "outcome": outcome})


def test_the_alias_names_the_model_its_revision_and_the_version_of_the_texts() -> None:
    assert SETTINGS.alias == "shop-minilm-c9745ed1d9f2-v1"


def alias_of(revision: str) -> str:
    return SETTINGS.model_copy(update={"revision": revision}).alias


def test_labels_of_a_folder_that_begin_alike_have_indexes_of_their_own() -> None:
    labels = ["release-2026-01", "release-2026-02", "release-2026", "release-20260", "a" * 64, "a" * 63]
    aliases = [alias_of(label) for label in labels]
    assert len(set(aliases)) == len(labels)
    assert all(len(alias) <= len("shop-minilm-") + 12 + 9 + len("-v1") for alias in aliases)


def test_a_label_of_up_to_twelve_letters_is_the_name_as_it_always_was() -> None:
    assert alias_of("v1") == "shop-minilm-v1-v1"
    assert alias_of("release-2026") == "shop-minilm-release-2026-v1"


def test_an_index_is_opened_once_with_the_dimension_of_the_model() -> None:
    fake = Fake()
    search, counted = made(fake)

    async def scenario() -> None:
        await search.start()
        for _ in range(3):
            assert await search.find(["x", "y"], 2, {}) == [[HIT, HIT]] * 2

    asyncio.run(scenario())
    assert (fake.opened, fake.asked, counted("ok")) == ([3], 3, 3)


async def forever() -> None:
    await asyncio.sleep(60)


def test_a_database_that_hangs_costs_its_deadline_and_then_nothing() -> None:
    fake = Fake(forever)
    search, counted = made(fake)

    async def scenario() -> list[float]:
        took = []
        for _ in range(FAILURES_TO_OPEN + 4):
            started = time.perf_counter()
            with pytest.raises((TimeoutError, StoreResting)):
                await search.find(["x"], 1, {})
            took.append((time.perf_counter() - started) * 1e3)
        return took

    took = asyncio.run(scenario())
    assert all(DEADLINE_MS <= ms < 4 * DEADLINE_MS for ms in took[:FAILURES_TO_OPEN]), took
    # The last of them may be told before its read has ended.
    assert all(ms < DEADLINE_MS / 2 for ms in took[FAILURES_TO_OPEN + 1 :]), took
    assert counted("timeout") in (FAILURES_TO_OPEN, FAILURES_TO_OPEN + 1)


def test_who_cannot_wait_for_the_embedding_does_not() -> None:
    async def slow(texts: Sequence[str]) -> list[list[float]]:
        await asyncio.sleep(60)
        return []

    search, counted = made(Fake(), slow)
    with pytest.raises(TimeoutError):
        asyncio.run(search.find_soon(["x"], 1, 0.02))
    assert counted("ok") is None


def test_no_index_and_another_models_index_are_not_the_databases_failure() -> None:
    """So the breaker stays closed, and an index that comes is found at once."""
    fake = Fake()
    search, counted = made(fake)

    async def scenario() -> None:
        for error in [NotIndexed("shop-minilm"), IndexMismatch("another model's")] * FAILURES_TO_OPEN:
            fake.error = error
            with pytest.raises(type(error)):
                await search.find(["x"], 1, {})
        fake.error = None
        assert await search.find(["x"], 1, {}) == [[HIT]]

    asyncio.run(scenario())
    assert (counted("missing"), counted("error"), counted("ok")) == (FAILURES_TO_OPEN, FAILURES_TO_OPEN, 1)


def test_a_search_that_is_refused_or_that_nobody_waits_for_is_no_error_of_the_database() -> None:
    fake = Fake()
    search, counted = made(fake)

    async def scenario() -> None:
        await search.find(["x"], 1, {})
        fake.error = SearchRefused("no such filter")
        with pytest.raises(SearchRefused):
            await search.find(["x"], 1, {})
        fake.error, fake.answer = None, forever
        leaving = asyncio.create_task(search.find(["x"], 1, {}))
        async with asyncio.timeout(5):
            while fake.asked < 3:
                await asyncio.sleep(0)
        leaving.cancel()
        with suppress(asyncio.CancelledError):
            await leaving

    asyncio.run(scenario())
    assert (counted("invalid"), counted("cancelled"), counted("error")) == (1, 1, None)


def test_a_service_starts_without_its_database_and_not_with_another_models_index() -> None:
    fake = Fake()
    search, _ = made(fake)
    fake.error = ConnectionError("down")
    asyncio.run(search.start())
    fake.error = IndexMismatch("another model's")
    with pytest.raises(IndexMismatch):
        asyncio.run(search.start())


def test_after_a_failure_the_index_is_checked_again() -> None:
    fake = Fake()
    search, _ = made(fake)

    async def scenario() -> None:
        await search.find(["x"], 1, {})
        fake.error = ConnectionError("reset")
        with pytest.raises(ConnectionError):
            await search.find(["x"], 1, {})
        fake.error = None
        await search.find(["x"], 1, {})

    asyncio.run(scenario())
    assert len(fake.opened) == 2


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (FoundIndex(384, "cosine"), "384 numbers and the embedding model makes 3"),
        (FoundIndex(3, "dot"), "measures dot"),
    ],
)
def test_an_index_that_does_not_fit_is_refused_in_words(found: FoundIndex, words: str) -> None:
    with pytest.raises(IndexMismatch, match=words):
        check_index("i", found, 3)
    check_index("i", FoundIndex(3, "cosine"), 3)
    check_index("i", FoundIndex(None, "cosine"), 3)


CONFIG = "url: https://db.example.com\nnamespace: shop\nembedder: minilm\nrevision: v1\ndeadline_ms: 50\n"


def test_the_environment_wins_over_the_file_and_the_key_is_shown_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "retrieval.yaml"
    path.write_text(CONFIG)
    monkeypatch.setenv("VECTOR_DB_URL", "http://127.0.0.1:6334")
    monkeypatch.setenv("VECTOR_DB_API_KEY", "very-secret")
    settings = load_retrieval_settings(path)
    assert (settings.url, settings.key) == ("http://127.0.0.1:6334", "very-secret")
    assert "very-secret" not in repr(settings)


@pytest.mark.parametrize(
    ("change", "words"),
    [("url: ftp://x", "url"), ("deadline_ms: 0", "deadline_ms"), ("collection: x", "collection"), ("url: [", "YAML")],
)
def test_settings_that_cannot_be_used_are_told(tmp_path: Path, change: str, words: str) -> None:
    path = tmp_path / "retrieval.yaml"
    key = change.partition(":")[0]
    path.write_text("".join(line + "\n" for line in CONFIG.splitlines() if not line.startswith(f"{key}:")) + change)
    with pytest.raises(SettingsError, match=words):
        load_retrieval_settings(path)


def test_pinecone_without_a_key_says_which_variable_to_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VECTOR_DB_API_KEY", raising=False)
    path = tmp_path / "retrieval.yaml"
    path.write_text(CONFIG)
    with pytest.raises(SettingsError, match="set VECTOR_DB_API_KEY"):
        pinecone_client_of(load_pinecone_settings(path), 1.0)


def test_what_embedding_refuses_can_leave_the_process() -> None:
    """In Ray mode it is raised in a replica and answered by the front."""
    import pickle

    for error in (QueueFull(7, 9, 1.5), DeadlinePassed(5), NotIndexed("i"), IndexMismatch("m")):
        again = pickle.loads(pickle.dumps(error))  # noqa: S301
        assert (type(again), str(again)) == (type(error), str(error))


def answer_of(endpoint: SearchEndpoint, body: bytes) -> ProblemError:
    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body}

    async def send(message: Any) -> None:
        raise AssertionError(f"answered: {message}")

    scope = {"service.request_id": "r", "headers": [(b"content-type", b"application/json")]}
    with pytest.raises(ProblemError) as raised:
        asyncio.run(endpoint(scope, receive, send))
    return raised.value


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ('{"gte": null}', "where.number: Value error, null says nothing"),
        ('{"gte": null, "lt": 3}', "null says nothing"),
        ("null", "null says nothing"),
        ('{"gte": NaN}', "nan is no number to compare with"),
        ('{"lt": 1e999}', "inf is no number to compare with"),
        ("NaN", "nan is no number to compare with"),
        ("[1, -1e999]", "-inf is no number to compare with"),
        ("9223372036854775808", "more than 64 bits"),
        ('{"gte": -9223372036854775809}', "more than 64 bits"),
        ("[1, 123456789012345678901234567890]", "more than 64 bits"),
    ],
)
def test_a_condition_that_says_nothing_or_cannot_be_compared_is_refused_in_words(where: str, words: str) -> None:
    async def find(query: str, limit: int, where: Mapping[str, Condition]) -> list[Hit]:
        raise AssertionError(f"asked for {where}")

    body = f'{{"query": "x", "where": {{"number": {where}}}}}'
    problem = answer_of(SearchEndpoint(SETTINGS, find, behind_serve=True), body.encode())
    assert problem.status == 422
    assert words in str(problem)


def test_what_the_database_refuses_is_the_callers_to_mend_and_the_log_says_why(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def find(query: str, limit: int, where: Mapping[str, Condition]) -> list[Hit]:
        raise SearchRefused("the filter is too deep")

    with caplog.at_level(logging.INFO):
        problem = answer_of(SearchEndpoint(SETTINGS, find, behind_serve=True), b'{"query": "x"}')
    assert (problem.status, problem.kind) == (422, "search-refused")
    assert "the filter is too deep" in str(caplog.records[0].__dict__["error"])
    assert caplog.records[-1].__dict__["outcome"] == "invalid"
