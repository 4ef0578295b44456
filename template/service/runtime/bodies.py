"""The JSON body of a request: read with a limit, refused in words, and given up when the caller leaves."""

import asyncio
from collections.abc import Coroutine
from typing import Any, cast

from pydantic import ValidationError
from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive, Scope

from service.runtime.problems import ProblemError

MAX_BODY_BYTES = 4 * 1024 * 1024
MAX_BODY_S = 10.0


def invalid(error: ValidationError) -> ProblemError:
    """The problem that tells a caller what is wrong with a body."""
    faults = error.errors(include_url=False, include_context=False, include_input=False)
    if faults[0]["type"] == "json_invalid":
        return ProblemError(400, "not-json", "Not JSON", faults[0]["msg"])
    # A key of the caller's own may be as long as the body.
    listed = [{"at": ".".join(map(str, fault["loc"]))[:200], "message": fault["msg"]} for fault in faults[:20]]
    first = f"{listed[0]['at'] or 'body'}: {listed[0]['message']}"
    return ProblemError(422, "invalid-request", "Invalid request", first, errors=listed)


def arrived(receive: Receive) -> Message | None:
    """The next message if it is here already. A task that waits for it costs a request as much as its tokenisation."""
    waiting = cast(Coroutine[Any, Any, Message], receive())
    try:
        waiting.send(None)
    except StopIteration as done:
        return cast(Message, done.value)
    waiting.close()
    return None


def has_left(receive: Receive) -> bool:
    """Whether the caller is gone, asked once the body was read."""
    message = arrived(receive)
    return message is not None and message["type"] == "http.disconnect"


async def read_body(scope: Scope, receive: Receive) -> bytes:
    """The body, refused before it is read when its declared length or type is wrong, while it grows too large, and
    when it is not there in time: who sends slowly holds memory and a connection."""
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
    message = arrived(receive)  # most bodies come with their headers, and a timer costs as much as all else here
    body = b"" if message is None else _grown(b"", message)
    if message is not None and not message.get("more_body"):
        return body
    try:
        async with asyncio.timeout(MAX_BODY_S):
            while True:
                message = await receive()
                body = _grown(body, message)
                if not message.get("more_body"):
                    return body
    except TimeoutError:
        detail = f"the body was not here within {MAX_BODY_S} s"
        raise ProblemError(408, "body-too-slow", "Body too slow", detail) from None


def _grown(body: bytes, message: Message) -> bytes:
    if message["type"] == "http.disconnect":
        raise ClientDisconnect
    grown: bytes = body + message.get("body", b"")
    if len(grown) > MAX_BODY_BYTES:
        raise _too_large(len(grown))
    return grown


def _too_large(size: int) -> ProblemError:
    detail = f"a body may have {MAX_BODY_BYTES} bytes and this one has {size} or more"
    return ProblemError(413, "body-too-large", "Body too large", detail)
