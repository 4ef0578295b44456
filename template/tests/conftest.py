"""The feature store of the tests: the one that the environment names, or an embedded one of their own."""

import os
from collections.abc import Iterator

import pytest

from tests.local_store import running_store

NAMED_BY = ("FEATURE_STORE_URL", "FEATURE_STORE_CONFIG", "FEATURE_DATA")


@pytest.fixture(scope="session", autouse=True)
def feature_store() -> Iterator[None]:
    """The environment tells where the store is, to the tests and to the service that they start."""
    if any(os.environ.get(name) for name in NAMED_BY):
        yield
        return
    with running_store() as found, pytest.MonkeyPatch.context() as patch:
        for name, value in found.items():
            patch.setenv(name, value)
        yield
