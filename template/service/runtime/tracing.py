"""Traces: what a request spent its time on, sent to a collector by OpenTelemetry.

Off until OTEL_EXPORTER_OTLP_ENDPOINT names the collector. Then one request in a hundred is traced, and each that comes
with a `traceparent` whose sender traces it; OTEL_TRACES_SAMPLER and the other variables of OpenTelemetry's SDK change
that. A trace is made when its request has ended, from the stages that are recorded anyway (`stages.py`).
"""

import os
import time
from collections.abc import Sequence
from functools import cache
from random import random
from typing import TYPE_CHECKING

from service.runtime.stages import Stage

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer

SAMPLED, SAMPLER = 0.01, "OTEL_TRACES_SAMPLER"


@cache
def tracer() -> "Tracer | None":
    """This process's own, not the global one, which belongs to Ray where Ray traces. None: nothing is traced."""
    if not os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT"):
        return None
    # Not at the top: half a second that a service without traces need not wait.
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.sdk.trace.sampling import DEFAULT_ON

    provider = TracerProvider(sampler=None if SAMPLER in os.environ else DEFAULT_ON)  # what `wanted` has let through
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider.get_tracer("service")


def wanted(headers: Sequence[tuple[bytes, bytes]]) -> bool:
    """Is this request perhaps to be traced? Asked first, as what OpenTelemetry does costs each request something."""
    if SAMPLER in os.environ or random() < SAMPLED:  # noqa: S311 a sample, no secret
        return True
    return any(key == b"traceparent" for key, _ in headers)


def trace(
    name: str,
    headers: Sequence[tuple[bytes, bytes]],
    started_s: float,
    stages: Sequence[Stage],
    request_id: str,
    outcome: str,
) -> None:
    """Send the trace of a request that has just ended: a span of `name`, and one below it for each stage.

    headers: of the request. started_s: by `time.monotonic`, as the stages' times are.
    """
    made_by = tracer()
    if made_by is None or not wanted(headers):
        return
    from opentelemetry.trace import set_span_in_context
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    offset_s = time.time() - time.monotonic()

    def at_ns(monotonic_s: float) -> int:
        return int((monotonic_s + offset_s) * 1e9)

    carrier = {key.decode("latin-1"): value.decode("latin-1") for key, value in headers}
    parent = TraceContextTextMapPropagator().extract(carrier)
    attributes = {"request_id": request_id, "outcome": outcome}
    span = made_by.start_span(name, parent, attributes=attributes, start_time=at_ns(started_s))
    if span.is_recording():
        below = set_span_in_context(span)
        for each in stages:
            attributes = {"model": each.model, **each.details}
            child = made_by.start_span(each.name, below, attributes=attributes, start_time=at_ns(each.started_s))
            child.end(at_ns(each.ended_s))
    span.end()
