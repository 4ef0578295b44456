"""A vector database without a server of yours: the local mode of Qdrant's client, behind the part of its API in use.

It searches by comparing with every vector, in one process and in memory: for a laptop and for tests, at thousands of
documents. `python -m tests.embedded_qdrant PORT`; with VECTOR_DB_API_KEY set it asks for that key.
"""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any

from pydantic import TypeAdapter
from qdrant_client import QdrantClient, models

from tests.json_server import Answer, Route, running, serve

OK = HTTPStatus.OK
OPERATIONS: TypeAdapter[list[models.AliasOperations]] = TypeAdapter(list[models.AliasOperations])


@contextmanager
def running_database() -> Iterator[dict[str, str]]:
    """An empty database that lives as long as the context; yields what a service needs in its environment."""
    with running("tests.embedded_qdrant") as port:
        yield {"VECTOR_DB_URL": f"http://127.0.0.1:{port}"}


class Local:
    """Answers requests from the local mode."""

    def __init__(self) -> None:
        self._client = QdrantClient(":memory:")

    def routes(self) -> dict[str, Route]:
        of = "/collections/([^/]+)"
        routes: dict[str, Route] = {
            "GET /collections": lambda _, __: done(self._client.get_collections().model_dump(mode="json")),
            "GET /aliases": lambda _, __: done(self._client.get_aliases().model_dump(mode="json")),
            "POST /collections/aliases": self.alias,
            f"GET {of}": lambda parts, _: done(self._client.get_collection(parts[0]).model_dump(mode="json")),
            f"PUT {of}": self.create,
            f"DELETE {of}": lambda parts, _: done(self._client.delete_collection(parts[0])),
            f"PUT {of}/index": lambda _, __: done({"status": "completed", "operation_id": 0}),
            f"PUT {of}/points": self.upsert,
            f"POST {of}/points": self.retrieve,
            f"POST {of}/points/count": lambda parts, _: done({"count": self._client.count(parts[0]).count}),
            f"POST {of}/points/query/batch": self.query,
        }
        return {route: refusing(answer) for route, answer in routes.items()}

    def alias(self, _: Sequence[str], body: Any) -> Answer:
        return done(self._client.update_collection_aliases(OPERATIONS.validate_python(body["actions"])))

    def create(self, parts: Sequence[str], body: Any) -> Answer:
        vectors = models.VectorParams.model_validate(body["vectors"])
        return done(self._client.create_collection(parts[0], vectors_config=vectors))

    def upsert(self, parts: Sequence[str], body: Any) -> Answer:
        self._client.upsert(parts[0], models.Batch.model_validate(body["batch"]))
        return done({"status": "completed", "operation_id": 0})

    def retrieve(self, parts: Sequence[str], body: Any) -> Answer:
        wanted = {"with_payload": body.get("with_payload", True), "with_vectors": body.get("with_vector", False)}
        records = self._client.retrieve(parts[0], body["ids"], **wanted)
        return done([record.model_dump(mode="json") for record in records])

    def query(self, parts: Sequence[str], body: Any) -> Answer:
        size = self._client.get_collection(parts[0]).config.params.vectors.size  # type: ignore[union-attr]
        searches = models.QueryRequestBatch.model_validate(body).searches
        for search in searches:
            asked = search.query.nearest if isinstance(search.query, models.NearestQuery) else search.query
            got = len(asked)  # type: ignore[arg-type]
            if got != size:
                raise ValueError(f"Wrong input: Vector dimension error: expected dim: {size}, got {got}")
        answers = self._client.query_batch_points(parts[0], requests=searches)
        return done([answer.model_dump(mode="json") for answer in answers])


def done(result: Any) -> Answer:
    return OK, {"result": result, "status": "ok", "time": 0.0}


def refusing(answer: Route) -> Route:
    """As the server refuses: 404 for a collection that is not there, 400 for what it cannot use."""

    def refused(parts: Sequence[str], body: Any) -> Answer:
        try:
            return answer(parts, body)
        except ValueError as error:
            status = HTTPStatus.NOT_FOUND if "not found" in str(error) else HTTPStatus.BAD_REQUEST
            return status, {"status": {"error": str(error)}, "time": 0.0}

    return refused


if __name__ == "__main__":
    serve(int(sys.argv[1]), Local().routes(), "api-key", os.environ.get("VECTOR_DB_API_KEY"))
