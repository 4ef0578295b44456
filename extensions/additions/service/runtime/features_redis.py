"""The feature store on Redis or Valkey: settings, keys, and one pipelined read for all that waits.

An aggregate view of an entity is a hash of JSON values with the time of its event under `_ts`; a history is a sorted
set of JSON events with their times as scores. Every write renews the expiry of its key.
"""

import asyncio
import contextlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import Field, SecretStr
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from service.runtime.deadlines import SharedReads
from service.runtime.features import CONFIG, Answers, FeatureSettings, Lookup, Stored, View
from service.runtime.settings import load_settings

TIME_FIELD = "_ts"
CONNECTIONS = 4
NOT_JSON = object()


class RedisSettings(FeatureSettings):
    """`config/features.yaml`; FEATURE_STORE_URL, _USERNAME and _PASSWORD in the environment win over it.

    url: redis:// or, with TLS, rediss://; `?ssl_ca_certs=PATH` names an authority of your own.
    namespace: first part of every key, so that several services can share a store.
    """

    url: str = Field(pattern=r"^rediss?://")
    namespace: str = Field(min_length=1)
    username: str | None = None
    password: SecretStr | None = None


def load_redis_settings(path: Path = CONFIG) -> RedisSettings:
    """See `load_settings`."""
    environment = {key: f"FEATURE_STORE_{key.upper()}" for key in ("url", "username", "password")}
    return load_settings(RedisSettings, environment, path)


def key_of(namespace: str, view: View, entity: str) -> str:
    """`namespace:view:v1:entity`. The entity stands last, so that no character in it can reach another view."""
    return f"{namespace}:{view.name}:v{view.version}:{entity}"


def connection_options(settings: RedisSettings) -> dict[str, Any]:
    """Options of redis-py, synchronous or not: bounded waits, and who we are."""
    wait_s = settings.deadline_ms / 1e3
    return {
        "username": settings.username,
        "password": settings.password.get_secret_value() if settings.password else None,
        "socket_timeout": wait_s,
        "socket_connect_timeout": wait_s,
    }


class RedisFeatureStore:
    """See `features.FeatureStore`. `deadline_ms` of the settings bounds each round trip; any view can be read."""

    def __init__(self, settings: RedisSettings) -> None:
        self._namespace = settings.namespace
        wait_s = settings.deadline_ms / 1e3
        pool = BlockingConnectionPool.from_url(
            settings.url,
            max_connections=CONNECTIONS,
            timeout=wait_s,
            retry=Retry(NoBackoff(), 1),
            **connection_options(settings),
        )
        self._client = Redis(connection_pool=pool)
        self._reads = SharedReads(self._read, wait_s)

    def check(self, views: Sequence[View]) -> None:
        """Any view can be kept."""

    async def start(self) -> None:
        with contextlib.suppress(RedisError, OSError, asyncio.TimeoutError):
            await self._client.ping()

    async def read(self, wanted: Sequence[Lookup]) -> Answers:
        return await self._reads.read(wanted)

    async def close(self) -> None:
        self._reads.close()
        await self._client.aclose(close_connection_pool=True)

    async def _read(self, wanted: list[Lookup]) -> Answers:
        replies = await self._round_trip(wanted)
        return [_stored(view, reply) for (view, _), reply in zip(wanted, replies, strict=True)]

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
