"""What Serve's HTTP server in a replica is told of a prediction: that the service keeps its time and its caller itself.

Serve would wait for each with two tasks and a timer of its own, which cost a request more than its tokenisation. The
service has its own limit (`request_timeout_s`), asks whether the caller is there before a batch runs, and HAProxy's
limit comes after both (`config/ray.env`). Everything that is not a prediction keeps Serve's limits.
"""

from ray import serve
from ray.serve.exceptions import RayServeException
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Receive, Scope, Send

# How a caller tells Serve, per request, not to watch for his leaving, and to have no limit of time.
UNWATCHED = [(b"x-request-disconnect-disabled", b"?1"), (b"x-request-timeout-seconds", b"0")]


class Unwatched:
    """ASGI middleware: adds UNWATCHED to the headers of predictions."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "POST" and scope["path"].endswith("/predict"):
            scope["headers"] = [*scope["headers"], *UNWATCHED]
        await self.app(scope, receive, send)


def middlewares() -> list[Middleware]:
    """Called by Serve (RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH) in replicas and in proxies.

    None in a proxy: what comes there waits for a replica, and shall not do so without a limit.
    """
    try:
        serve.get_replica_context()
    except RayServeException:
        return []
    return [Middleware(Unwatched)]
