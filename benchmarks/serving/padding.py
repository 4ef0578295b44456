"""What it brings to pad batches to multiples of some length: `python -m benchmarks.serving.padding`, no server.

Each of several fresh processes, in turn, takes random windows of the corpus and runs them in batches of least cost, its
batches padded to multiples of another length. Windows do not repeat, as traffic does not: batches of new sizes keep
coming.
"""

import argparse
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.serving import services
from benchmarks.serving.run import ENVIRONMENT, fast_dtype
from benchmarks.serving.texts import build_texts, build_weights

MULTIPLES = (1, 8, 16)
WINDOW = 64


def measure(texts: list[str], multiple: int, seconds: float, seed: int) -> dict[str, Any]:
    """Texts per second of this process in halves of `seconds`, and its memory in MiB."""
    from benchmarks.serving.contestants.plain_model import PlainModel, model_module
    from service.runtime.settings import ModelSettings

    ModelSettings.pad_to_multiple_of = multiple  # type: ignore[method-assign, assignment]
    model, instance, chance = PlainModel(), model_module().Instance, random.Random(seed)
    model.fit()
    halves = []
    for _ in range(2):
        done, begun = 0, time.perf_counter()
        while time.perf_counter() - begun < seconds / 2:
            model.partitioned([instance(text=text) for text in chance.sample(texts, WINDOW)])
            done += WINDOW
        halves.append(round(done / (time.perf_counter() - begun), 1))
    memory_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    return {
        "multiple": multiple,
        "first_half_per_s": halves[0],
        "second_half_per_s": halves[1],
        "memory_mib": memory_mib,
    }


def main() -> None:
    """Measure every multiple in turn, print the medians, keep the raw figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=24, help="of each measurement")
    parser.add_argument("--dtype", nargs="+", default=["float32", fast_dtype()], help="(default: %(default)s)")
    parser.add_argument("--work", type=Path, default=services.ROOT / "work/benchmark-padding", help="scratch folder")
    parser.add_argument("--out", type=Path, help="raw figures; results.json in the scratch folder if not given")
    parser.add_argument("--one", nargs=2, metavar=("MULTIPLE", "SEED"), type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    work = options.work.resolve()
    if options.one:
        multiple, seed = options.one
        print(json.dumps(measure(json.loads((work / "texts.json").read_text()), multiple, options.seconds, seed)))
        return
    work.mkdir(parents=True, exist_ok=True)
    weights = build_weights(work / "weights")
    build_texts(weights, work / "texts.json")
    found: list[dict[str, Any]] = []
    for dtype in dict.fromkeys(options.dtype):
        folder = services.render(work / dtype, "container", 1, weights, dtype)
        env = {**os.environ, **ENVIRONMENT, "BENCHMARK_SERVICE": str(folder), "PYTHONPATH": f"{services.ROOT}:{folder}"}
        for seed in range(options.rounds):
            for multiple in MULTIPLES if seed % 2 == 0 else reversed(MULTIPLES):
                own = ("--one", str(multiple), str(seed), "--seconds", str(options.seconds), "--work", str(work))
                command = (sys.executable, "-m", "benchmarks.serving.padding", *own)
                done = subprocess.run(command, env=env, stdout=subprocess.PIPE, text=True, check=True)
                found.append({"dtype": dtype, "round": seed, **json.loads(done.stdout)})
                print(json.dumps(found[-1]), flush=True)
    (options.out or work / "results.json").write_text(json.dumps(found, indent=1))
    for dtype in dict.fromkeys(options.dtype):
        for multiple in MULTIPLES:
            rows = [row for row in found if (row["dtype"], row["multiple"]) == (dtype, multiple)]
            names = ("first_half_per_s", "second_half_per_s", "memory_mib")
            medians = ", ".join(f"{name} {statistics.median(row[name] for row in rows):.0f}" for name in names)
            print(f"{dtype}, multiples of {multiple}: {medians}")


if __name__ == "__main__":
    main()
