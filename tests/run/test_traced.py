"""Traces reach a collector: a span for the request, below it one for each stage, tied to whoever asked."""

import httpx
import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.observe.collector import collector
from tests.run.conftest import Render
from tests.run.light import put_light_embedder, put_light_model
from tests.run.service import feature_store, wait_for
from tests.run.test_observed import QUERY, body, fill, started
from tests.variants import second_model

TRACE, CALLER = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SENT_ON = {"traceparent": f"00-{TRACE}-{CALLER}-01"}


def below(spans: list[Span], parent: Span) -> list[Span]:
    return [span for span in spans if span.parent_span_id == parent.span_id]


@pytest.mark.parametrize("mode", ["container", "ray"])
def test_a_traced_request_shows_its_stages_and_one_in_a_hundred_others_is_traced(
    mode: str, render: Render, request: pytest.FixtureRequest
) -> None:
    second = second_model(name="light")
    patient = {"latency_objective_ms": 4000}  # on a busy machine too, searches come in time
    folder = render(serving=mode, features="redis", vector_db="qdrant_cloud", more_models=[second], **patient)
    put_light_embedder(folder, "minilm")
    put_light_model(folder, "light")
    with collector() as (address, spans), feature_store(folder) as env:
        fill(folder, env)
        traced = {"OTEL_EXPORTER_OTLP_ENDPOINT": address, "OTEL_BSP_SCHEDULE_DELAY": "200"}
        with started(folder, request, {**env, **traced}) as (url, _), httpx.Client(base_url=url, timeout=30) as client:
            path, asked = body("light", count=2)
            assert client.post(path, json=asked, headers=SENT_ON).status_code == 200
            wait_for("the trace is here", lambda: any(span.name == "predict light" for span in spans), 30)
            assert client.post(QUERY[0], json=QUERY[1], headers=SENT_ON).status_code == 200
            wait_for("the other trace is here", lambda: any(span.name == "search" for span in spans), 30)
            for _ in range(100):
                client.post(path, json=asked)
            assert client.post(path, json=asked, headers=SENT_ON).status_code == 200
            wait_for("the last trace is here", lambda: len(of_caller(spans, "predict light")) == 2, 30)
    root = of_caller(spans, "predict light")[0]
    assert {span.name for span in below(spans, root)} >= {"features", "documents", "tokenize", "queue", "batch"}
    for span in below(spans, root):
        assert root.start_time_unix_nano <= span.start_time_unix_nano <= span.end_time_unix_nano
        assert span.end_time_unix_nano <= root.end_time_unix_nano
    (search,) = of_caller(spans, "search")
    # In Ray the front passes a search on to a replica that embeds, and sees no more of it than its time.
    inside = {"tokenize", "queue", "batch", "search"} if mode == "container" else set()
    assert {span.name for span in below(spans, search)} >= inside
    others = [span for span in spans if span.name == "predict light" and not span.parent_span_id]
    assert len(others) < 20


def of_caller(spans: list[Span], name: str) -> list[Span]:
    """The spans of this name that continue the caller's trace."""
    return [
        span
        for span in spans
        if span.name == name and span.trace_id.hex() == TRACE and span.parent_span_id.hex() == CALLER
    ]
