"""One read of the feature store at a time, shared by all that wait for it, behind a circuit breaker."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence

from service.runtime.features import Lookup, Stored, within

FAILURES_TO_OPEN = 5
OPEN_S = 1.0

Answers = list[Stored | Exception | None]


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


class SharedReads:
    """Lookups that arrive while a read is under way share the next one, so a burst costs two round trips, not many.

    read: answers lookups in order; its exception fails all of them, and counts for the breaker. wait_s: its bound.
    """

    def __init__(
        self,
        read: Callable[[list[Lookup]], Awaitable[Answers]],
        wait_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._read = read
        self._wait_s = wait_s
        self._breaker = Breaker(clock)
        self._waiting: list[tuple[Sequence[Lookup], asyncio.Future[Answers]]] = []
        self._sender: asyncio.Task[None] | None = None

    async def read(self, wanted: Sequence[Lookup]) -> Answers:
        """See `features.FeatureStore.read`. Raises what the read raised, TimeoutError or StoreResting."""
        self._breaker.check()
        answers: asyncio.Future[Answers] = asyncio.get_running_loop().create_future()
        self._waiting.append((wanted, answers))
        if self._sender is None or self._sender.done():
            self._sender = asyncio.create_task(self._send())
        return await answers

    def close(self) -> None:
        if self._sender is not None:
            self._sender.cancel()

    async def _send(self) -> None:
        while self._waiting:
            asked, self._waiting = [each for each in self._waiting if not each[1].done()], []
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
