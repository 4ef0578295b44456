"""A stand-in for a Pinecone index: the part of its API in use, searched by comparing with every vector, in memory.

For a laptop and for tests. `python -m tests.embedded_pinecone PORT`; with VECTOR_DB_API_KEY set it asks for that key.
"""

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any

import numpy as np

from tests.json_server import Answer, Route, running, serve

KEY = "a-key-of-the-stand-in"
OK = HTTPStatus.OK


def equal(value: Any, wanted: Any) -> bool:
    """A list has each of its texts as a value; in Python 1 == True, and in a database it is not."""
    some = value if isinstance(value, list) else [value]
    return any(isinstance(one, bool) == isinstance(wanted, bool) and one == wanted for one in some)


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "$eq": equal,
    "$in": lambda value, wanted: any(equal(value, one) for one in wanted),
    "$gt": lambda value, wanted: is_number(value) and bool(value > wanted),
    "$gte": lambda value, wanted: is_number(value) and bool(value >= wanted),
    "$lt": lambda value, wanted: is_number(value) and bool(value < wanted),
    "$lte": lambda value, wanted: is_number(value) and bool(value <= wanted),
}


@contextmanager
def running_database() -> Iterator[dict[str, str]]:
    """An empty index that lives as long as the context; yields what a service needs in its environment."""
    with running("tests.embedded_pinecone", VECTOR_DB_API_KEY=KEY) as port:
        yield {"VECTOR_DB_URL": f"http://127.0.0.1:{port}", "VECTOR_DB_API_KEY": KEY}


class Local:
    """Answers requests from memory. The dimension is that of the first vector; before it, any will do."""

    def __init__(self) -> None:
        self._namespaces: dict[str, dict[str, dict[str, Any]]] = {}
        self._dimension: int | None = None

    def routes(self) -> dict[str, Route]:
        return {
            "POST /vectors/upsert": self.upsert,
            "POST /vectors/delete": self.delete,
            "GET /vectors/fetch": self.fetch,
            "POST /query": self.query,
            "POST /describe_index_stats": self.stats,
        }

    def upsert(self, _: Sequence[str], body: Any) -> Answer:
        vectors = body["vectors"]
        self._dimension = self._dimension or len(vectors[0]["values"])
        if wrong := [each["id"] for each in vectors if len(each["values"]) != self._dimension]:
            message = f"Vector dimension of {wrong} does not match the dimension of the index {self._dimension}"
            return HTTPStatus.BAD_REQUEST, {"code": 3, "message": message}
        self._namespaces.setdefault(body.get("namespace", ""), {}).update({each["id"]: each for each in vectors})
        return OK, {"upsertedCount": len(vectors)}

    def delete(self, _: Sequence[str], body: Any) -> Answer:
        namespace = body.get("namespace", "")
        if body.get("deleteAll"):
            self._namespaces.pop(namespace, None)
        for each in body.get("ids", []):
            self._namespaces.get(namespace, {}).pop(each, None)
        return OK, {}

    def fetch(self, _: Sequence[str], query: Mapping[str, list[str]]) -> Answer:
        namespace = query.get("namespace", [""])[0]
        held = self._namespaces.get(namespace, {})
        return OK, {"vectors": {each: held[each] for each in query["ids"] if each in held}, "namespace": namespace}

    def query(self, _: Sequence[str], body: Any) -> Answer:
        if len(body["vector"]) != self._dimension:
            return HTTPStatus.BAD_REQUEST, {"code": 3, "message": f"Vector dimension is not {self._dimension}"}
        held = self._namespaces.get(body.get("namespace", ""), {})
        fitting = [each for each in held.values() if fits(each["metadata"], body.get("filter") or {})]
        if not fitting:
            return OK, {"matches": [], "namespace": body.get("namespace", "")}
        matrix = np.array([each["values"] for each in fitting])
        vector = np.array(body["vector"])
        scores = matrix @ vector / (np.linalg.norm(matrix, axis=1) * np.linalg.norm(vector))
        order = np.argsort(-scores, kind="stable")[: body["topK"]]
        matches = [
            {"id": fitting[n]["id"], "score": float(scores[n]), "metadata": fitting[n]["metadata"]} for n in order
        ]
        return OK, {"matches": matches, "namespace": body.get("namespace", "")}

    def stats(self, _: Sequence[str], __: Any) -> Answer:
        namespaces = {name: {"vectorCount": len(held)} for name, held in self._namespaces.items()}
        total = sum(map(len, self._namespaces.values()))
        return OK, {
            "namespaces": namespaces,
            "dimension": self._dimension,
            "metric": "cosine",
            "totalVectorCount": total,
            "indexFullness": 0.0,
        }


def fits(metadata: Mapping[str, Any], wanted: Mapping[str, Mapping[str, Any]]) -> bool:
    return all(
        field in metadata and COMPARISONS[name](metadata[field], value)
        for field, conditions in wanted.items()
        for name, value in conditions.items()
    )


if __name__ == "__main__":
    serve(int(sys.argv[1]), Local().routes(), "api-key", os.environ.get("VECTOR_DB_API_KEY"))
