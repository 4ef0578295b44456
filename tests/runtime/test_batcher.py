"""What the batcher promises to requests: order, bounds, deadlines, and that nobody pays for another's fault."""

import asyncio
import gc
import time
import weakref
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from pydantic import BaseModel

from service.runtime.batcher import Batcher, BatcherStopped, CallerLeft, DeadlinePassed, QueueFull
from service.runtime.interface import Tokens
from service.runtime.metrics import ModelMetrics
from service.runtime.metrics_prometheus import PrometheusExporter
from service.runtime.partition import CostModel
from service.runtime.settings import BatchLimits


class Length(BaseModel):
    length: int


LIMITS = BatchLimits(max_batch_size=4, max_batch_tokens=1000, batch_wait_ms=0, max_queue_length=16)
COST = CostModel(fixed_s=0.01, per_token_s=0.0001)


class Recorder:
    """A model that answers each input's length and remembers the batches it ran."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.batches: list[list[int]] = []
        self.seconds = seconds

    def __call__(self, batch: Sequence[Tokens]) -> list[Length]:
        self.batches.append([len(item.ids) for item in batch])
        time.sleep(self.seconds)
        if any(len(item.ids) == 13 for item in batch):
            raise RuntimeError("unlucky")
        return [Length(length=len(item.ids)) for item in batch]


def of(*lengths: int) -> list[Tokens]:
    return [Tokens([0] * length) for length in lengths]


def run(
    test: Callable[[Batcher], Awaitable[Any]], model: Any, limits: BatchLimits = LIMITS, **options: Any
) -> CollectorRegistry:
    registry = CollectorRegistry()

    async def scenario() -> None:
        metrics = ModelMetrics(PrometheusExporter(registry), "m", 0.2)
        batcher = Batcher(model, limits, COST, metrics, **options)
        try:
            await asyncio.wait_for(test(batcher), 10)
        finally:
            await batcher.close()

    asyncio.run(scenario())
    return registry


def counted(registry: CollectorRegistry, name: str) -> float:
    return registry.get_sample_value(name, {"model": "m"}) or 0.0


@settings(deadline=None, max_examples=30)
@given(st.lists(st.lists(st.integers(1, 12), min_size=1, max_size=3), min_size=1, max_size=5), st.booleans())
def test_every_request_gets_its_own_answers_in_order(requests: list[list[int]], threaded: bool) -> None:
    async def scenario(batcher: Batcher) -> None:
        answers = await asyncio.gather(*(batcher.submit(of(*lengths), 5) for lengths in requests))
        assert answers == [[Length(length=length) for length in lengths] for lengths in requests]

    with ThreadPoolExecutor(1) as executor:
        run(scenario, Recorder(), executor=executor if threaded else None)


def test_one_input_runs_at_once_and_what_queued_meanwhile_runs_together() -> None:
    model = Recorder(seconds=0.02)

    async def scenario(batcher: Batcher) -> None:
        first = asyncio.ensure_future(batcher.submit(of(5), 5))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        await asyncio.gather(first, *(batcher.submit(of(7), 5) for _ in range(3)))

    run(scenario, model)
    assert model.batches == [[5], [7, 7, 7]]


def test_callers_who_send_again_at_once_share_the_next_batch() -> None:
    async def caller(batcher: Batcher, turns: int) -> None:
        for _ in range(3):
            await batcher.submit(of(5), 5)
            for _ in range(turns):  # the way through sockets and a proxy
                await asyncio.sleep(0)

    async def scenario(batcher: Batcher) -> None:
        batcher._cost = CostModel(fixed_s=10, per_token_s=0.0001)
        await asyncio.gather(*(caller(batcher, turns) for turns in (1, 30, 60)))

    model = Recorder()
    run(scenario, model)
    assert model.batches == [[5, 5, 5]] * 3


def test_no_batch_exceeds_its_limits() -> None:
    model = Recorder()
    limits = LIMITS.model_copy(update={"max_batch_tokens": 20})

    async def scenario(batcher: Batcher) -> None:
        await batcher.submit(of(*[3] * 9, 15), 5)

    run(scenario, model, limits)
    assert sum(map(len, model.batches)) == 10
    assert all(len(batch) <= 4 and (len(batch) == 1 or len(batch) * max(batch) <= 20) for batch in model.batches)


def test_the_oldest_input_is_in_the_next_batch_whatever_its_length() -> None:
    model = Recorder()

    async def scenario(batcher: Batcher) -> None:
        await asyncio.gather(batcher.submit(of(400), 5), *(batcher.submit(of(2), 5) for _ in range(10)))

    run(scenario, model)
    assert 400 in model.batches[0]


def test_short_texts_do_not_pay_for_the_padding_of_a_long_one() -> None:
    model = Recorder()

    async def scenario(batcher: Batcher) -> None:
        await batcher.submit(of(2, 300, 2, 2), 5)

    registry = run(scenario, model)
    assert sorted(map(sorted, model.batches)) == [[2, 2, 2], [300]]
    assert counted(registry, "service_batch_tokens_total") == 306
    assert counted(registry, "service_batch_padded_tokens_total") == 306


def test_a_request_that_does_not_fit_the_queue_is_refused_at_once_with_the_time_to_drain() -> None:
    async def scenario(batcher: Batcher) -> None:
        waiting = asyncio.ensure_future(batcher.submit(of(*[100] * 16), 5))
        await asyncio.sleep(0)
        with pytest.raises(QueueFull, match="16 inputs are waiting and the queue takes 16") as caught:
            await batcher.submit(of(1), 5)
        assert caught.value.retry_after_s == pytest.approx(4 * COST.seconds(4, 100))
        await waiting

    run(scenario, Recorder())


def test_inputs_of_a_caller_who_left_are_not_run() -> None:
    model = Recorder()

    async def scenario(batcher: Batcher) -> None:
        gone = asyncio.ensure_future(batcher.submit(of(5, 5), 5))
        stays = asyncio.ensure_future(batcher.submit(of(9), 5))
        await asyncio.sleep(0)
        gone.cancel()
        await stays

    registry = run(scenario, model)
    assert model.batches == [[9]]
    assert counted(registry, "service_dropped_inputs_total") == 2


def test_a_caller_who_is_found_to_have_left_when_his_batch_comes_costs_nothing() -> None:
    model = Recorder()
    asked: list[int] = []

    def left() -> bool:
        asked.append(1)
        return True

    async def scenario(batcher: Batcher) -> None:
        gone, stays = await asyncio.gather(
            batcher.submit(of(5, 5, 5, 5, 5, 5), 5, has_left=left), batcher.submit(of(9), 5), return_exceptions=True
        )
        assert isinstance(gone, CallerLeft)
        assert stays == [Length(length=9)]

    registry = run(scenario, model)
    assert model.batches == [[9]]
    assert counted(registry, "service_dropped_inputs_total") == 6
    assert asked == [1]


def test_a_caller_who_left_makes_room_in_a_full_queue() -> None:
    async def scenario(batcher: Batcher) -> None:
        gone = asyncio.ensure_future(batcher.submit(of(*[5] * 16), 5))
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
        assert len(await batcher.submit(of(3), 5)) == 1

    run(scenario, Recorder())


def test_a_request_past_its_deadline_ends_and_is_not_run() -> None:
    model = Recorder(seconds=0.1)

    async def scenario(batcher: Batcher) -> None:
        with ThreadPoolExecutor(1) as executor:
            batcher._executor = executor
            first = asyncio.ensure_future(batcher.submit(of(5), 5))
            await asyncio.sleep(0.02)
            with pytest.raises(DeadlinePassed):
                await batcher.submit(of(9), 0.02)
            await first

    run(scenario, model)
    assert model.batches == [[5]]


def test_a_failing_batch_fails_its_own_requests_and_no_other() -> None:
    async def scenario(batcher: Batcher) -> None:
        unlucky, lucky = await asyncio.gather(
            batcher.submit(of(13), 5), batcher.submit(of(600), 5), return_exceptions=True
        )
        assert isinstance(unlucky, RuntimeError)
        assert lucky == [Length(length=600)]
        assert await batcher.submit(of(4), 5) == [Length(length=4)]
        assert batcher.alive

    run(scenario, Recorder())


@pytest.mark.parametrize("in_a_thread", [False, True])
def test_what_a_failing_batch_held_is_free_before_the_garbage_collector_comes(in_a_thread: bool) -> None:
    held: list[weakref.ref[Recorder]] = []

    def model(batch: Sequence[Tokens]) -> list[Length]:
        activations = Recorder()
        held.append(weakref.ref(activations))
        raise RuntimeError(f"out of memory with {activations}")

    async def scenario(batcher: Batcher) -> None:
        (error,) = await asyncio.gather(batcher.submit(of(1), 5), return_exceptions=True)
        assert isinstance(error, RuntimeError)
        assert held[0]() is None

    gc.disable()
    try:
        with ThreadPoolExecutor(1) as executor:
            run(scenario, model, executor=executor if in_a_thread else None)
    finally:
        gc.enable()


def test_a_model_that_answers_too_few_predictions_is_an_error_not_a_hang() -> None:
    async def scenario(batcher: Batcher) -> None:
        with pytest.raises(ValueError, match="answered 0 predictions for a batch of 1"):
            await batcher.submit(of(1), 5)

    run(scenario, lambda batch: [])


def test_new_limits_hold_from_the_next_batch_on() -> None:
    model = Recorder()

    async def scenario(batcher: Batcher) -> None:
        await batcher.submit(of(1, 1, 1, 1), 5)
        batcher.limits = LIMITS.model_copy(update={"max_batch_size": 1})
        await batcher.submit(of(1, 1, 1, 1), 5)

    run(scenario, model)
    assert model.batches == [[1, 1, 1, 1], [1], [1], [1], [1]]


def test_a_batch_wait_gathers_company_but_a_full_batch_goes_at_once() -> None:
    model = Recorder()
    limits = LIMITS.model_copy(update={"batch_wait_ms": 500})

    async def scenario(batcher: Batcher) -> None:
        started = time.monotonic()
        first = asyncio.ensure_future(batcher.submit(of(1), 5))
        await asyncio.sleep(0.03)
        await asyncio.gather(first, batcher.submit(of(1), 5))
        assert time.monotonic() - started >= 0.5
        started = time.monotonic()
        await batcher.submit(of(1, 1, 1, 1), 5)
        assert time.monotonic() - started < 0.4

    run(scenario, model, limits)
    assert model.batches == [[1, 1], [1, 1, 1, 1]]


def test_a_model_that_raises_what_no_future_takes_fails_its_batch_and_not_the_next() -> None:
    answers: Iterator[Length] = iter(())

    def model(batch: Sequence[Tokens]) -> list[Length]:
        return [next(answers)] if len(batch[0].ids) == 1 else [Length(length=len(item.ids)) for item in batch]

    async def scenario(batcher: Batcher) -> None:
        with pytest.raises(RuntimeError, match="the model raised StopIteration"):
            await batcher.submit(of(1), 5)
        assert await batcher.submit(of(2), 5) == [Length(length=2)]

    run(scenario, model)


def test_a_batcher_that_stops_says_so_in_the_log_and_to_all_who_wait_and_ask(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(batcher: Batcher) -> None:
        waiting = asyncio.ensure_future(batcher.submit(of(1), 5))
        await asyncio.sleep(0)

        def broken() -> list[Any]:
            raise ValueError("no plan")

        batcher._take_batch = broken  # type: ignore[method-assign]
        with pytest.raises(BatcherStopped, match="the batcher of 'm' has stopped"):
            await waiting
        assert not batcher.alive
        with pytest.raises(BatcherStopped):
            await batcher.submit(of(1), 5)

    run(scenario, Recorder())
    [record] = [each for each in caplog.records if "the batcher of 'm' has stopped" in each.message]
    assert record.levelname == "ERROR"
    assert "no plan" in str(record.exc_info)


@pytest.mark.parametrize("threaded", [False, True])
def test_an_error_after_which_no_batch_can_run_stops_the_batcher_and_others_do_not(threaded: bool) -> None:
    lost = False

    async def scenario(batcher: Batcher) -> None:
        nonlocal lost
        with pytest.raises(RuntimeError, match="unlucky"):
            await batcher.submit(of(13), 5)
        assert batcher.alive
        lost = True
        assert await batcher.submit(of(1), 5) == [Length(length=1)]
        too_late = asyncio.gather(*(batcher.submit(of(length), 5) for length in (13, 900)), return_exceptions=True)
        first, second = await too_late
        assert isinstance(first, RuntimeError)
        assert isinstance(second, BatcherStopped)
        assert not batcher.alive

    with ThreadPoolExecutor(1) as executor:
        run(scenario, Recorder(), executor=executor if threaded else None, is_lost=lambda: lost)


def test_time_that_is_spent_before_a_request_is_queued_counts() -> None:
    async def scenario(batcher: Batcher) -> None:
        with pytest.raises(DeadlinePassed, match="within 5 s"):
            await batcher.submit(of(1), 5, spent_s=5)

    with ThreadPoolExecutor(1) as executor:
        run(scenario, Recorder(0.2), executor=executor)


def test_what_can_be_counted_is_0_before_it_happens() -> None:
    async def nothing(_: Batcher) -> None: ...

    registry = run(nothing, Recorder())
    assert registry.get_sample_value("service_requests_total", {"model": "m", "outcome": "error"}) == 0
    assert registry.get_sample_value("service_late_requests_total", {"model": "m"}) == 0
