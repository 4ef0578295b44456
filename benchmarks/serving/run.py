"""Measure every contestant in one run: `python -m benchmarks.serving`.

First the closed loops, then the open loops, round by round, at shares of the capacity that the closed loops have shown:
the mean of the generated Ray service with one replica at 64 connections. Everybody gets the same absolute rates, the
same arrivals and the same texts. Each contestant is started anew in each round. One torch thread per model process, the
same dtype for all, no pinning: on two cores the client takes a share of the second.

A virtual processor is at times half as fast, for a second or for minutes, when a neighbour is on the same core. So the
contestants of a block (`roster.py`) are up at the same time and take turns: what a round measures of each is cut into
pieces of PIECE_S, between which come those of all others. In the closed loops all with as many model processes make a
block, and with one connection a turn is a few requests (`bursts.py`). In the open loops those whose tails are closest
make one, measured TAILS_TIMES as long, as 1 % of few requests says little; the others are alone there.

Each measurement comes after a warm-up of the same length, and the first of a block after one as long as all of them: in
bfloat16 PyTorch compiles every size of batch that it has not met, and after 2 s a service had met few.
"""

import argparse
import asyncio
import itertools
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from benchmarks.serving import processes, report, services
from benchmarks.serving.bursts import Turns, bursts
from benchmarks.serving.client import TIME_LIMIT_S, Spec
from benchmarks.serving.roster import CLOSED, OFFLINE, OPEN, Contestant, Load, roster
from benchmarks.serving.texts import build_texts, build_weights

CAPACITY_OF = "ray-1"
PIECE_S = 2.0
TAILS_TIMES = 2
T = TypeVar("T")
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
    """One run: its texts, its work folder, and what it has found so far, written to `out` after each block."""

    def __init__(self, work: Path, texts: list[str], seconds: float, out: Path, facts: dict[str, Any]) -> None:
        self.work = work
        self.bodies = [json.dumps({"instances": [{"text": text}]}) for text in texts]
        self.seconds = seconds
        self.out = out
        self.results: dict[str, Any] = {**facts, "capacity_per_s": None, "cells": [], "skipped": {}, "answers": {}}

    def save(self) -> None:
        self.out.write_text(json.dumps(self.results, indent=1))

    def measure(self, block: Sequence[Contestant], loads: Sequence[Load], round_number: int) -> None:
        """Start the block, put the loads on each in turns, stop it. One that fails is left out from then on, and named.

        A cell holds what all turns of a contestant found under one load.
        """
        seconds = self.seconds * (TAILS_TIMES if len(block) > 1 and loads[0].share else 1)
        turns = max(1, round(seconds / PIECE_S)) if len(block) > 1 else 1
        up: list[Up] = []
        with ExitStack() as stack:
            for contestant in block:
                with self._or_leave_out(contestant):
                    up.append(self._start(stack, contestant, [load for load in contestant.loads if load in loads], up))
                    if turns > 1:  # what is measured here is warm-up, too
                        self._piece(up[-1], up[-1].loads[-1], self.seconds / 2, round_number)
            cells: dict[tuple[str, str], dict[str, Any]] = {}
            for single in (load for load in loads if load.connections == 1):
                cells |= self._bursts([one for one in up if single in one.loads], single, round_number)
            cells |= self._turns(up, [load for load in loads if load.connections != 1], turns, seconds, round_number)
        started = {one.contestant.name: one.started_s for one in up}
        for (name, load_name), cell in cells.items():
            about = {"contestant": name, "round": round_number, "load": load_name, "start_s": started[name]}
            self.results["cells"].append(about | cell)
            print(report.one_line(self.results["cells"][-1]), flush=True)
        self.save()

    def _turns(
        self, up: Sequence["Up"], loads: Sequence[Load], turns: int, seconds: float, round_number: int
    ) -> dict[tuple[str, str], dict[str, Any]]:
        """The cells by contestant and load: so many turns that take so many seconds together."""
        found: dict[tuple[str, str], list[Piece]] = {}
        for turn, load in itertools.product(range(turns), loads):
            for one in in_turn(up, turn, turns):
                if load not in one.loads or one.contestant.name in self.results["skipped"]:
                    continue
                with self._or_leave_out(one.contestant):
                    piece = self._piece(one, load, seconds / turns, round_number * turns + turn)
                    found.setdefault((one.contestant.name, load.name), []).append(piece)
        return {key: merged(pieces) for key, pieces in found.items()}

    @contextmanager
    def _or_leave_out(self, contestant: Contestant) -> Iterator[None]:
        try:
            yield
        except (processes.StartError, subprocess.SubprocessError, OSError, ValueError) as error:
            self.results["skipped"][contestant.name] = str(error)
            print(f"{contestant.name} is left out from here on: {error}", flush=True)

    def _start(self, stack: ExitStack, contestant: Contestant, loads: Sequence[Load], up: Sequence["Up"]) -> "Up":
        """Returns once it can answer. If one that is up has the same command, it is another path of that server."""
        began = time.monotonic()
        same = next((one for one in up if one.contestant.command == contestant.command), None)
        port, copies = (same.port, same.copies) if same else self._processes(stack, contestant)
        url = f"http://127.0.0.1:{port}{contestant.path}" if contestant.path else ""
        if url:
            answer = copies[0].first_answer(url, self.bodies[0])
            self.results["answers"][contestant.name] = answer["predictions"] if isinstance(answer, dict) else answer
        return Up(contestant, loads, port, copies, url, round(time.monotonic() - began, 1))

    def _processes(self, stack: ExitStack, contestant: Contestant) -> tuple[int, Sequence[processes.Process]]:
        """Its port, and its processes once each has said that it is ready."""
        port, copies = processes.free_port(), []
        command = [part.format(port=port) for part in contestant.command]
        for number in range(1 if contestant.path else contestant.processes):
            log = self.work / f"{contestant.name}-{number}.log"
            copies.append(stack.enter_context(processes.Process(command, contestant.folder, contestant.env, log)))
        for copy in copies:
            copy.wait_for("ready:", contestant.ready_lines)
        return port, copies

    def _bursts(self, up: Sequence["Up"], load: Load, seed: int) -> dict[tuple[str, str], dict[str, Any]]:
        """The cells by contestant and load, with one connection: as long as any other, after as long a warm-up."""
        urls, bodies = [one.url for one in up], self._bodies(seed)
        asyncio.run(bursts(urls, bodies, self.seconds * len(up)))
        before, used = _cpu(), [sum(copy.cpu_s() for copy in one.copies) for one in up]
        found = asyncio.run(bursts(urls, bodies, self.seconds * len(up)))
        servers = [sum(copy.cpu_s() for copy in one.copies) - was for one, was in zip(up, used, strict=True)]
        others = _cores(before, sum(servers))
        return {
            (one.contestant.name, load.name): of_bursts(
                turns, {**others, "server_cores": round(server / sum(turns.took_s), 3)}
            )
            for one, turns, server in zip(up, found, servers, strict=True)
        }

    def _bodies(self, seed: int) -> list[str]:
        """Each seed begins with other texts."""
        first = seed * len(self.bodies) // 7 % len(self.bodies)
        return self.bodies[first:] + self.bodies[:first]

    def _piece(self, one: "Up", load: Load, seconds: float, seed: int) -> "Piece":
        """Measure for so many seconds, after a warm-up of as many."""
        rate = load.share * (self.results["capacity_per_s"] or 0.0)
        if one.contestant.polls:  # it goes on where it was stopped below
            one.copies[0].send_signal(signal.SIGCONT)
        before, used = _cpu(), sum(copy.cpu_s() for copy in one.copies)
        if one.url:
            outcome = self._client(one.url, load, rate, seconds, seed)
        else:
            _offline(one.copies, seconds)
            outcome = {"completed_per_s": _offline(one.copies, seconds), "latencies_ms": [], "failures": {}}
        cores = _cores(before, sum(copy.cpu_s() for copy in one.copies) - used)
        if one.contestant.polls:
            one.copies[0].send_signal(signal.SIGSTOP)
        return Piece(outcome["completed_per_s"], outcome["latencies_ms"], outcome["failures"], rate, cores)

    def _client(self, url: str, load: Load, rate: float, seconds: float, seed: int) -> dict[str, Any]:
        spec = Spec(
            url=url,
            bodies=self._bodies(seed),
            connections=load.connections,
            rate=rate,
            warmup_s=seconds,
            measure_s=seconds,
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
            timeout=2 * seconds + TIME_LIMIT_S + 30,
        )
        return json.loads(done.stdout)


@dataclass(frozen=True)
class Up:
    """A contestant that can answer. url: empty for the offline loop. started_s: how long it took to start."""

    contestant: Contestant
    loads: Sequence[Load]
    port: int
    copies: Sequence[processes.Process]
    url: str
    started_s: float


class Piece(NamedTuple):
    """What one turn found. rate: requests/s sent, 0 in a closed loop. cores: see `_cores`."""

    completed_per_s: float
    latencies_ms: list[float]
    failures: dict[str, int]
    rate: float
    cores: dict[str, float]


def merged(pieces: Sequence[Piece]) -> dict[str, Any]:
    """The figures of pieces of equal length: throughput and cores in the mean, latencies over all requests.

    turns_p99_ms: of each turn's answers alone.
    """
    failures: Counter[str] = Counter()
    for piece in pieces:
        failures.update(piece.failures)
    outcome = {
        "completed_per_s": statistics.mean(piece.completed_per_s for piece in pieces),
        "latencies_ms": [latency for piece in pieces for latency in piece.latencies_ms],
        "failures": dict(failures),
    }
    cores = {key: round(statistics.mean(piece.cores[key] for piece in pieces), 3) for key in pieces[0].cores}
    turns = {
        "turns_per_s": [round(piece.completed_per_s, 1) for piece in pieces],
        "turns_p99_ms": [percentile_ms(sorted(piece.latencies_ms), 0.99) for piece in pieces],
    }
    return {**summarise(outcome), **turns, "rate_per_s": pieces[0].rate, **cores}


def of_bursts(turns: Turns, cores: dict[str, float]) -> dict[str, Any]:
    """The figures of turns with one connection; throughput is that of its own time alone."""
    outcome = {
        "completed_per_s": len(turns.latencies_ms) / sum(turns.took_s),
        "latencies_ms": turns.latencies_ms,
        "failures": turns.failures,
    }
    turns_per_s = [round(each / took_s, 1) for each, took_s in zip(turns.answered, turns.took_s, strict=True)]
    return {**summarise(outcome), "turns_per_s": turns_per_s, "rate_per_s": 0.0, **cores}


def _offline(copies: Sequence[processes.Process], seconds: float) -> float:
    """Texts per second of all copies of the offline loop, which begin together."""
    known = copies[0].log.read_text().count("result:")
    for copy in copies:
        copy.say(str(seconds))
    for copy in copies:
        copy.wait_for("result:", known + 1)
    return sum(float(copy.log_tail(1).removeprefix("result:")) for copy in copies)


def _cpu() -> tuple[float, float, float, float]:
    """Clock, CPU seconds of this process with its client, of the machine, and kept by its host."""
    return time.monotonic(), processes.own_cpu_s(), *processes.machine_cpu_s()


def _cores(before: tuple[float, float, float, float], contestant_s: float) -> dict[str, float]:
    """Cores in use since `before`: by the contestant, our client, others on this machine, and kept by the host."""
    clock, own, machine, steal = (now - then for now, then in zip(_cpu(), before, strict=True))
    used = {"server": contestant_s, "client": own, "foreign": machine - own - contestant_s, "steal": steal}
    return {f"{name}_cores": round(max(0.0, seconds) / clock, 3) for name, seconds in used.items()}


def in_turn(items: Sequence[T], number: int, count: int) -> list[T]:
    """The same order in each of `count` turns, begun at another place, so that nobody is always the first."""
    first = number * len(items) // count
    return [*items[first:], *items[:first]]


def blocks(contestants: list[Contestant], block_of: Callable[[Contestant], str]) -> list[list[Contestant]]:
    """The contestants by the block that they are in, and those in none each alone."""
    found: dict[str, list[Contestant]] = {}
    for contestant in contestants:
        found.setdefault(block_of(contestant) or contestant.name, []).append(contestant)
    return list(found.values())


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
    parser.add_argument("--seconds", type=float, default=8, help="of a measurement, after as many of warm-up")
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

    def all_rounds(all_loads: Sequence[Load], groups: list[list[Contestant]]) -> None:
        loads = [load for load in all_loads if not options.loads or load.name in options.loads]
        for round_number in range(options.rounds):
            for group in in_turn(groups, round_number, options.rounds):
                left = [one for one in group if set(loads) & set(one.loads)]
                left = [one for one in left if one.name not in bench.results["skipped"]]
                if left:
                    bench.measure(left, loads, round_number)

    all_rounds((*CLOSED[:-1], OFFLINE, CLOSED[-1]), blocks(contestants, lambda one: one.block))
    shown = report.median(bench.results, CAPACITY_OF, "closed-64", "completed_per_s")
    bench.results["capacity_per_s"] = options.capacity or shown
    if bench.results["capacity_per_s"]:
        all_rounds(OPEN, blocks(contestants, lambda one: one.open_block))
    else:
        print(f"no open loops: {CAPACITY_OF} was not measured at 64 connections, and --capacity is not given")
    bench.save()
    print(report.text(bench.results))
