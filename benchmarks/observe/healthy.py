"""Minutes of load that a service can take, under the eyes of Prometheus: `python -m benchmarks.observe.healthy`.

A rendered service with MiniLM is asked at a share of what it can do, by Poisson arrivals, while a Prometheus with the
rules that ship looks on. No alert may fire, and no request fail. `--picture` draws the overview.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.serving import processes, services
from benchmarks.serving.client import Spec
from benchmarks.serving.run import ENVIRONMENT, fast_dtype
from benchmarks.serving.texts import build_texts, build_weights
from tests.observe import draw
from tests.observe.panels import dashboards
from tests.prometheus import running_prometheus


def asked(url: str, bodies: list[str], connections: int, rate: float, seconds: float, work: Path) -> dict[str, Any]:
    """What the client of benchmarks/serving answers."""
    spec = Spec(
        url=url, bodies=bodies, connections=connections, rate=rate, warmup_s=0.5, measure_s=seconds, seed=connections
    )
    path = work / "spec.json"
    path.write_text(json.dumps(spec))
    command = [sys.executable, "-m", "benchmarks.serving.client", str(path)]
    done = subprocess.run(command, cwd=services.ROOT, stdout=subprocess.PIPE, check=True, text=True)
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def main() -> None:
    """Exit status 1 when an alert fired or a request failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.observe.healthy", description=__doc__)
    parser.add_argument("--serving", choices=["container", "ray"], default="container")
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--share", type=float, default=0.6, help="of the capacity (default: %(default)s)")
    parser.add_argument("--picture", type=Path, help="where to draw the overview, as PNG")
    options = parser.parse_args()
    work = services.ROOT / "work/benchmark-healthy"
    work.mkdir(parents=True, exist_ok=True)
    weights = build_weights(work / "weights")
    bodies = [json.dumps({"instances": [{"text": text}]}) for text in build_texts(weights, work / "texts.json")]
    folder = services.render(work / "service", options.serving, 1, weights, fast_dtype())
    port = metrics_port = processes.free_port()
    command = [sys.executable, "-m", "service.runtime.container", "--port", str(port)]
    if options.serving == "ray":
        metrics_port = processes.free_port()
        command = [sys.executable, "-m", "service.runtime.ray_local", "--port", str(port), "--dashboard-port", "0"]
        command += ["--metrics-port", str(metrics_port)]
    env = {**ENVIRONMENT, "PYTHONPATH": str(folder)}
    with (
        processes.Process(command, folder, env, work / "service.log") as server,
        running_prometheus(folder, {"service": f"127.0.0.1:{metrics_port}"}) as prometheus,
    ):
        url = f"http://127.0.0.1:{port}/v1/models/{services.NAME}/predict"
        server.first_answer(url, bodies[0])
        capacity_per_s = asked(url, bodies, 64, 0.0, 10, work)["completed_per_s"]
        rate = options.share * capacity_per_s
        print(f"capacity {capacity_per_s:.0f} requests/s; {rate:.0f}/s for {options.minutes:g} minutes", flush=True)
        answer = asked(url, bodies, 0, rate, options.minutes * 60, work)
        ever = f'last_over_time(ALERTS{{alertstate="firing"}}[{options.minutes + 1:.0f}m])'
        fired = prometheus.query(f"count by (alertname) ({ever})")
        if options.picture:
            query = draw.prometheus(prometheus.url, options.minutes)
            draw.draw("overview", dashboards(folder)["overview"], query, "30s").savefig(
                options.picture, dpi=80, metadata={"Software": None}
            )
    sent, failed = len(answer["latencies_ms"]), sum(answer["failures"].values())
    print(
        f"{sent} requests answered, {failed} failed; alerts that fired: {[each['metric'] for each in fired] or 'none'}"
    )
    sys.exit(int(bool(fired or failed)))


if __name__ == "__main__":
    main()
