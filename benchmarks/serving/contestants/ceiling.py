"""The offline ceiling: tokenise a window of texts, run it in batches of least cost, take the next. No server.

Run as `python -m benchmarks.serving.contestants.ceiling TEXTS.json`. Prints `ready:`; then each line on standard input,
a number of seconds, is answered after that time with `result:` and the items/s.
"""

import itertools
import json
import sys
import time
from pathlib import Path

from benchmarks.serving.contestants.plain_model import PlainModel, model_module

WINDOW = 64  # 64 connections can never offer more, and fewer leave less to choose from


def main() -> None:
    texts = itertools.cycle(json.loads(Path(sys.argv[1]).read_text()))
    model, instance = PlainModel(), model_module().Instance
    model.fit()
    print("ready:", flush=True)
    for line in sys.stdin:
        seconds, done, started = float(line), 0, time.perf_counter()
        while (elapsed := time.perf_counter() - started) < seconds:
            model.partitioned([instance(text=text) for text in itertools.islice(texts, WINDOW)])
            done += WINDOW
        print("result:", done / elapsed, flush=True)


if __name__ == "__main__":
    main()
