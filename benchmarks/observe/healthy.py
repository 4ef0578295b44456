"""Minutes of load that a service can take, under the eyes of Prometheus: `python -m benchmarks.observe.healthy`.

A rendered service with MiniLM is asked at a share of what it can do, by Poisson arrivals, while a Prometheus with the
rules that ship looks on. No alert may fire, and no request fail. `--picture` draws the overview.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

from benchmarks.observe.__main__ import window
from benchmarks.serving import processes, services
from benchmarks.serving.client import Spec
from benchmarks.serving.run import ENVIRONMENT, fast_dtype
from benchmarks.serving.texts import build_texts, build_weights
from tests.observe import draw
from tests.observe.panels import dashboards
from tests.prometheus import running_prometheus


def main() -> None:
    """Exit status 1 when an alert fired or a request failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.observe.healthy", description=__doc__)
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--share", type=float, default=0.6, help="of the capacity (default: %(default)s)")
    parser.add_argument("--picture", type=Path, help="where to draw the overview, as PNG")
    options = parser.parse_args()
    work = services.ROOT / "work/benchmark-healthy"
    work.mkdir(parents=True, exist_ok=True)
    weights = build_weights(work / "weights")
    bodies = [json.dumps({"instances": [{"text": text}]}) for text in build_texts(weights, work / "texts.json")]
    folder = services.render(work / "service", "container", 1, weights, fast_dtype())
    port = processes.free_port()
    env = {**ENVIRONMENT, "PYTHONPATH": str(folder)}
    command = [sys.executable, "-m", "service.runtime.container", "--port", str(port)]
    with (
        processes.Process(command, folder, env, work / "service.log") as server,
        running_prometheus(folder, {"service": f"127.0.0.1:{port}"}) as prometheus,
    ):
        url = f"http://127.0.0.1:{port}/v1/models/{services.NAME}/predict"
        server.first_answer(url, bodies[0])
        capacity_per_s = window(url, bodies, 64, 10, work)["per_s"]
        rate = options.share * capacity_per_s
        print(f"capacity {capacity_per_s:.0f} requests/s; {rate:.0f}/s for {options.minutes:g} minutes", flush=True)
        spec = Spec(
            url=url, bodies=bodies, connections=0, rate=rate, warmup_s=0, measure_s=options.minutes * 60, seed=1
        )
        path = work / "spec.json"
        path.write_text(json.dumps(spec))
        answer = json.loads(
            subprocess.run(
                [sys.executable, "-m", "benchmarks.serving.client", str(path)],
                cwd=services.ROOT,
                stdout=subprocess.PIPE,
                check=True,
                text=True,
            ).stdout
        )
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
