"""What bounds the time that a store may cost a request: a deadline, reads that are shared, and a circuit breaker."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")
Wanted = TypeVar("Wanted")
Answer = TypeVar("Answer")

# A deadline is waited for in so many parts: see `within`.
PARTS = 4
FAILURES_TO_OPEN = 5
OPEN_S = 1.0


class StoreResting(ConnectionError):
    """The store has failed repeatedly and is not asked for a moment."""


class Breaker:
    """Open after FAILURES_TO_OPEN failures in a row; then one caller each OPEN_S tries whether the store is back."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._failures = 0
        self._opened_s = 0.0

    def check(self) -> None:
        """Raises StoreResting while open."""
        if self._failures < FAILURES_TO_OPEN:
            return
        if self._clock() - self._opened_s < OPEN_S:
            raise StoreResting(f"the store failed {self._failures} times in a row: next try within {OPEN_S} s")
        self._opened_s = self._clock()

    def note(self, good: bool) -> None:
        self._failures = 0 if good else self._failures + 1
        self._opened_s = self._clock()


class SharedReads(Generic[Wanted, Answer]):
    """What is asked while a read is under way shares the next one, so a burst costs few round trips, not many.

    read: answers what is wanted, in order; its exception fails all of it, and counts for the breaker. wait_s bounds it.
    most: of what is wanted in one read; one request alone is never split.
    """

    def __init__(
        self,
        read: Callable[[list[Wanted]], Awaitable[list[Answer]]],
        wait_s: float,
        most: int = 1000,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._read = read
        self._wait_s = wait_s
        self._most = most
        self._breaker = Breaker(clock)
        self._waiting: list[tuple[Sequence[Wanted], asyncio.Future[list[Answer]]]] = []
        self._sender: asyncio.Task[None] | None = None

    async def read(self, wanted: Sequence[Wanted]) -> list[Answer]:
        """The answers, in order. Raises what the read raised, TimeoutError or StoreResting."""
        self._breaker.check()
        answers: asyncio.Future[list[Answer]] = asyncio.get_running_loop().create_future()
        self._waiting.append((wanted, answers))
        if self._sender is None or self._sender.done():
            self._sender = asyncio.create_task(self._send())
        return await answers

    def close(self) -> None:
        if self._sender is not None:
            self._sender.cancel()

    def _take(self) -> list[tuple[Sequence[Wanted], asyncio.Future[list[Answer]]]]:
        """Those who have waited longest and still wait, as many as fit one read."""
        waiting = [each for each in self._waiting if not each[1].done()]
        taken, wanted = 0, 0
        while taken < len(waiting) and (not taken or wanted + len(waiting[taken][0]) <= self._most):
            wanted += len(waiting[taken][0])
            taken += 1
        self._waiting = waiting[taken:]
        return waiting[:taken]

    async def _send(self) -> None:
        while self._waiting:
            asked = self._take()
            if not asked:
                return
            try:
                found = iter(await within(self._read([one for wanted, _ in asked for one in wanted]), self._wait_s))
            except Exception as error:  # whatever the store's library raises
                self._breaker.note(good=False)
                for _, answers in asked:
                    if not answers.done():
                        answers.set_exception(error)
                continue
            self._breaker.note(good=True)
            for wanted, answers in asked:
                mine = [next(found) for _ in wanted]
                if not answers.done():
                    answers.set_result(mine)


async def within(work: Awaitable[T], deadline_s: float) -> T:
    """The result of `work`, or TimeoutError after `deadline_s` of an event loop that was free to run it.

    A model that runs on the loop may hold it far past the deadline, before the question is sent or while the answer is
    here already. That is no fault of the store, so a part of the deadline that took longer counts as that part only.
    """
    loop = asyncio.get_running_loop()
    part_s = deadline_s / PARTS
    left = PARTS
    timer: asyncio.TimerHandle

    def passed() -> None:
        nonlocal left, timer
        left -= 1
        if left:
            timer = loop.call_later(part_s, passed)
        else:
            limit.reschedule(loop.time())

    timer = loop.call_later(part_s, passed)
    try:
        async with asyncio.timeout(None) as limit:
            return await work
    except TimeoutError as error:
        if limit.expired():
            raise TimeoutError(f"no answer within {deadline_s * 1e3:g} ms") from error
        raise
    finally:
        timer.cancel()
