"""Callers of a service that note what they sent and what became of it."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx


@dataclass
class Sent:
    """What was sent: statuses counted, and milliseconds of each answer that was a prediction."""

    statuses: Counter[int] = field(default_factory=Counter)
    took_ms: list[float] = field(default_factory=list)


def send(url: str, bodies: list[tuple[str, dict[str, Any]]], sent: Sent, client: httpx.Client) -> None:
    """Each (path, body), one after the other."""
    for path, body in bodies:
        started_s = time.perf_counter()
        status = client.post(f"{url}{path}", json=body).status_code
        sent.statuses[status] += 1
        if status == 200:
            sent.took_ms.append((time.perf_counter() - started_s) * 1e3)


@contextmanager
def loaded(url: str, bodies: list[tuple[str, dict[str, Any]]], callers: int, pause_s: float = 0.0) -> Iterator[Sent]:
    """Put load on a service until the end of the block: each caller sends all bodies again and again.

    Statuses are complete once the block has ended. A service that is gone counts as status 0.
    """
    sent, stop, lock = Sent(), threading.Event(), threading.Lock()

    def call() -> None:
        with httpx.Client(timeout=30) as client:
            while not stop.is_set():
                mine = Sent()
                try:
                    send(url, bodies, mine, client)
                except httpx.HTTPError:
                    mine.statuses[0] += 1
                    stop.wait(0.1)
                with lock:
                    sent.statuses += mine.statuses
                    sent.took_ms += mine.took_ms
                stop.wait(pause_s)

    threads = [threading.Thread(target=call) for _ in range(callers)]
    for thread in threads:
        thread.start()
    try:
        yield sent
    finally:
        stop.set()
        for thread in threads:
            thread.join()
