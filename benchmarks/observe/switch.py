"""Put into a rendered service by `benchmarks.observe`: turns its instruments on and off while it runs.

The folder's `mode.txt` says `off` (nothing is counted, no stage is kept), `on` (as shipped) or `traced`. It is read ten
times a second: in a replica of Ray no signal arrives.
"""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("mode.txt")
now = {"mode": "on"}


def watch() -> None:
    while True:
        now["mode"] = FILE.read_text()
        time.sleep(0.1)


threading.Thread(target=watch, daemon=True).start()


def when(modes: tuple[str, ...], call: Callable[..., Any]) -> Callable[..., None]:
    """`call`, in these modes only."""

    def switched(*arguments: Any, **named: Any) -> None:
        if now["mode"] in modes:
            call(*arguments, **named)

    return switched


def switch_exporter(exporter: type) -> None:
    """What the exporter records is recorded unless the mode is `off`."""
    for kind in ("counter", "histogram", "gauge"):
        made = getattr(exporter, kind)
        setattr(exporter, kind, lambda self, *rest, made=made: when(("on", "traced"), made(self, *rest)))
