"""The batcher: one queue in front of one model, work-conserving, bounded, and aware of lengths.

Whenever the model is free it plans everything that is queued into padded batches of least total cost
(`partition.py`), runs the batch that holds the oldest input, answers it, and plans again with what has arrived since.
Nothing waits for a timer while the model is idle, unless `batch_wait_ms` asks for it, and no short text pays for the
padding of a long one. Inputs whose caller has left or whose deadline has passed are dropped before they cost anything.
"""

import asyncio
import logging
import time
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from itertools import count
from typing import NamedTuple

from pydantic import BaseModel

from service.runtime.interface import Tokens
from service.runtime.metrics import ModelMetrics
from service.runtime.partition import CostModel, partition
from service.runtime.settings import BatchLimits
from service.runtime.stages import record

log = logging.getLogger(__name__)

Predict = Callable[[Sequence[Tokens]], Sequence[BaseModel]]

# Turns that the event loop gets at least between two batches when the model runs on it: answers are written, sockets
# read, bodies parsed and inputs queued in about this many callbacks, so the next plan sees what has arrived meanwhile.
LOOP_TURNS = 12
# Callers who send again at once need longer, most of all through a proxy. Who misses the plan costs a batch of his own:
# up to this share of a batch's fixed price is waited for as many inputs as were just answered, and no longer.
RETURN_SHARE = 0.2


class QueueFull(Exception):
    """The queue has no room for the request. retry_after_s: when the queue should have drained."""

    def __init__(self, queued: int, limit: int, retry_after_s: float) -> None:
        super().__init__(queued, limit, retry_after_s)  # all of it, so that it can leave the process
        self.queued = queued
        self.limit = limit
        self.retry_after_s = retry_after_s

    def __str__(self) -> str:
        return f"{self.queued} inputs are waiting and the queue takes {self.limit}"


class DeadlinePassed(Exception):
    """The prediction did not come within the request's time."""

    def __str__(self) -> str:
        return f"no prediction within {self.args[0]} s"


class BatcherStopped(Exception):
    """The loop that runs batches has ended: this process answers no more, and is to be restarted."""

    def __str__(self) -> str:
        return f"the batcher of {self.args[0]!r} has stopped: ask again, another replica may answer"


class CallerLeft(Exception):
    """Nobody waits for the prediction any more."""


class Run(NamedTuple):
    """One batch that was run: its number in this process, and when, by `time.monotonic`."""

    batch: int
    started_s: float
    ended_s: float


@dataclass(slots=True, eq=False)
class _Request:
    answers: list[BaseModel | None]
    missing: int
    done: asyncio.Future[None]
    arrived_s: float
    runs: list["Run"]
    has_left: Callable[[], bool]


@dataclass(slots=True, eq=False)
class _Input:
    tokens: Tokens
    request: _Request
    position: int


class Batcher:
    """Queue and run the inputs of one model. Use from one event loop.

    predict: runs one batch; its exception fails the requests of that batch and no other.
    is_lost: asked after such an exception: can no batch run any more in this process? Then the batcher stops.
    executor: where `predict` runs. None runs it on the event loop, which on a CPU is fastest for a model alone: model
        and loop share the interpreter lock, and a thread only adds hand-overs. With a GPU the thread waits for the card
        without the lock; beside other models it keeps a long batch of one from holding up the others.
    limits: may be replaced at any time; the next plan uses the new ones.
    """

    def __init__(
        self,
        predict: Predict,
        limits: BatchLimits,
        cost: CostModel,
        metrics: ModelMetrics,
        executor: Executor | None = None,
        is_lost: Callable[[], bool] = lambda: False,
    ) -> None:
        self.limits = limits
        self._predict = predict
        self._is_lost = is_lost
        self._cost = cost
        self._metrics = metrics
        self._model = metrics.model
        self._executor = executor
        self._queue: deque[_Input] = deque()
        self._numbers = count(1)
        self._arrival = asyncio.Event()
        self._runner = asyncio.get_running_loop().create_task(self._run(), name="batcher")
        self._runner.add_done_callback(self._stopped)

    @property
    def alive(self) -> bool:
        """False when the loop that runs batches has ended: the process must be restarted."""
        return not self._runner.done()

    @property
    def queued(self) -> int:
        """Inputs that wait for a batch."""
        return len(self._queue)

    async def close(self) -> None:
        """Stop running batches; what is still queued is never answered, so drain first."""
        self._runner.cancel()
        await asyncio.gather(self._runner, return_exceptions=True)

    def _stopped(self, runner: asyncio.Task[None]) -> None:
        if runner.cancelled():
            return
        log.error("the batcher of %r has stopped", self._model, exc_info=runner.exception())
        for item in self._queue:
            if not item.request.done.done():
                item.request.done.set_exception(BatcherStopped(self._model))

    async def submit(
        self,
        inputs: Sequence[Tokens],
        timeout_s: float,
        spent_s: float = 0,
        has_left: Callable[[], bool] = lambda: False,
    ) -> list[BaseModel]:
        """Predictions for `inputs`, in order. Raises QueueFull, BatcherStopped, CallerLeft and DeadlinePassed.

        timeout_s, spent_s: the request's time, and what of it is already over. has_left: whether its caller is gone,
        asked right before a batch with an input of it runs.
        The wait and the batches are recorded as stages of the request, see `stages.py`.
        Cancelling the call takes its inputs out of the queue.
        """
        loop = asyncio.get_running_loop()
        if not self.alive:
            raise BatcherStopped(self._model)
        if len(self._queue) + len(inputs) > self.limits.max_queue_length:
            self._drop_abandoned()
            if len(self._queue) + len(inputs) > self.limits.max_queue_length:
                raise QueueFull(len(self._queue), self.limits.max_queue_length, self._drain_s())
        request = _Request([None] * len(inputs), len(inputs), loop.create_future(), time.monotonic(), [], has_left)
        self._queue.extend(_Input(tokens, request, i) for i, tokens in enumerate(inputs))
        self._arrival.set()
        timer = loop.call_later(timeout_s - spent_s, self._expire, request, timeout_s)
        try:
            await request.done
        finally:
            timer.cancel()
            self._record(request)
        return request.answers  # type: ignore[return-value]  # every place is filled once `done` is set

    def _record(self, request: _Request) -> None:
        first_s = request.runs[0].started_s if request.runs else time.monotonic()
        record("queue", self._model, request.arrived_s, first_s)
        for run in request.runs:
            record("batch", self._model, run.started_s, run.ended_s, batch=run.batch)

    def _expire(self, request: _Request, timeout_s: float) -> None:
        if not request.done.done():
            request.done.set_exception(DeadlinePassed(timeout_s))

    def _drain_s(self) -> float:
        lengths = sorted(len(item.tokens.ids) for item in self._queue)
        ends = partition(lengths, self._cost, self.limits.max_batch_size, self.limits.max_batch_tokens)
        return sum(
            self._cost.seconds(end - start, lengths[end - 1]) for start, end in zip([0, *ends], ends, strict=False)
        )

    def _drop_abandoned(self) -> None:
        kept = [item for item in self._queue if not item.request.done.done()]
        if len(kept) < len(self._queue):
            self._metrics.dropped(len(self._queue) - len(kept))
            self._queue = deque(kept)

    async def _run(self) -> None:
        while True:
            if not self._queue:
                self._arrival.clear()
                await self._arrival.wait()
            await self._wait_for_company()
            self._drop_abandoned()
            batch = self._still_wanted(self._take_batch())
            if batch:
                await self._execute(batch)
            if self._executor is None:
                await self._take_in(len(batch))

    async def _take_in(self, answered: int) -> None:
        """Give the event loop its turns after a batch of `answered` inputs, and their callers time to send again."""
        enough = min(len(self._queue) + answered, self.limits.max_batch_size)
        # Nobody gains from waiting for a single caller: its input runs the moment it is here.
        until_s = time.monotonic() + (RETURN_SHARE * self._cost.fixed_s if enough > 1 else 0)
        turns = 0
        while turns < LOOP_TURNS or (len(self._queue) < enough and time.monotonic() < until_s):
            await asyncio.sleep(0)
            turns += 1

    async def _wait_for_company(self) -> None:
        """Let the oldest input wait up to `batch_wait_ms` for the batch to fill."""
        while self._queue and len(self._queue) < self.limits.max_batch_size:
            left_s = self._queue[0].request.arrived_s + self.limits.batch_wait_ms / 1000 - time.monotonic()
            if left_s <= 0:
                return
            self._arrival.clear()
            try:
                await asyncio.wait_for(self._arrival.wait(), left_s)
            except TimeoutError:
                return

    def _take_batch(self) -> list[_Input]:
        """Take the batch that holds the oldest input out of the queue, of the cheapest split of all that is queued."""
        if len(self._queue) <= 1:
            batch = list(self._queue)
            self._queue.clear()
            return batch
        ordered = sorted(self._queue, key=lambda item: len(item.tokens.ids))
        oldest = ordered.index(self._queue[0])
        lengths = [len(item.tokens.ids) for item in ordered]
        start = 0
        for end in partition(lengths, self._cost, self.limits.max_batch_size, self.limits.max_batch_tokens):
            if oldest < end:
                break
            start = end
        batch = ordered[start:end]
        taken = set(map(id, batch))
        self._queue = deque(item for item in self._queue if id(item) not in taken)
        return batch

    def _still_wanted(self, batch: list[_Input]) -> list[_Input]:
        """The inputs of a batch whose callers are there. Only a batch is asked: the answer costs microseconds."""
        for request in {item.request for item in batch}:
            if not request.done.done() and request.has_left():
                request.done.set_exception(CallerLeft())
        wanted = [item for item in batch if not item.request.done.done()]
        if len(wanted) < len(batch):
            self._metrics.dropped(len(batch) - len(wanted))
        return wanted

    async def _execute(self, batch: list[_Input]) -> None:
        inputs = [item.tokens for item in batch]
        started_s = time.monotonic()
        try:
            if self._executor is None:
                answers = self._predict(inputs)
            else:
                answers = await asyncio.get_running_loop().run_in_executor(self._executor, self._predict, inputs)
            if len(answers) != len(batch):
                raise ValueError(f"the model answered {len(answers)} predictions for a batch of {len(batch)}")
        except Exception as error:
            # The error leads to its request and back, so what the model held would stay until the garbage collector
            # comes: after an out-of-memory that is the very memory which the next batch needs.
            traceback.clear_frames(error.__traceback__)
            if isinstance(error, StopIteration):  # no future takes it
                error = RuntimeError("the model raised StopIteration")
            for item in batch:
                if not item.request.done.done():
                    item.request.done.set_exception(error)
            if self._is_lost():
                raise
            return
        run = Run(next(self._numbers), started_s, time.monotonic())
        for item, answer in zip(batch, answers, strict=True):
            request = item.request
            request.answers[item.position] = answer
            request.missing -= 1
            if not request.runs or request.runs[-1] is not run:
                request.runs.append(run)
            if not request.missing and not request.done.done():
                request.done.set_result(None)
        asyncio.get_running_loop().call_soon(self._count, batch, run)  # after the answers, which need not wait for it

    def _count(self, batch: Sequence[_Input], run: Run) -> None:
        inputs = [item.tokens for item in batch]
        self._metrics.batch(
            inputs,
            [run.started_s - item.request.arrived_s for item in batch],
            run.ended_s - run.started_s,
            self._cost.seconds(len(inputs), max(len(one.ids) for one in inputs)),
        )
