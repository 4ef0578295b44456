"""How texts become instances of the embedding model, and its predictions vectors. This file is yours.

Some models want a query and a document marked, as in `query: ...` and `passage: ...`: their card says so.
"""

from typing import Any

# Raise it when a text gets another vector than before, by a change here or in the model: a new index is then built and
# searched, and the old one stays with the replicas that still use it.
VERSION = 1


def query(text: str) -> dict[str, Any]:
    """The instance of a text that is searched for."""
    return {"text": text}


def document(text: str) -> dict[str, Any]:
    """The instance of a text that is found."""
    return {"text": text}


def vector(prediction: Any) -> list[float]:
    """The vector of a prediction, of length 1."""
    return list(prediction.embedding)
