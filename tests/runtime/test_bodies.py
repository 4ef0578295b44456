"""What a body may cost: a limit in time, few words about what is wrong with it, and no memory once it is refused."""

import asyncio
import gc
import weakref
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.types import Message, Receive, Scope, Send

from service.runtime import bodies
from service.runtime.ingress import Ingress
from service.runtime.problems import ProblemError


class Nothing(BaseModel):
    model_config = ConfigDict(extra="forbid")


def test_a_body_that_does_not_arrive_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "MAX_BODY_S", 0.05)
    parts: list[Message] = [{"type": "http.request", "body": b"{", "more_body": True}]

    async def receive() -> Message:
        if parts:
            return parts.pop()
        await asyncio.Event().wait()
        raise AssertionError

    with pytest.raises(ProblemError, match=r"was not here within 0\.05 s") as refused:
        asyncio.run(bodies.read_body({"type": "http", "headers": []}, receive))
    assert refused.value.status == 408


def test_a_body_that_came_whole_needs_no_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    async def receive() -> Message:
        return {"type": "http.request", "body": b"{}"}

    def timeout(_seconds: float) -> None:
        raise AssertionError("a timer costs as much as the rest")

    monkeypatch.setattr(asyncio, "timeout", timeout)
    assert asyncio.run(bodies.read_body({"type": "http", "headers": []}, receive)) == b"{}"


@pytest.mark.parametrize("parts", [1, 3])
def test_a_body_of_no_declared_length_is_refused_once_it_is_too_large(parts: int) -> None:
    async def receive() -> Message:
        part = b" " * (bodies.MAX_BODY_BYTES // parts + 1)
        return {"type": "http.request", "body": part, "more_body": parts > 1}

    with pytest.raises(ProblemError, match=f"a body may have {bodies.MAX_BODY_BYTES} bytes") as refused:
        asyncio.run(bodies.read_body({"type": "http", "headers": []}, receive))
    assert refused.value.status == 413


def test_asking_whether_the_caller_has_left_takes_nothing_that_comes_later() -> None:
    async def scenario() -> None:
        messages: asyncio.Queue[Message] = asyncio.Queue()
        assert not bodies.has_left(messages.get)
        assert not bodies.has_left(messages.get)
        waiting = asyncio.ensure_future(messages.get())
        messages.put_nowait({"type": "http.request"})
        assert (await waiting)["type"] == "http.request"
        messages.put_nowait({"type": "http.disconnect"})
        assert bodies.has_left(messages.get)

    asyncio.run(scenario())


def test_a_fault_is_told_in_few_words_however_long_the_key() -> None:
    with pytest.raises(ValidationError) as faults:
        Nothing.model_validate({"k" * 100_000: 1})
    errors: Any = bodies.invalid(faults.value).extra["errors"]
    assert len(errors[0]["at"]) == 200


class Body:
    """What a request brought."""


@pytest.mark.parametrize("status", [422, 500])
def test_the_memory_of_a_refused_body_is_free_before_the_garbage_collector_comes(status: int) -> None:
    held: list[weakref.ref[Body]] = []
    sent: list[Message] = []

    async def endpoint(scope: Scope, receive: Receive, send: Send) -> None:
        body = Body()
        held.append(weakref.ref(body))
        error = ProblemError(status, "refused", "Refused", f"{body}") if status == 422 else ValueError(f"{body}")
        raise error

    async def receive() -> Message:
        raise AssertionError

    async def send(message: Message) -> None:
        sent.append(message)

    scope: Scope = {"type": "http", "method": "GET", "path": "/", "headers": []}
    gc.disable()
    try:
        asyncio.run(Ingress(endpoint, {}, behind_serve=False)(scope, receive, send))
        assert held[0]() is None
    finally:
        gc.enable()
    assert sent[0]["status"] == status
