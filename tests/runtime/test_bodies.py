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
