"""Documents as context: a model that does not embed reads those nearest to each instance."""

from typing import Any

import httpx
import pytest

from service.runtime.retrieval import Document
from service.runtime.vector_index import load_retrieval_settings
from tests.contract.conftest import MODELS
from tests.contract.indexed import documents

__all__ = ["documents"]

EMBEDDER = load_retrieval_settings().embedder


@pytest.mark.parametrize("model", [name for name in MODELS if name != EMBEDDER])
def test_a_model_reads_the_documents_nearest_to_each_instance(
    http: httpx.Client, model: str, example: dict[str, Any], documents: list[Document]
) -> None:
    instances = [example, {**example, "text": documents[3].text}]
    response = http.post(f"/v1/models/{model}/predict", json={"instances": instances})
    assert response.status_code == 200, response.text
    assert response.json()["degraded"] == []
    first, second = response.json()["documents"]
    assert second[0] == documents[3].id
    assert first != second
