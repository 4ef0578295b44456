"""The offline ceiling: tokenise a window of texts, run it in batches of least cost, take the next. No server.

Run as `python -m benchmarks.serving.contestants.ceiling TEXTS.json SECONDS`. Prints `ready:`, waits for a line on
standard input, so that several processes begin together, prints `result:` and a JSON object, items/s per window size,
and waits for the end of standard input.
"""

import json
import sys
import time
from pathlib import Path

from benchmarks.serving.contestants.plain_model import PlainModel, model_module

WINDOWS = (32, 64)  # 64 connections can never offer more


def items_per_s(model: PlainModel, texts: list[str], window: int, seconds: float) -> float:
    """Texts answered per second, over about `seconds`."""
    instance = model_module().Instance
    done, started = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - started) < seconds:
        model.partitioned([instance(text=texts[(done + i) % len(texts)]) for i in range(window)])
        done += window
    return done / elapsed


def main() -> None:
    texts, seconds = json.loads(Path(sys.argv[1]).read_text()), float(sys.argv[2])
    model = PlainModel()
    model.fit()
    print("ready:", flush=True)
    sys.stdin.readline()
    items_per_s(model, texts, WINDOWS[0], 1.0)  # warm-up
    windows = {str(window): items_per_s(model, texts, window, seconds) for window in WINDOWS}
    print("result:", json.dumps(windows), flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
