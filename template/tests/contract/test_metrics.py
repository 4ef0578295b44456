"""`/metrics` of the container, as Prometheus scrapes it."""

from typing import Any

import httpx


def value_of(http: httpx.Client, series: str) -> float:
    lines = http.get("/metrics").text.splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(series + " "))


def test_requests_and_inputs_are_counted_exactly(http: httpx.Client, model: str, example: dict[str, Any]) -> None:
    requests = f'service_requests_total{{model="{model}",outcome="ok"}}'
    inputs = f'service_batch_inputs_total{{model="{model}"}}'
    before = value_of(http, requests), value_of(http, inputs)
    http.post(f"/v1/models/{model}/predict", json={"instances": [example] * 3})
    assert value_of(http, requests) == before[0] + 1
    assert value_of(http, inputs) == before[1] + 3


def test_a_refused_request_counts_as_invalid(http: httpx.Client, model: str) -> None:
    invalid = f'service_requests_total{{model="{model}",outcome="invalid"}}'
    before = value_of(http, invalid)
    http.post(f"/v1/models/{model}/predict", json={"instances": []})
    assert value_of(http, invalid) == before + 1
