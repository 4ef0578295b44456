"""Measure every contestant in one run: `python -m benchmarks.serving`.

First the closed loops, round by round, in each round every contestant in turn; then the open loops in the same way, at
shares of the capacity that the closed loops have shown: the median of the generated Ray service with one replica at 64
connections. Everybody gets the same absolute rates, the same arrivals and the same texts. Each contestant is started
anew in each round. One torch thread per model process, the same dtype for all, no pinning: on two cores the client
takes a share of the second.

Each measurement comes after a warm-up of the same length, as that of the ceiling does, whose windows of 64 come after
those of 32: in bfloat16 PyTorch compiles every size of batch that it has not met, and after 2 s a service had met few.
"""

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.serving import processes, report, services
from benchmarks.serving.client import TIME_LIMIT_S, Spec
from benchmarks.serving.roster import CLOSED, OFFLINE, OPEN, Contestant, Load, roster
from benchmarks.serving.texts import build_texts, build_weights

CAPACITY_OF = "ray-1"
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
PACKAGES = ("torch", "transformers", "tokenizers", "ray", "fastapi", "uvicorn", "pydantic", "litserve", "bentoml")


def percentile_ms(sorted_ms: Sequence[float], share: float) -> float | None:
    """The smallest latency that at least `share` of the requests do not exceed; None without requests."""
    if not sorted_ms:
        return None
    return sorted_ms[max(0, -(-round(share * len(sorted_ms) * 1e6) // 10**6) - 1)]


def summarise(answer: dict[str, Any]) -> dict[str, Any]:
    """Percentiles in ms over all requests; one that failed counts as the client's time limit: shedding wins nothing."""
    failed = sum(answer["failures"].values())
    latencies = sorted(answer["latencies_ms"] + [TIME_LIMIT_S * 1e3] * failed)
    return {
        "completed_per_s": answer["completed_per_s"],
        **{f"p{percent}_ms": percentile_ms(latencies, percent / 100) for percent in (50, 95, 99)},
        "requests": len(latencies),
        "failures": answer["failures"],
    }


class Bench:
    """One run: its texts, its work folder, and what it has found so far, written to `out` after each measurement."""

    def __init__(self, work: Path, texts: list[str], seconds: float, out: Path, facts: dict[str, Any]) -> None:
        self.work = work
        self.bodies = [json.dumps({"instances": [{"text": text}]}) for text in texts]
        self.seconds = seconds
        self.out = out
        self.results: dict[str, Any] = {**facts, "capacity_per_s": None, "cells": [], "skipped": {}, "answers": {}}

    def save(self) -> None:
        self.out.write_text(json.dumps(self.results, indent=1))

    def measure(self, contestant: Contestant, loads: Sequence[Load], round_number: int) -> None:
        """Start the contestant, put the loads on it, stop it. One that fails is left out from then on, and named."""
        try:
            cells = self._serve(contestant, loads, round_number) if contestant.path else self._offline(contestant)
            for cell in cells:
                self.results["cells"].append({"contestant": contestant.name, "round": round_number, **cell})
                print(report.one_line(self.results["cells"][-1]), flush=True)
                self.save()
        except (processes.StartError, subprocess.SubprocessError, OSError, ValueError) as error:
            self.results["skipped"][contestant.name] = str(error)
            print(f"{contestant.name} is left out from here on: {error}", flush=True)
            self.save()

    def _offline(self, contestant: Contestant) -> Iterator[dict[str, Any]]:
        with ExitStack() as stack:
            copies = []
            for number in range(contestant.processes):
                log = self.work / f"{contestant.name}-{number}.log"
                copy = processes.Process(contestant.command, contestant.folder, contestant.env, log)
                copies.append(stack.enter_context(copy))
            for copy in copies:
                copy.wait_for("ready:")
            before, used = _cpu(), sum(copy.cpu_s() for copy in copies)
            for copy in copies:
                copy.say("go")
            for copy in copies:
                copy.wait_for("result:")
            cores = _cores(before, sum(copy.cpu_s() for copy in copies) - used)
            found = [json.loads(copy.log_tail(1).removeprefix("result:")) for copy in copies]
        windows = {window: sum(each[window] for each in found) for window in found[0]}
        yield {"load": "offline", "completed_per_s": max(windows.values()), "windows": windows, **cores}

    def _serve(self, contestant: Contestant, loads: Sequence[Load], round_number: int) -> Iterator[dict[str, Any]]:
        port = processes.free_port()
        url = f"http://127.0.0.1:{port}{contestant.path}"
        command = [part.format(port=port) for part in contestant.command]
        began = time.monotonic()
        with processes.Process(
            command, contestant.folder, contestant.env, self.work / f"{contestant.name}.log"
        ) as server:
            server.wait_for("ready:", contestant.ready_lines)
            answer = server.first_answer(url, self.bodies[0])
            self.results["answers"][contestant.name] = answer["predictions"] if isinstance(answer, dict) else answer
            started_s = time.monotonic() - began
            for load in loads:
                rate = load.share * (self.results["capacity_per_s"] or 0.0)
                before, used = _cpu(), server.cpu_s()
                outcome = self._client(url, load, rate, round_number)
                used = server.cpu_s() - used
                yield {
                    "load": load.name,
                    "rate_per_s": rate,
                    **summarise(outcome),
                    **_cores(before, used),
                    "start_s": round(started_s, 1),
                }

    def _client(self, url: str, load: Load, rate: float, seed: int) -> dict[str, Any]:
        spec = Spec(
            url=url,
            bodies=self.bodies,
            connections=load.connections,
            rate=rate,
            warmup_s=self.seconds,
            measure_s=self.seconds,
            seed=seed,
        )
        path = self.work / "spec.json"
        path.write_text(json.dumps(spec))
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.serving.client", str(path)],
            cwd=services.ROOT,
            capture_output=True,
            text=True,
            check=True,
            timeout=2 * self.seconds + TIME_LIMIT_S + 30,
        )
        return json.loads(done.stdout)


def _cpu() -> tuple[float, float, float, float]:
    """Clock, CPU seconds of this process with its client, of the machine, and kept by its host."""
    return time.monotonic(), processes.own_cpu_s(), *processes.machine_cpu_s()


def _cores(before: tuple[float, float, float, float], contestant_s: float) -> dict[str, float]:
    """Cores in use since `before`: by the contestant, our client, others on this machine, and kept by the host."""
    clock, own, machine, steal = (now - then for now, then in zip(_cpu(), before, strict=True))
    used = {"server": contestant_s, "client": own, "foreign": machine - own - contestant_s, "steal": steal}
    return {f"{name}_cores": round(max(0.0, seconds) / clock, 3) for name, seconds in used.items()}


def in_turn(contestants: list[Contestant], round_number: int, rounds: int) -> list[Contestant]:
    """The same order in each round, begun at another place, so that nobody always runs first or after the same one."""
    first = round_number * len(contestants) // rounds
    return contestants[first:] + contestants[:first]


def _versions(python: str) -> dict[str, str]:
    """Versions of PACKAGES that `python` has."""
    code = "import importlib.metadata as m, json; print(json.dumps({d.name: d.version for d in m.distributions()}))"
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    found = json.loads(done.stdout)
    return {package: found[package] for package in PACKAGES if package in found}


def _machine() -> dict[str, Any]:
    models = {
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if "model name" in line
    }
    return {
        "cpu": sorted(models),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "load_average": os.getloadavg()[0],
    }


def fast_dtype() -> str:
    """bfloat16 where the processor computes with it; elsewhere it is emulated, many times slower than float32."""
    flags = Path("/proc/cpuinfo").read_text()
    return "bfloat16" if "avx512_bf16" in flags or "amx_bf16" in flags else "float32"


def main() -> None:
    """Measure, print the table and the ratios, keep the raw figures. Exit status 0 also when a target is missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=8, help="of each measurement, after as many of warm-up")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="contestants, by name")
    parser.add_argument("--loads", nargs="+", metavar="LOAD", help="offline, closed-1, closed-8, closed-64, open-60 …")
    parser.add_argument("--capacity", type=float, help="requests/s that the open loops' shares refer to")
    parser.add_argument(
        "--dtype", default=fast_dtype(), help="of everybody's weights (default: %(default)s, from the CPU)"
    )
    parser.add_argument("--work", type=Path, default=services.ROOT / "work/benchmark-serving", help="scratch folder")
    parser.add_argument("--out", type=Path, help="raw figures; results.json in the scratch folder if not given")
    parser.add_argument("--peers-python", default=sys.executable, help="Python that has LitServe and BentoML")
    parser.add_argument("--service-container", type=Path, help="measure this folder instead of a rendered one")
    parser.add_argument("--service-ray", type=Path, help="measure this folder instead of a rendered one")
    options = parser.parse_args()
    os.environ.update(ENVIRONMENT)
    for number in (signal.SIGTERM, signal.SIGHUP):  # leave through the context managers, which stop the servers
        signal.signal(number, lambda received, _: sys.exit(128 + received))

    work = options.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    weights = build_weights(work / "weights")
    texts = build_texts(weights, work / "texts.json")

    def service(serving: str, given: Path | None, replicas: int) -> Path:
        folder = work / f"{serving}-{replicas}"
        if given:
            return services.adopt(given, folder, replicas, weights)
        return services.render(folder, serving, replicas, weights, options.dtype)

    contestants = roster(
        container=service("container", options.service_container, 1),
        rays={replicas: service("ray", options.service_ray, replicas) for replicas in (1, 2)},
        texts=work / "texts.json",
        seconds=options.seconds,
        peers=options.peers_python,
    )
    unknown = set(options.only or ()) - {contestant.name for contestant in contestants}
    if unknown:
        parser.error(f"no contestant is called {', '.join(sorted(unknown))}")
    contestants = [contestant for contestant in contestants if not options.only or contestant.name in options.only]
    facts = {
        "machine": _machine(),
        "versions": _versions(options.peers_python) | _versions(sys.executable),
        "dtype": options.dtype,
        "rounds": options.rounds,
        "seconds": options.seconds,
    }
    bench = Bench(work, texts, options.seconds, options.out or work / "results.json", facts)

    def all_rounds(loads: Sequence[Load]) -> None:
        chosen = [load for load in loads if not options.loads or load.name in options.loads]
        for round_number in range(options.rounds):
            for contestant in in_turn(contestants, round_number, options.rounds):
                own = [load for load in contestant.loads if load in chosen]
                if own and contestant.name not in bench.results["skipped"]:
                    bench.measure(contestant, own, round_number)

    all_rounds((OFFLINE, *CLOSED))
    shown = report.median(bench.results, CAPACITY_OF, "closed-64", "completed_per_s")
    bench.results["capacity_per_s"] = options.capacity or shown
    if bench.results["capacity_per_s"]:
        all_rounds(OPEN)
    else:
        print(f"no open loops: {CAPACITY_OF} was not measured at 64 connections, and --capacity is not given")
    bench.save()
    print(report.text(bench.results))
