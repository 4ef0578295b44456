"""The feature store of the tests: the one that FEATURE_STORE_URL names, or an embedded Valkey of their own."""

import os
from collections.abc import Iterator

import pytest

from tests.local_store import running_store


@pytest.fixture(scope="session", autouse=True)
def feature_store() -> Iterator[str]:
    """URL of the store; the service that the tests start reads it from the environment."""
    if given := os.environ.get("FEATURE_STORE_URL"):
        yield given
        return
    with running_store() as url, pytest.MonkeyPatch.context() as patch:
        patch.setenv("FEATURE_STORE_URL", url)
        yield url
