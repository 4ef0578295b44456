"""That Ray of the pinned version understands what a replica tells it of each prediction, and is told nothing else."""

import asyncio

import pytest
from ray.serve._private.http_util import parse_disconnect_disabled_header, parse_request_timeout_header
from starlette.types import Receive, Scope, Send

from service.runtime.ray_http import Unwatched, middlewares


@pytest.mark.parametrize(
    ("method", "path", "watched"),
    [
        ("POST", "/v1/models/m/predict", False),
        ("GET", "/v1/models/m/predict", True),
        ("POST", "/v1/search", True),
        ("GET", "/v1/models", True),
    ],
)
def test_serve_leaves_predictions_to_the_service_and_nothing_else(method: str, path: str, watched: bool) -> None:
    seen: list[Scope] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope)

    async def unused() -> None:
        raise AssertionError

    # What a caller asks for himself does not matter for a prediction.
    given = [(b"x-request-timeout-seconds", b"3600")]
    scope: Scope = {"type": "http", "method": method, "path": path, "headers": given}
    asyncio.run(Unwatched(app)(scope, unused, unused))  # type: ignore[arg-type]
    headers = dict(seen[0]["headers"])
    assert parse_disconnect_disabled_header(headers) is not watched
    assert parse_request_timeout_header(headers, 12) == (3600 if watched else None)


def test_a_proxy_keeps_its_limits() -> None:
    assert middlewares() == []  # as here, a proxy is no replica
