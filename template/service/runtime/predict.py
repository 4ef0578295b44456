"""One prediction request, from bytes to bytes: read, check, predict, answer, count, log.

Plain ASGI: a framework's routing, dependency and serialisation layers cost about as much processor time as a whole
batch gives one short text, and every request would pay it.
"""

import asyncio
import logging
import math
import time
from collections.abc import Coroutine
from typing import Any, TypeVar, cast

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, create_model
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from service.runtime.batcher import DeadlinePassed, QueueFull
from service.runtime.metrics import Outcome
from service.runtime.problems import ProblemError
from service.runtime.served import ServedModel, TextTooLong

log = logging.getLogger(__name__)
T = TypeVar("T")

MAX_BODY_BYTES = 4 * 1024 * 1024


class PredictEndpoint:
    """ASGI endpoint of one model: one or many instances in, as many predictions out, in the same order.

    request_type, response_type: the pydantic models of the bodies, for the documentation. The scope must hold
    `service.request_id`. behind_serve: Ray Serve hosts the app, and itself cancels requests whose caller has left.
    """

    def __init__(self, served: ServedModel, behind_serve: bool) -> None:
        self._served = served
        self._behind_serve = behind_serve
        prefix = "".join(part.capitalize() for part in served.settings.name.split("-"))
        self.request_type: type[BaseModel] = create_model(
            f"{prefix}Request",
            __config__=ConfigDict(extra="forbid"),
            instances=(list[served.instance], Field(min_length=1)),  # type: ignore[name-defined]
        )
        self.response_type: type[BaseModel] = create_model(
            f"{prefix}Response",
            model=(str, ...),
            revision=(str, ...),
            request_id=(str, ...),
            predictions=(list[served.prediction], ...),  # type: ignore[name-defined]
            **served.response_fields,
        )
        self._parse = TypeAdapter(self.request_type).validate_json
        self._dump = TypeAdapter(self.response_type).dump_json

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; raises ProblemError for what must be answered as a problem."""
        started_s = time.perf_counter()
        settings = self._served.settings
        request_id = scope["service.request_id"]
        outcome: Outcome = "error"
        instances: list[Any] = []
        try:
            instances = self._checked(await _read_body(scope, receive))
            answer = await _unless_disconnected(receive, self._served.predict(instances), watch=not self._behind_serve)
            body = self._dump(
                self.response_type.model_construct(
                    model=settings.name,
                    revision=settings.revision,
                    request_id=request_id,
                    predictions=answer.predictions,
                    **answer.details,
                )
            )
            outcome = "ok"
            headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": body})
        except ProblemError:
            outcome = "invalid"
            raise
        except TextTooLong as error:
            outcome = "too_long"
            raise ProblemError(422, "text-too-long", "Text too long", str(error)) from None
        except QueueFull as error:
            outcome = "overloaded"
            retry_s = str(max(1, math.ceil(error.retry_after_s)))
            raise ProblemError(429, "queue-full", "Too much is queued", str(error), {"retry-after": retry_s}) from None
        except DeadlinePassed:
            outcome = "timeout"
            detail = f"no prediction within {settings.request_timeout_s} s"
            raise ProblemError(504, "deadline-passed", "Too late", detail) from None
        except ClientDisconnect:
            outcome = "cancelled"  # nobody is left to answer
        except asyncio.CancelledError:
            outcome = "cancelled"
            raise
        finally:
            seconds = time.perf_counter() - started_s
            self._served.metrics.request(outcome, seconds)
            log.info(
                "predict",
                extra={
                    "model": settings.name,
                    "request_id": request_id,
                    "outcome": outcome,
                    "instances": len(instances),
                    "duration_ms": round(seconds * 1e3, 2),
                },
            )

    def _checked(self, body: bytes) -> list[Any]:
        """The instances of a body."""
        try:
            instances: list[Any] = cast(Any, self._parse(body)).instances
        except ValidationError as error:
            raise _invalid(error) from None
        limit = self._served.limits.max_queue_length
        if len(instances) > limit:
            raise ProblemError(
                422,
                "too-many-instances",
                "Too many instances",
                f"a request may hold {limit} instances and this one has {len(instances)}: send several requests",
            )
        return instances


def _invalid(error: ValidationError) -> ProblemError:
    faults = error.errors(include_url=False, include_context=False, include_input=False)
    if faults[0]["type"] == "json_invalid":
        return ProblemError(400, "not-json", "Not JSON", faults[0]["msg"])
    listed = [{"at": ".".join(map(str, fault["loc"])), "message": fault["msg"]} for fault in faults[:20]]
    first = f"{listed[0]['at'] or 'body'}: {listed[0]['message']}"
    return ProblemError(422, "invalid-request", "Invalid request", first, errors=listed)


async def _read_body(scope: Scope, receive: Receive) -> bytes:
    """The body, refused before it is read when its declared length or type is wrong, and while it grows too large."""
    media_type, declared = b"application/json", b"0"
    for name, value in scope["headers"]:
        if name == b"content-type":
            media_type = value.partition(b";")[0].strip().lower()
        elif name == b"content-length":
            declared = value
    if media_type != b"application/json" and not media_type.endswith(b"+json"):
        detail = f"send application/json, not {media_type.decode('latin-1')!r}"
        raise ProblemError(415, "not-json-type", "Unsupported media type", detail)
    if declared.isdigit() and int(declared) > MAX_BODY_BYTES:
        raise _too_large(int(declared))
    body: bytes = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        body += message.get("body", b"")
        if len(body) > MAX_BODY_BYTES:
            raise _too_large(len(body))
        if not message.get("more_body"):
            return body


def _too_large(size: int) -> ProblemError:
    detail = f"a body may have {MAX_BODY_BYTES} bytes and this one has {size} or more"
    return ProblemError(413, "body-too-large", "Body too large", detail)


async def _unless_disconnected(receive: Receive, work: Coroutine[Any, Any, T], watch: bool) -> T:
    """The result of `work`; ClientDisconnect, and `work` cancelled, when the caller leaves first."""
    if not watch:
        return await work
    task = cast(asyncio.Task[Any], asyncio.current_task())

    async def until_disconnect() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    watcher = asyncio.ensure_future(until_disconnect())
    watcher.add_done_callback(lambda done: None if done.cancelled() else task.cancel())
    try:
        return await work
    except asyncio.CancelledError:
        if watcher.done() and not watcher.cancelled():
            task.uncancel()
            raise ClientDisconnect from None
        raise
    finally:
        watcher.cancel()
