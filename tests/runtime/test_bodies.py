"""What a body may cost: a limit in time, and few words about what is wrong with it."""

import asyncio
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.types import Message

from service.runtime import bodies
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
