"""Who is measured, under which loads, and with which command."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.serving.processes import free_port
from benchmarks.serving.services import ROOT, model_name


@dataclass(frozen=True)
class Load:
    """connections: of a closed loop; 0 for an open one. share: of the capacity, the rate of an open loop."""

    name: str
    connections: int = 0
    share: float = 0.0


CLOSED = tuple(Load(f"closed-{connections}", connections) for connections in (1, 8, 64))
OPEN = tuple(Load(f"open-{percent}", share=percent / 100) for percent in (60, 80))
OFFLINE = Load("offline")
BLOCKS = {1: "one model", 2: "two models"}  # of closed loops, by model processes
TAILS = "tails"  # block of open loops
WAITS_MS = (0, 5, 20, 100)  # of @serve.batch with our split


@dataclass(frozen=True)
class Contestant:
    """A server, or the offline loop (which has no path).

    command: `{port}` stands for the port to listen on. path: of the URL. ready_lines: how often `ready:` stands in the
    log once every replica can answer; 0 where the first answer says so. processes: copies of the offline loop.
    block, open_block: those that are compared most closely are up at the same time, in closed and in open loops. Few
    Ray heads: an idle one takes an eighth of a core. In open loops nobody who cannot keep up: his backlog would fall to
    the next. In a block the same command is the same server. polls: it takes a fifth of a core when it is idle, and is
    stopped while others are measured.
    """

    name: str
    command: Sequence[str]
    folder: Path
    loads: Sequence[Load]
    path: str = ""
    env: Mapping[str, str] = field(default_factory=dict)
    ready_lines: int = 1
    processes: int = 1
    block: str = ""
    open_block: str = ""
    polls: bool = False


def roster(container: Path, rays: Mapping[int, Path], texts: Path, peers: str) -> list[Contestant]:
    """Every contestant, in the order of the report.

    container: folder of the generated service in container mode. rays: replicas -> folder of the one in Ray mode.
    texts: JSON list of texts. peers: the Python that has LitServe and BentoML.
    """
    python = sys.executable
    plain = {"BENCHMARK_SERVICE": str(container), "PYTHONPATH": f"{ROOT}:{container}"}
    here = "benchmarks.serving.contestants"
    everything = (*CLOSED, *OPEN)
    busy = (CLOSED[-1], *OPEN)  # what the acceptance compares batching peers under

    def offline(name: str, processes: int) -> Contestant:
        command = (python, "-m", f"{here}.ceiling", str(texts))
        block = BLOCKS[processes]
        return Contestant(name, command, container, (OFFLINE,), env=plain, processes=processes, block=block)

    def generated_ray(replicas: int, loads: Sequence[Load]) -> Contestant:
        folder = rays[replicas]
        command = (python, "-m", "service.runtime.ray_local", "--port", "{port}", "--dashboard-port", "0")
        path = f"/v1/models/{model_name(folder)}/predict"
        name = f"ray-{replicas}"
        return Contestant(name, command, folder, loads, path, block=BLOCKS[replicas], open_block=TAILS)

    profile = {
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        "RAY_worker_niceness": "0",
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(free_port()),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(free_port()),
    }

    def serve_batch(name: str, kind: str, wait_ms: int, loads: Sequence[Load]) -> Contestant:
        together = kind == "partitioned"  # all waits on one head
        waits = map(str, WAITS_MS if together else (wait_ms,))
        command = (python, "-m", f"{here}.ray_batch", kind, "--port", "{port}", "--waits-ms", *waits)
        env = plain | {"RAY_AUTH_MODE": "disabled"} | (profile if kind != "naive" else {})
        open_block = TAILS if together else ""
        return Contestant(name, command, container, loads, f"/{wait_ms}", env, open_block=open_block)

    def fastapi(form: str, workers: int, loads: Sequence[Load]) -> Contestant:
        app = f"{here}.fastapi_unbatched:{form}"
        where = ("--port", "{port}", "--workers", str(workers), "--no-access-log")
        command = (python, "-m", "uvicorn", app, "--factory", *where)
        name = f"fastapi-{form}" + (f"-{workers}" if workers > 1 else "")
        return Contestant(name, command, container, loads, "/predict", plain, workers, block=BLOCKS[workers])

    lit_command = (peers, "-m", f"{here}.litserve_batch", "--port", "{port}")
    bento_command = (peers, "-m", "bentoml", "serve", f"{here}.bentoml_batch:TextService", "--port", "{port}")
    bento_env = plain | {"BENTOML_HOME": str(texts.parent / "bentoml"), "BENTOML_DO_NOT_TRACK": "True"}
    return [
        offline("ceiling", 1),
        offline("ceiling-2", 2),
        Contestant(
            "container",
            (python, "-m", "service.runtime.container", "--port", "{port}"),
            container,
            everything,
            f"/v1/models/{model_name(container)}/predict",
            ready_lines=0,
            block=BLOCKS[1],
            open_block=TAILS,
        ),
        generated_ray(1, everything),
        generated_ray(2, CLOSED),
        serve_batch("naive", "naive", 100, busy),
        serve_batch("serve-batch-padded-5ms", "padded", 5, busy),
        *(serve_batch(f"serve-batch-{wait}ms", "partitioned", wait, OPEN if wait else busy) for wait in WAITS_MS),
        fastapi("threaded", 1, everything),
        fastapi("blocking", 1, everything),
        fastapi("threaded", 2, CLOSED),
        fastapi("blocking", 2, CLOSED),
        Contestant("litserve", lit_command, container, busy, "/predict", plain, block=BLOCKS[1], polls=True),
        Contestant("bentoml", bento_command, container, busy, "/predict", bento_env, block=BLOCKS[1]),
    ]
