"""What instrumentation costs: `python -m benchmarks.observe`, and `--serving ray`.

One rendered service with MiniLM, whose instruments are switched while it runs (`switch.py`), for two processes of the
same code differ by more than what is looked for. The load does not pause: window by window the instruments are `off`
(nothing is counted, no stage is kept), `on` (as shipped) or `traced` (as shipped, with a collector: one request in a
hundred is sent there), so that what slows the machine for longer slows all three. The texts are few, so that each
window has the same ones. Means over all rounds, with their standard errors; raw figures to work/.
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
SETTLE_S = 0.25  # an eye on mode.txt, and the batches that had begun
START_S = 4.0  # the client starts, and warms up
TEXTS = 64


def add_switches(folder: Path) -> None:
    """Make a render one whose instruments `mode.txt` switches."""
    shutil.copy(Path(__file__).with_name("switch.py"), folder)
    (folder / "mode.txt").write_text("on")
    for module, line in SWITCHES.items():
        if (path := folder / f"service/runtime/{module}.py").exists():
            path.write_text(f"{path.read_text()}\n\nimport switch\n\n{line}\n")


def windows(
    url: str, bodies: list[str], connections: int, rounds: int, seconds: float, folder: Path
) -> dict[str, list[dict[str, float]]]:
    """variant -> requests/s and p50 in ms of each window, in the order in which they were measured."""
    length_s = START_S + rounds * len(VARIANTS) * (SETTLE_S + seconds) + 2
    spec = Spec(
        url=url, bodies=bodies, connections=connections, rate=0.0, warmup_s=0.0, measure_s=length_s, seed=connections
    )
    path = folder / "spec.json"
    path.write_text(json.dumps(spec))
    command = [sys.executable, "-m", "benchmarks.serving.client", str(path)]
    times: list[tuple[str, float, float]] = []
    with subprocess.Popen(command, cwd=services.ROOT, stdout=subprocess.PIPE, text=True) as client:
        time.sleep(START_S)
        for number in range(rounds):
            for variant in (*VARIANTS[number % 3 :], *VARIANTS[: number % 3]):
                (folder / "mode.txt").write_text(variant)
                time.sleep(SETTLE_S)
                begun = time.perf_counter()
                time.sleep(seconds)
                times.append((variant, begun, time.perf_counter()))
        answer = json.loads(client.communicate(timeout=90)[0])
    assert not answer["failures"], answer["failures"]
    requests = list(zip(answer["ended_s"], answer["latencies_ms"], strict=True))
    found: dict[str, list[dict[str, float]]] = {variant: [] for variant in VARIANTS}
    for variant, begun, ended in times:
        within = [latency_ms for ended_s, latency_ms in requests if begun <= ended_s < ended]
        found[variant].append({"per_s": len(within) / (ended - begun), "p50_ms": statistics.median(within)})
    return found


def measure(serving: str, loads: list[str], rounds: int, seconds: float, work: Path) -> dict[str, Any]:
    """load -> variant -> the windows, in the order in which they were measured."""
    weights = build_weights(work / "weights")
    texts = build_texts(weights, work / "texts.json")[:TEXTS]
    bodies = [json.dumps({"instances": [{"text": text}]}) for text in texts]
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
            return {load: windows(url, bodies, LOADS[load], rounds, seconds, folder) for load in loads}


def error(figures: list[float]) -> float:
    """The standard error of their mean."""
    return statistics.stdev(figures) / len(figures) ** 0.5


def compared(ours: list[dict[str, float]], off: list[dict[str, float]]) -> tuple[float, float, float, float]:
    """Throughput as a share of that of `off`, more milliseconds at p50; each before its standard error."""
    off_per_s = statistics.mean(window["per_s"] for window in off)
    ratio = statistics.mean(window["per_s"] for window in ours) / off_per_s
    pairs = list(zip(ours, off, strict=True))
    more_ms = [mine["p50_ms"] - theirs["p50_ms"] for mine, theirs in pairs]
    ratio_error = error([(mine["per_s"] - ratio * theirs["per_s"]) / off_per_s for mine, theirs in pairs])
    return ratio, ratio_error, statistics.mean(more_ms), error(more_ms)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.observe", description=__doc__)
    parser.add_argument("--serving", choices=["container", "ray"], default="container")
    parser.add_argument("--rounds", type=int, default=80)
    # Answers come batch by batch: in a shorter window the last one weighs more than what is looked for.
    parser.add_argument("--seconds", type=float, default=3, help="of each window (default: %(default)s)")
    parser.add_argument("--loads", nargs="+", choices=LOADS, default=list(LOADS))
    options = parser.parse_args()
    work = services.ROOT / "work/benchmark-observe"
    work.mkdir(parents=True, exist_ok=True)
    results = measure(options.serving, options.loads, options.rounds, options.seconds, work)
    (work.parent / f"benchmark-observe-{options.serving}.json").write_text(json.dumps(results, indent=1))
    for load, variants in results.items():
        for variant in VARIANTS[1:]:
            ratio, ratio_error, more_ms, more_error_ms = compared(variants[variant], variants["off"])
            print(
                f"{options.serving}, {load}, {variant}: {ratio:.4f} +- {ratio_error:.4f} of the throughput of off, "
                f"p50 {more_ms:+.2f} +- {more_error_ms:.2f} ms"
            )
            if load == "closed-64":
                print(f"  target >= {THROUGHPUT_TARGET}: {'met' if ratio >= THROUGHPUT_TARGET else 'NOT met'}")
            else:
                print(f"  target <= +{P50_TARGET_MS} ms: {'met' if more_ms <= P50_TARGET_MS else 'NOT met'}")


if __name__ == "__main__":
    main()
