"""Load on one URL from one process: a closed loop of connections, or an open loop of Poisson arrivals.

Run as `python -m benchmarks.serving.client SPEC.json`; prints one JSON object. Latency in an open loop counts from the
moment at which a request should have been sent, so a server that stalls cannot hide it. A request without an answer
after TIME_LIMIT_S seconds is given up and has failed.
"""

import asyncio
import json
import random
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypedDict

import aiohttp

TIME_LIMIT_S = 30


class Spec(TypedDict):
    """url: where to post. bodies: JSON texts, sent in turn. connections: of the closed loop, or 0 for an open one.

    rate: requests/s of the open loop. warmup_s, measure_s: seconds before and while counting. seed: of the arrivals.
    """

    url: str
    bodies: list[str]
    connections: int
    rate: float
    warmup_s: float
    measure_s: float
    seed: int


Send = Callable[[float], Awaitable[None]]


async def status_of(session: aiohttp.ClientSession, url: str, body: bytes) -> str:
    """The HTTP status that a POST is answered with, or the name of what kept the answer away."""
    try:
        async with session.post(url, data=body) as response:
            await response.read()
            return str(response.status)
    except (aiohttp.ClientError, TimeoutError) as error:
        return type(error).__name__


async def run(spec: Spec) -> dict[str, Any]:
    """Of the requests that began in the measured time: latencies in ms, when each was answered, failures by status.

    ended_s is by `time.perf_counter`, which all processes of a machine share.
    """
    latencies: list[float] = []
    ended: list[float] = []
    failures: dict[str, int] = {}
    bodies = [body.encode() for body in spec["bodies"]]
    sent = 0
    begin = time.perf_counter() + spec["warmup_s"]
    end = begin + spec["measure_s"]
    completed = 0
    connector = aiohttp.TCPConnector(limit=0)
    timeout = aiohttp.ClientTimeout(total=TIME_LIMIT_S)
    headers = {"content-type": "application/json"}

    async with aiohttp.ClientSession(connector=connector, timeout=timeout, headers=headers) as session:

        async def send(due: float) -> None:
            nonlocal sent, completed
            body = bodies[sent % len(bodies)]
            sent += 1
            status = await status_of(session, spec["url"], body)
            now = time.perf_counter()
            completed += begin <= now < end and status == "200"
            if begin <= due < end:
                if status == "200":
                    latencies.append((now - due) * 1e3)
                    ended.append(now)
                else:
                    failures[status] = failures.get(status, 0) + 1

        if spec["connections"]:
            await _closed_loop(send, spec["connections"], end)
        else:
            await _open_loop(send, spec["rate"], end, random.Random(spec["seed"]))
    per_s = completed / spec["measure_s"]
    return {"completed_per_s": per_s, "latencies_ms": latencies, "ended_s": ended, "failures": failures}


async def _closed_loop(send: Send, connections: int, end: float) -> None:
    async def one_connection() -> None:
        while (now := time.perf_counter()) < end:
            await send(now)

    await asyncio.gather(*(one_connection() for _ in range(connections)))


async def _open_loop(send: Send, rate: float, end: float, chance: random.Random) -> None:
    pending: set[asyncio.Task[None]] = set()
    due = time.perf_counter()
    while due < end:
        due += chance.expovariate(rate)
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        task = asyncio.ensure_future(send(due))
        pending.add(task)
        task.add_done_callback(pending.discard)
    await asyncio.gather(*pending)


if __name__ == "__main__":
    print(json.dumps(asyncio.run(run(json.loads(Path(sys.argv[1]).read_text())))))
