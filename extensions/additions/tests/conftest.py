"""The stores of the tests: those that the environment names, or embedded ones of their own."""

from collections.abc import Iterator

import pytest

from tests.local_store import running_stores


@pytest.fixture(scope="session", autouse=True)
def stores() -> Iterator[None]:
    """The environment tells where they are, to the tests and to the service that they start."""
    with running_stores(unless_named=True) as found, pytest.MonkeyPatch.context() as patch:
        for name, value in found.items():
            patch.setenv(name, value)
        yield
