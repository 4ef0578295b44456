"""One connection to each of several services, and a few requests to each in turn.

With one connection nothing queues, so a service needs no seconds to show what it does. Turns of a fraction of a second
meet the same neighbours: services that differ by 1 % can be told apart on a machine whose speed changes by half.
"""

import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import aiohttp

from benchmarks.serving.client import TIME_LIMIT_S, status_of

IN_A_ROW = 8


@dataclass
class Turns:
    """What the turns of one service found.

    took_s, answered: of each turn of IN_A_ROW requests the seconds, and how many got a prediction. failures: by status.
    """

    took_s: list[float] = field(default_factory=list)
    answered: list[int] = field(default_factory=list)
    latencies_ms: list[float] = field(default_factory=list)
    failures: dict[str, int] = field(default_factory=dict)


async def bursts(urls: Sequence[str], bodies: Sequence[str], seconds: float) -> list[Turns]:
    """Turns at every URL, for so many seconds in all. Each gets the same texts, and another is the first each time."""
    found = [Turns() for _ in urls]
    timeout = aiohttp.ClientTimeout(total=TIME_LIMIT_S)
    texts = itertools.cycle(body.encode() for body in bodies)
    end = time.perf_counter() + seconds
    async with aiohttp.ClientSession(timeout=timeout, headers={"content-type": "application/json"}) as session:
        for first in itertools.cycle(range(len(urls))):
            sent = list(itertools.islice(texts, IN_A_ROW))
            for at in [*range(first, len(urls)), *range(first)]:
                turns, began, before = found[at], time.perf_counter(), len(found[at].latencies_ms)
                for body in sent:
                    sent_s = time.perf_counter()
                    status = await status_of(session, urls[at], body)
                    if status == "200":
                        turns.latencies_ms.append((time.perf_counter() - sent_s) * 1e3)
                    else:
                        turns.failures[status] = turns.failures.get(status, 0) + 1
                turns.took_s.append(time.perf_counter() - began)
                turns.answered.append(len(turns.latencies_ms) - before)
            if time.perf_counter() > end:
                break
    return found
