"""Write features to Redis: for jobs, and for services that know what an entity just did. Synchronous, pipelined."""

import json
import time
from collections.abc import Iterable

from pydantic import BaseModel
from redis import Redis
from redis.exceptions import RedisError

from service.runtime.features import Row, check_row
from service.runtime.features_redis import TIME_FIELD, RedisSettings, connection_options, key_of

BATCH = 500  # rows a round trip
NAMED = 10  # keys that a message names at most

# One script per row, so that a writer that dies in between leaves no key without expiry. An aggregate that arrives late
# does not replace a newer one, and one that arrives replaces the whole, so that no older field hides behind its time.
PUT = """
local at = redis.call('HGET', KEYS[1], ARGV[2])
if at and tonumber(at) > tonumber(ARGV[3]) then return end
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], unpack(ARGV, 2))
redis.call('EXPIRE', KEYS[1], ARGV[1])
"""
APPEND = """
redis.call('ZADD', KEYS[1], ARGV[3], ARGV[4])
redis.call('ZREMRANGEBYRANK', KEYS[1], 0, -ARGV[2] - 1)
redis.call('EXPIRE', KEYS[1], ARGV[1])
"""


class RedisFeatureWriter:
    """Writes rows; the same row twice is the same as once, and a late aggregate loses against a newer one."""

    def __init__(self, settings: RedisSettings) -> None:
        options = connection_options(settings) | {"socket_timeout": 5.0, "socket_connect_timeout": 5.0}
        self._client = Redis.from_url(settings.url, **options)
        self._namespace = settings.namespace

    def write(self, rows: Iterable[Row]) -> int:
        """Write all rows and return how many there were; writing again is safe.

        Raises redis.RedisError. When it names keys, the store refused these alone, and all other rows are written.
        Raises ValueError at a row that `check_row` refuses; of those before it, some may be written.
        """
        count, now_s = 0, time.time()
        keys: list[str] = []
        refused: dict[str, Exception] = {}
        pipe = self._client.pipeline(transaction=False)

        def send() -> None:
            replies = pipe.execute(raise_on_error=False)
            bad = {key: reply for key, reply in zip(keys, replies, strict=True) if isinstance(reply, Exception)}
            if len(bad) == BATCH:  # it is not the keys: read-only, full, or not ours to write
                raise replies[0]
            refused.update(bad)
            keys.clear()

        for row in rows:
            check_row(row, now_s)
            key, view = key_of(self._namespace, row.view, row.entity), row.view
            keep_s, at_s = str(view.keep_s), repr(row.at_s)
            if view.last is None:
                fields = [part for pair in _encoded(row.values).items() for part in pair]
                pipe.eval(PUT, 1, key, keep_s, TIME_FIELD, at_s, *fields)
            else:
                pipe.eval(APPEND, 1, key, keep_s, str(view.last), at_s, row.values.model_dump_json())
            keys.append(key)
            count += 1
            if len(keys) == BATCH:
                send()
        send()
        if refused:
            named = "; ".join(f"{key} ({error})" for key, error in list(refused.items())[:NAMED])
            raise RedisError(
                f"the store refused {len(refused)} keys, and rows of all others are written: {named}"
                + ("; ..." if len(refused) > NAMED else "")
            )
        return count

    def close(self) -> None:
        self._client.close()


def _encoded(values: BaseModel) -> dict[str, str]:
    """The fields that were given, as JSON texts."""
    return {name: json.dumps(value) for name, value in values.model_dump(mode="json", exclude_unset=True).items()}
