"""What the service counts, under which names: one list for both serving modes. Exporters are `metrics_*.py`."""

from collections.abc import Callable, Sequence
from typing import Literal, Protocol, get_args

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
    """The metrics of one model. Means come from these counters: Ray's histogram sums are approximations.

    objective_s: the latency that the service promises. What is later is counted by itself, and the buckets stay as they
    are: Ray drops a histogram whose buckets differ from those that a process before it had.
    """

    def __init__(self, exporter: Exporter, model: str, objective_s: float) -> None:
        self.model = model

        def counter(name: str, description: str, *labels: str) -> Record:
            return exporter.counter(name, description, model, *labels)

        self._requests = counter("service_requests_total", "Prediction requests by outcome.", "outcome")
        for outcome in get_args(Outcome):  # 0 from the start, or the first failures of a process are no increase
            self._requests(0, outcome)
        self._request_seconds = exporter.histogram(
            "service_request_seconds",
            "Time from request to response, in seconds, of requests answered with predictions.",
            model,
            LATENCY_BUCKETS_S,
        )
        self._late = counter("service_late_requests_total", "Answered requests that took longer than the objective.")
        self._objective_s = objective_s
        self._truncated = counter("service_truncated_inputs_total", "Inputs cut to the token limit.")
        self._dropped = counter("service_dropped_inputs_total", "Inputs dropped unrun: caller gone or deadline passed.")
        self._queue_wait = exporter.histogram(
            "service_queue_wait_seconds", "Time an input waited for its batch, in seconds.", model, LATENCY_BUCKETS_S
        )
        self._queued_seconds = counter("service_queued_seconds_total", "Seconds that inputs waited for their batches.")
        self._batches = counter("service_batches_total", "Batches run.")
        self._inputs = counter("service_batch_inputs_total", "Inputs run.")
        self._tokens = counter("service_batch_tokens_total", "Tokens run, padding not counted.")
        self._padded = counter("service_batch_padded_tokens_total", "Tokens run, padded to the longest of their batch.")
        self._busy = counter("service_batch_seconds_total", "Seconds that the model was running.")
        described = "Seconds that the cost model expected of the batches run."
        self._predicted = counter("service_batch_predicted_seconds_total", described)
        self.load_seconds = exporter.gauge("service_model_load_seconds", "Time to load and warm up.", model)
        self.queue_inputs = exporter.gauge("service_queue_inputs", "Inputs that wait for a batch.", model)
        self.ready = exporter.gauge("service_replica_ready", "1 while this replica can answer, else 0.", model)
        self._exporter = exporter

    def request(self, outcome: Outcome, seconds: float) -> None:
        self._requests(1, outcome)
        if outcome == "ok":
            self._request_seconds(seconds)
            if seconds > self._objective_s:
                self._late(1)

    def gpu_memory(self) -> tuple[Record, Record, Record]:
        """Gauges of bytes that only exist on a GPU: held by this process, its share, and free on the card."""

        def gauge(name: str, description: str) -> Record:
            return self._exporter.gauge(name, description, self.model)

        return (
            gauge("service_gpu_memory_reserved_bytes", "GPU memory that PyTorch holds here, in bytes."),
            gauge("service_gpu_memory_share_bytes", "GPU memory that PyTorch may hold here, in bytes."),
            gauge("service_gpu_memory_free_bytes", "GPU memory that is free on the card, in bytes."),
        )

    def truncated(self, inputs: int) -> None:
        self._truncated(inputs)

    def dropped(self, inputs: int) -> None:
        self._dropped(inputs)

    def batch(
        self, inputs: Sequence[Tokens], waited_s: Sequence[float], seconds: float, predicted_seconds: float
    ) -> None:
        """Count a batch. waited_s: how long each input was queued. predicted_seconds: what the cost model expected."""
        lengths = [len(item.ids) for item in inputs]
        self._batches(1)
        self._inputs(len(lengths))
        self._tokens(sum(lengths))
        self._padded(len(lengths) * max(lengths))
        self._busy(seconds)
        self._predicted(predicted_seconds)
        self._queued_seconds(sum(waited_s))
        for each_s in waited_s:
            self._queue_wait(each_s)
