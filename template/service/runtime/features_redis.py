"""The feature store on Redis or Valkey: keys, one pipelined read for all that waits, and a circuit breaker.

An aggregate view of an entity is a hash of JSON values with the time of its event under `_ts`; a history is a sorted
set of JSON events with their times as scores. Every write renews the expiry of its key.
"""

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from typing import Any

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from service.runtime.features import FeatureSettings, Lookup, Stored, View, within

TIME_FIELD = "_ts"
CONNECTIONS = 4
FAILURES_TO_OPEN = 5
OPEN_S = 1.0
NOT_JSON = object()


def key_of(namespace: str, view: View, entity: str) -> str:
    """`namespace:view:v1:entity`. The entity stands last, so that no character in it can reach another view."""
    return f"{namespace}:{view.name}:v{view.version}:{entity}"


def connection_options(settings: FeatureSettings) -> dict[str, Any]:
    """Options of redis-py, synchronous or not: bounded waits, and who we are."""
    wait_s = settings.deadline_ms / 1e3
    return {
        "username": settings.username,
        "password": settings.password.get_secret_value() if settings.password else None,
        "socket_timeout": wait_s,
        "socket_connect_timeout": wait_s,
    }


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


class RedisFeatureStore:
    """Reads through one round trip at a time; lookups that arrive meanwhile share the next one.

    settings: where the store is; `deadline_ms` bounds each round trip.
    """

    def __init__(self, settings: FeatureSettings, clock: Callable[[], float] = time.monotonic) -> None:
        self._namespace = settings.namespace
        self._wait_s = settings.deadline_ms / 1e3
        pool = BlockingConnectionPool.from_url(
            settings.url,
            max_connections=CONNECTIONS,
            timeout=self._wait_s,
            retry=Retry(NoBackoff(), 1),
            **connection_options(settings),
        )
        self._client = Redis(connection_pool=pool)
        self._breaker = Breaker(clock)
        self._waiting: list[tuple[Sequence[Lookup], asyncio.Future[list[Stored | Exception | None]]]] = []
        self._sender: asyncio.Task[None] | None = None

    async def read(self, wanted: Sequence[Lookup]) -> list[Stored | Exception | None]:
        """See `features.FeatureStore`. Raises TimeoutError, OSError or RedisError when none can be read."""
        self._breaker.check()
        answers: asyncio.Future[list[Stored | Exception | None]] = asyncio.get_running_loop().create_future()
        self._waiting.append((wanted, answers))
        if self._sender is None or self._sender.done():
            self._sender = asyncio.create_task(self._send())
        return await answers

    async def close(self) -> None:
        if self._sender is not None:
            self._sender.cancel()
        await self._client.aclose(close_connection_pool=True)

    async def _send(self) -> None:
        while self._waiting:
            asked, self._waiting = [each for each in self._waiting if not each[1].done()], []
            if not asked:
                return
            try:
                replies = iter(
                    await within(self._round_trip([one for wanted, _ in asked for one in wanted]), self._wait_s)
                )
            except (RedisError, OSError, TimeoutError) as error:
                self._breaker.note(good=False)
                for _, answers in asked:
                    if not answers.done():
                        answers.set_exception(error)
                continue
            self._breaker.note(good=True)
            for wanted, answers in asked:
                found = [_stored(view, next(replies)) for view, _ in wanted]
                if not answers.done():
                    answers.set_result(found)

    async def _round_trip(self, wanted: list[Lookup]) -> list[Any]:
        async with self._client.pipeline(transaction=False) as pipe:
            for view, entity in wanted:
                key = key_of(self._namespace, view, entity)
                if view.last is None:
                    pipe.hmget(key, [*view.fields, TIME_FIELD])
                else:
                    pipe.zrange(key, 0, view.last - 1, desc=True, withscores=True)
            replies: list[Any] = await pipe.execute(raise_on_error=False)
            return replies


def _stored(view: View, reply: Any) -> Stored | Exception | None:
    """What one reply holds; an exception when the key holds something else than the view."""
    if isinstance(reply, Exception):
        return reply
    if view.last is not None:
        return Stored({view.fields[0]: [_decoded(event) for event, _ in reply]}, reply[0][1]) if reply else None
    *values, at_s = reply
    if at_s is None:
        return None
    try:
        stamp = float(at_s)
    except ValueError as error:
        return error
    return Stored(
        {name: _decoded(text) for name, text in zip(view.fields, values, strict=True) if text is not None}, stamp
    )


def _decoded(text: bytes) -> Any:
    """The JSON value, or an object that is of no declared type."""
    try:
        return json.loads(text)
    except ValueError:
        return NOT_JSON
