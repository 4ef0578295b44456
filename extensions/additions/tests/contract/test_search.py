"""The search over HTTP: what is indexed is found, under the conditions asked for; what cannot be asked is refused."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from service.runtime.retrieval import Document
from service.runtime.vector_index import load_retrieval_settings
from tests.contract.indexed import documents

__all__ = ["documents"]


def search(http: httpx.Client, query: str, tries: int = 1, **more: Any) -> list[dict[str, Any]]:
    """What is found. tries: how often it is asked while the database does not answer in time."""
    response = http.post("/v1/search", json={"query": query, **more})
    if tries > 1 and response.status_code == 504 and response.json()["type"] == "urn:problem-type:search-timeout":
        return search(http, query, tries - 1, **more)
    assert response.status_code == 200, response.text
    return list(response.json()["documents"])


def test_a_document_is_found_by_its_own_text(http: httpx.Client, documents: list[Document]) -> None:
    wanted = documents[7]
    first = search(http, wanted.text)[0]
    assert first["score"] == pytest.approx(1, abs=0.02)
    assert {key: first[key] for key in ("id", "text", "metadata")} == wanted.model_dump()


def test_as_many_are_found_as_asked_for_nearest_first(http: httpx.Client, documents: list[Document]) -> None:
    found = search(http, documents[0].text, limit=5)
    scores = [one["score"] for one in found]
    assert len(found) == 5
    assert scores == sorted(scores, reverse=True)
    assert len(search(http, documents[0].text)) == 10


@pytest.mark.parametrize(
    ("where", "holds"),
    [
        ({"topic": "delivery"}, lambda data: data["topic"] == "delivery"),
        ({"topic": ["payment", "shops"]}, lambda data: data["topic"] in ("payment", "shops")),
        ({"number": {"gt": 3, "lte": 9}}, lambda data: 3 < data["number"] <= 9),
        ({"number": 4}, lambda data: data["number"] == 4),
        ({"number": 4.0}, lambda data: data["number"] == 4),
        ({"number": [4, 5.0]}, lambda data: data["number"] in (4, 5)),
        (
            {"topic": "account", "number": {"gte": 21}},
            lambda data: data["topic"] == "account" and data["number"] >= 21,
        ),
        ({"topic": "nothing of the kind"}, lambda data: False),
        ({"no_such_field": "x"}, lambda data: False),
    ],
)
def test_only_what_meets_all_conditions_is_found(
    http: httpx.Client, documents: list[Document], where: dict[str, Any], holds: Any
) -> None:
    expected = {document.id for document in documents if holds(document.metadata)}
    assert {one["id"] for one in search(http, "anything", limit=100, where=where)} == expected


def test_searches_at_once_each_get_their_own_answer(http: httpx.Client, documents: list[Document]) -> None:
    """To a model that knows few words, two documents can be the same. So many at once can be too late for a machine."""
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda document: search(http, document.text, tries=5, limit=3), documents))
    for answer, document in zip(answers, documents, strict=True):
        assert document.id in [one["id"] for one in answer]


def test_the_answer_names_the_model_and_the_request(http: httpx.Client, documents: list[Document]) -> None:
    response = http.post("/v1/search", json={"query": "x"}, headers={"x-request-id": "abc-1"})
    settings = load_retrieval_settings()
    answered = response.json()
    assert (answered["model"], answered["revision"]) == (settings.embedder, settings.revision)
    assert answered["request_id"] == response.headers["x-request-id"] == "abc-1"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({}, "query"),
        ({"query": ""}, "query"),
        ({"query": 7}, "query"),
        ({"query": "x", "limit": 0}, "limit"),
        ({"query": "x", "limit": 101}, "limit"),
        ({"query": "x", "top_k": 3}, "top_k"),
        ({"query": "x", "where": {"number": {"above": 3}}}, "where"),
        ({"query": "x", "where": {"number": {}}}, "where"),
        ({"query": "x", "where": {"number": {"gte": None}}}, "null"),
        ({"query": "x", "where": {"number": 2**63}}, "64 bits"),
        ({"query": "x", "where": {"number": []}}, "where"),
        ({"query": "x", "where": {"a b": 1}}, "where"),
        ({"query": "x", "where": {"metadata.number": 1}}, "where"),
    ],
)
def test_a_search_that_cannot_be_meant_is_refused_and_says_where(
    http: httpx.Client, body: dict[str, Any], words: str
) -> None:
    response = http.post("/v1/search", json=body)
    assert response.status_code == 422
    assert response.headers["content-type"] == "application/problem+json"
    assert words in response.json()["detail"]


def test_what_is_no_json_is_refused(http: httpx.Client) -> None:
    headers = {"content-type": "application/json"}
    assert http.post("/v1/search", content=b"{", headers=headers).status_code == 400
    assert http.post("/v1/search", content=b"{}", headers={"content-type": "text/plain"}).status_code == 415


def test_the_search_is_documented(http: httpx.Client) -> None:
    assert "post" in http.get("/openapi.json").json()["paths"]["/v1/search"]
