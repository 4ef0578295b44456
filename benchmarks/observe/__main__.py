"""What instrumentation costs: `python -m benchmarks.observe`, and `--serving ray`.

Three copies of one rendered service with MiniLM run side by side, and are loaded in turn, a window of seconds each, so
that a slow moment of the host hits all: `off` (its exporter and its stages do nothing), `on` (as shipped) and `traced`
(as shipped, with a collector: one request in a hundred is sent there). Ratios of medians over the rounds; raw to work/.
"""

import argparse
import json
import statistics
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from benchmarks.serving import processes, services
from benchmarks.serving.client import Spec
from benchmarks.serving.run import ENVIRONMENT, fast_dtype
from benchmarks.serving.texts import build_texts, build_weights

THROUGHPUT_TARGET, P50_TARGET_MS = 0.98, 0.3
LOADS = {"closed-1": 1, "closed-64": 64}
# What the service does without: nobody is told, nothing is kept.
EXPORTER = '''"""Counts nothing."""

from typing import Any


class {name}:
    def __init__(self, *_: Any) -> None: ...

    def counter(self, *_: Any) -> Any:
        return lambda *_: None

    histogram = gauge = counter
'''


def without_instruments(folder: Path) -> None:
    """Turn a render into one that counts nothing and records no stage."""
    runtime = folder / "service/runtime"
    for module, name in (("metrics_prometheus", "PrometheusExporter"), ("metrics_ray", "RayExporter")):
        if (path := runtime / f"{module}.py").exists():
            path.write_text(EXPORTER.format(name=name))
    stages = (runtime / "stages.py").read_text()
    inside = "    stages = _stages.get()\n"
    assert stages.count(inside) == 1
    (runtime / "stages.py").write_text(stages.replace(inside, "    return\n"))


@contextmanager
def collector() -> Iterator[str]:
    """The address of something that takes traces and throws them away."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


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
    results: dict[str, Any] = {load: {"off": [], "on": [], "traced": []} for load in LOADS}
    with ExitStack() as stack:
        address = stack.enter_context(collector())
        urls = {}
        for variant in ("off", "on", "traced"):
            folder = services.render(work / variant, serving, 1, weights, fast_dtype())
            if variant == "off":
                without_instruments(folder)
            port = processes.free_port()
            env = {**ENVIRONMENT, "PYTHONPATH": str(folder), "LOG_LEVEL": "INFO"}
            if variant == "traced":
                env["OTEL_EXPORTER_OTLP_ENDPOINT"] = address
            module = ["container"] if serving == "container" else ["ray_local", "--dashboard-port", "0"]
            command = [sys.executable, "-m", f"service.runtime.{module[0]}", *module[1:], "--port", str(port)]
            server = stack.enter_context(processes.Process(command, folder, env, work / f"{variant}.log"))
            urls[variant] = f"http://127.0.0.1:{port}/v1/models/{services.NAME}/predict"
            server.first_answer(urls[variant], bodies[0])
        for number in range(rounds):
            for load, connections in LOADS.items():
                for variant in (*list(urls)[number % 3 :], *list(urls)[: number % 3]):
                    results[load][variant].append(window(urls[variant], bodies, connections, seconds, work))
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
        middle = {
            variant: {key: statistics.median(each[key] for each in windows) for key in ("per_s", "p50_ms")}
            for variant, windows in variants.items()
        }
        for variant in ("on", "traced"):
            ratio = middle[variant]["per_s"] / middle["off"]["per_s"]
            more_ms = middle[variant]["p50_ms"] - middle["off"]["p50_ms"]
            print(f"{options.serving}, {load}, {variant}: {ratio:.3f} of the throughput of off, p50 {more_ms:+.2f} ms")
            if load == "closed-64":
                print(f"  target >= {THROUGHPUT_TARGET}: {'met' if ratio >= THROUGHPUT_TARGET else 'NOT met'}")
            else:
                print(f"  target <= +{P50_TARGET_MS} ms: {'met' if more_ms <= P50_TARGET_MS else 'NOT met'}")


if __name__ == "__main__":
    main()
