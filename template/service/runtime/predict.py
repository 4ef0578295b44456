"""One prediction request, from bytes to bytes: read, check, predict, answer, count, log.

Plain ASGI: a framework's routing, dependency and serialisation layers cost about as much processor time as a whole
batch gives one short text, and every request would pay it.
"""

import asyncio
import logging
import math
import time
from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any, cast

from pydantic import BaseModel, ConfigDict, FailFast, Field, TypeAdapter, ValidationError, create_model
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from service.runtime.batcher import BatcherStopped, CallerLeft, DeadlinePassed, QueueFull
from service.runtime.bodies import has_left, invalid, read_body
from service.runtime.metrics import Outcome
from service.runtime.problems import ProblemError
from service.runtime.served import ServedModel, TextTooLong
from service.runtime.stages import Stage, begin, summary
from service.runtime.tracing import trace, tracer

log = logging.getLogger(__name__)

REFUSALS = (TextTooLong, QueueFull, DeadlinePassed, BatcherStopped, CallerLeft, ClientDisconnect)
# A body of this size is tokenised in a thread: all of it is read, whatever the limit of tokens, and 4 MB take seconds.
LARGE_BODY_BYTES = 64 * 1024


def refusal(error: Exception) -> tuple[Outcome, ProblemError]:
    """How one of REFUSALS is counted, and what its caller is told."""
    if isinstance(error, TextTooLong):
        return "too_long", ProblemError(422, "text-too-long", "Text too long", str(error))
    if isinstance(error, QueueFull):
        headers = {"retry-after": str(max(1, math.ceil(error.retry_after_s)))}
        return "overloaded", ProblemError(429, "queue-full", "Too much is queued", str(error), headers)
    if isinstance(error, BatcherStopped):
        return "error", ProblemError(503, "batcher-stopped", "Out of order", str(error))
    if isinstance(error, CallerLeft | ClientDisconnect):  # nobody is left to read it: it is Serve that counts it
        return "cancelled", ProblemError(499, "caller-left", "Caller left", "the caller closed the connection")
    return "timeout", ProblemError(504, "deadline-passed", "Too late", str(error))


class PredictEndpoint:
    """ASGI endpoint of one model: one or many instances in, as many predictions out, in the same order.

    request_type, response_type: the pydantic models of the bodies, for the documentation. The scope must hold
    `service.request_id`.
    """

    summary = "Predict: one or many instances in, as many predictions out, in the same order."

    def __init__(self, served: ServedModel) -> None:
        self._served = served
        prefix = "".join(part.capitalize() for part in served.settings.name.split("-"))
        self.request_type: type[BaseModel] = create_model(
            f"{prefix}Request",
            __config__=ConfigDict(extra="forbid"),
            # To the first fault: millions of faults take seconds to describe, and gigabytes.
            instances=(cast(Any, Annotated[list[served.instance], FailFast()]), Field(min_length=1)),  # type: ignore[name-defined]
        )
        self.response_type: type[BaseModel] = create_model(
            f"{prefix}Response",
            model=(str, ...),
            revision=(str, ...),
            request_id=(str, ...),
            predictions=(list[served.prediction], ...),  # type: ignore[name-defined]
            **served.response_fields,
        )
        tracer()  # makes it now, and not with the first request
        self._parse = TypeAdapter(self.request_type).validate_json
        self._dump = TypeAdapter(self.response_type).dump_json

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; raises ProblemError for what must be answered as a problem."""
        stages = begin()
        started_s = time.monotonic()
        settings = self._served.settings
        request_id = scope["service.request_id"]
        outcome: Outcome = "error"
        instances: list[Any] = []
        try:
            sent = await read_body(scope, receive)
            started_s = time.monotonic()  # how long a caller takes to send is not our latency
            instances = self._checked(sent)
            gone = partial(has_left, receive)
            answer = await self._served.predict(instances, len(sent) > LARGE_BODY_BYTES, gone)
            if gone():
                raise CallerLeft
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
        except REFUSALS as error:
            outcome, problem = refusal(error)
            raise problem from None
        except asyncio.CancelledError:
            outcome = "cancelled"
            raise
        finally:
            seconds = time.monotonic() - started_s
            self._served.metrics.request(outcome, seconds)
            trace(f"predict {settings.name}", scope["headers"], started_s, stages, request_id, outcome)
            # After the answers to all of a batch: no caller waits for the lines of those before, and lines written one
            # after the other cost half of what they do in between.
            asyncio.get_running_loop().call_soon(self._log, request_id, outcome, len(instances), seconds, stages)

    def _log(self, request_id: str, outcome: Outcome, instances: int, seconds: float, stages: Sequence[Stage]) -> None:
        name = self._served.settings.name
        log.info(
            "predict",
            extra={
                "model": name,
                "request_id": request_id,
                "outcome": outcome,
                "instances": instances,
                "duration_ms": round(seconds * 1e3, 2),
                **summary(stages, name),
            },
        )

    def _checked(self, body: bytes) -> list[Any]:
        """The instances of a body."""
        try:
            instances: list[Any] = cast(Any, self._parse(body)).instances
        except ValidationError as error:
            raise invalid(error) from None
        limit = self._served.limits.max_queue_length
        if len(instances) > limit:
            raise ProblemError(
                422,
                "too-many-instances",
                "Too many instances",
                f"a request may hold {limit} instances and this one has {len(instances)}: send several requests",
            )
        return instances
