"""What the service counts, under which names: one list for both serving modes. Exporters are `metrics_*.py`."""

from collections.abc import Callable, Sequence
from typing import Literal, Protocol

from service.runtime.interface import Tokens

Outcome = Literal["ok", "invalid", "too_long", "overloaded", "timeout", "cancelled", "error"]
Record = Callable[..., None]

# Upper bounds in seconds: dense round the usual objectives, because quantiles are read from them.
LATENCY_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.75, 1, 1.5, 2.5, 5, 10, 30)


class Exporter(Protocol):
    """Makes metrics. Each call returns a recorder, called as `record(amount, *label_values)`.

    All metrics carry the label `model` besides those named. A second call with the same name reuses the metric.
    """

    def counter(self, name: str, description: str, model: str, *labels: str) -> Record: ...

    def histogram(self, name: str, description: str, model: str, bounds: Sequence[float], *labels: str) -> Record: ...

    def gauge(self, name: str, description: str, model: str) -> Record: ...


class ModelMetrics:
    """The metrics of one model. Means come from these counters: Ray's histogram sums are approximations."""

    def __init__(self, exporter: Exporter, model: str) -> None:
        def counter(name: str, description: str, *labels: str) -> Record:
            return exporter.counter(name, description, model, *labels)

        self._requests = counter("service_requests_total", "Prediction requests by outcome.", "outcome")
        self._request_seconds = exporter.histogram(
            "service_request_seconds", "Time from request to response, in seconds.", model, LATENCY_BUCKETS_S
        )
        self._truncated = counter("service_truncated_inputs_total", "Inputs cut to the token limit.")
        self._dropped = counter("service_dropped_inputs_total", "Inputs dropped unrun: caller gone or deadline passed.")
        self._batches = counter("service_batches_total", "Batches run.")
        self._inputs = counter("service_batch_inputs_total", "Inputs run.")
        self._tokens = counter("service_batch_tokens_total", "Tokens run, padding not counted.")
        self._padded = counter("service_batch_padded_tokens_total", "Tokens run, padding counted.")
        self._busy = counter("service_batch_seconds_total", "Seconds that the model was running.")
        self.load_seconds = exporter.gauge("service_model_load_seconds", "Time to load and warm up.", model)

    def request(self, outcome: Outcome, seconds: float) -> None:
        self._requests(1, outcome)
        self._request_seconds(seconds)

    def truncated(self, inputs: int) -> None:
        self._truncated(inputs)

    def dropped(self, inputs: int) -> None:
        self._dropped(inputs)

    def batch(self, inputs: Sequence[Tokens], seconds: float) -> None:
        lengths = [len(item.ids) for item in inputs]
        self._batches(1)
        self._inputs(len(lengths))
        self._tokens(sum(lengths))
        self._padded(len(lengths) * max(lengths))
        self._busy(seconds)
