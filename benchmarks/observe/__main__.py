"""What instrumentation costs: `python -m benchmarks.observe`, and `--serving ray`.

One rendered service with MiniLM, whose instruments are switched while it runs (`switch.py`), for two processes of the
same code differ by more than what is looked for. In turn, a window of seconds each: `off` (nothing is counted, no stage
is kept), `on` (as shipped), `traced` (as shipped, with a collector: one request in a hundred is sent there). Medians of
what each round's windows show against its `off`; raw figures to work/.
"""

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.serving import processes, services
from benchmarks.serving.client import Spec
from benchmarks.serving.run import ENVIRONMENT, fast_dtype
from benchmarks.serving.texts import build_texts, build_weights
from tests.observe.collector import collector

THROUGHPUT_TARGET, P50_TARGET_MS = 0.98, 0.3
LOADS = {"closed-1": 1, "closed-64": 64}
VARIANTS = ("off", "on", "traced")
# Appended to modules of the render.
SWITCHES = {
    "metrics_prometheus": "switch.switch_exporter(PrometheusExporter)",
    "metrics_ray": "switch.switch_exporter(RayExporter)",
    "stages": 'record = switch.when(("on", "traced"), record)',
    "tracing": 'trace = switch.when(("traced",), trace)',
}
SETTLE_S = 0.3


def add_switches(folder: Path) -> None:
    """Make a render one whose instruments `mode.txt` switches."""
    shutil.copy(Path(__file__).with_name("switch.py"), folder)
    (folder / "mode.txt").write_text("on")
    for module, line in SWITCHES.items():
        if (path := folder / f"service/runtime/{module}.py").exists():
            path.write_text(f"{path.read_text()}\n\nimport switch\n\n{line}\n")


def window(url: str, bodies: list[str], connections: int, seconds: float, work: Path) -> dict[str, float]:
    """One measurement: requests/s and p50 in ms."""
    spec = Spec(
        url=url, bodies=bodies, connections=connections, rate=0.0, warmup_s=0.5, measure_s=seconds, seed=connections
    )
    path = work / "spec.json"
    path.write_text(json.dumps(spec))
    command = [sys.executable, "-m", "benchmarks.serving.client", str(path)]
    done = subprocess.run(command, cwd=services.ROOT, capture_output=True, text=True, check=True, timeout=seconds + 90)
    answer = json.loads(done.stdout)
    assert not answer["failures"], answer["failures"]
    return {"per_s": answer["completed_per_s"], "p50_ms": statistics.median(answer["latencies_ms"])}


def measure(serving: str, rounds: int, seconds: float, work: Path) -> dict[str, Any]:
    """load -> variant -> the windows, in the order in which they were measured."""
    weights = build_weights(work / "weights")
    texts = build_texts(weights, work / "texts.json")
    bodies = [json.dumps({"instances": [{"text": text}]}) for text in texts]
    results: dict[str, Any] = {load: {variant: [] for variant in VARIANTS} for load in LOADS}
    folder = services.render(work / "service", serving, 1, weights, fast_dtype())
    add_switches(folder)
    port = processes.free_port()
    module = ["container"] if serving == "container" else ["ray_local", "--dashboard-port", "0"]
    command = [sys.executable, "-m", f"service.runtime.{module[0]}", *module[1:], "--port", str(port)]
    url = f"http://127.0.0.1:{port}/v1/models/{services.NAME}/predict"
    with collector() as (address, _):
        env = {**ENVIRONMENT, "PYTHONPATH": str(folder), "OTEL_EXPORTER_OTLP_ENDPOINT": address}
        with processes.Process(command, folder, env, work / "service.log") as server:
            server.first_answer(url, bodies[0])
            for number in range(rounds):
                for load, connections in LOADS.items():
                    for variant in (*VARIANTS[number % 3 :], *VARIANTS[: number % 3]):
                        (folder / "mode.txt").write_text(variant)
                        time.sleep(SETTLE_S)
                        results[load][variant].append(window(url, bodies, connections, seconds, work))
                print(f"round {number + 1} of {rounds}", file=sys.stderr, flush=True)
    return results


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.observe", description=__doc__)
    parser.add_argument("--serving", choices=["container", "ray"], default="container")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--seconds", type=float, default=3)
    options = parser.parse_args()
    work = services.ROOT / "work/benchmark-observe"
    work.mkdir(parents=True, exist_ok=True)
    results = measure(options.serving, options.rounds, options.seconds, work)
    (work.parent / f"benchmark-observe-{options.serving}.json").write_text(json.dumps(results, indent=1))
    for load, variants in results.items():
        for variant in VARIANTS[1:]:
            pairs = list(zip(variants[variant], variants["off"], strict=True))
            ratio = statistics.median(ours["per_s"] / off["per_s"] for ours, off in pairs)
            more_ms = statistics.median(ours["p50_ms"] - off["p50_ms"] for ours, off in pairs)
            print(f"{options.serving}, {load}, {variant}: {ratio:.3f} of the throughput of off, p50 {more_ms:+.2f} ms")
            if load == "closed-64":
                print(f"  target >= {THROUGHPUT_TARGET}: {'met' if ratio >= THROUGHPUT_TARGET else 'NOT met'}")
            else:
                print(f"  target <= +{P50_TARGET_MS} ms: {'met' if more_ms <= P50_TARGET_MS else 'NOT met'}")


if __name__ == "__main__":
    main()
