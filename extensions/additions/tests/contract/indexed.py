"""The example documents, served by the service under test, for whatever searches them."""

import asyncio
import uuid
from collections.abc import Sequence
from pathlib import Path

import httpx
import pytest

from jobs.documents import read, survey
from service.retrieval import embedder
from service.runtime.retrieval import Document
from service.runtime.vector_index import IndexWriter, load_retrieval_settings

EXAMPLES = Path("jobs/example_documents.jsonl")


@pytest.fixture(scope="session")
def documents(http: httpx.Client) -> list[Document]:
    """The documents of an index that is served, with vectors of the very model that the service runs."""
    found = list(read(EXAMPLES))
    instances = [embedder.document(document.text) for document in found]
    response = http.post(f"/v1/models/{load_retrieval_settings().embedder}/predict", json={"instances": instances})
    assert response.status_code == 200, response.text
    vectors = [one["embedding"] for one in response.json()["predictions"]]
    asyncio.run(serve(found, vectors))
    return found


async def serve(documents: Sequence[Document], vectors: Sequence[Sequence[float]]) -> None:
    """Build an index and switch to it."""
    settings = load_retrieval_settings()
    writer = IndexWriter(settings)
    await writer.begin(f"{settings.alias}-contract-{uuid.uuid4().hex[:8]}", len(vectors[0]), survey(EXAMPLES).fields)
    await writer.upsert(documents, vectors)
    await writer.serve()
    await writer.close()
