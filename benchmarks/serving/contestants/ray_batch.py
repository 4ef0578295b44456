"""Ray Serve as its documentation shows it, with `@serve.batch`.

`naive`: the published recipe, every option at its default; the ingress is Ray's default proxy.
`padded`, `partitioned`: batches of 32, `max_ongoing_requests` raised so that they fill, one padded batch or the same
partition as the generated service has. The handler blocks the event loop: it is the fastest form on a CPU (batches form
while it runs). The roster runs these two behind HAProxy in throughput mode, like the generated service.

Run as `python -m benchmarks.serving.contestants.ray_batch naive|padded|partitioned --port P --waits-ms W …`. Each
wait is an application of its own on the one head, at `/W`.
"""

import argparse
import signal
import socket
import tempfile
from typing import Any

import ray
from ray import serve
from starlette.requests import Request

from benchmarks.serving.contestants.plain_model import PlainModel


@serve.deployment
class Naive:
    def __init__(self) -> None:
        self._model = PlainModel()

    @serve.batch(max_batch_size=8, batch_wait_timeout_s=0.1)
    async def __call__(self, requests: list[Request]) -> list[dict[str, Any]]:
        instances = [self._model.parse(await request.json()) for request in requests]
        return [{"predictions": [answer]} for answer in self._model.padded(instances)]


@serve.deployment(max_ongoing_requests=192, logging_config={"enable_access_log": False})
class Batched:
    def __init__(self, partitioned: bool, wait_ms: float) -> None:
        self._model = PlainModel()
        if partitioned:
            self._model.fit()
        self._run = self._model.partitioned if partitioned else self._model.padded
        self._predict.set_batch_wait_timeout_s(wait_ms / 1000)

    @serve.batch(max_batch_size=32)
    async def _predict(self, instances: list[Any]) -> list[dict[str, Any]]:
        return self._run(instances)

    async def __call__(self, request: Request) -> dict[str, Any]:
        return {"predictions": [await self._predict(self._model.parse(await request.json()))]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=["naive", "padded", "partitioned"])
    parser.add_argument("--port", type=int, required=True)
    waits = "how long a batch waits to fill, ms; naive: always 100"
    parser.add_argument("--waits-ms", type=int, nargs="+", required=True, help=waits)
    options = parser.parse_args()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        dashboard_port = probe.getsockname()[1]
    temp = tempfile.mkdtemp(prefix="ray-")
    # The dashboard runs, because the generated service needs it to deploy: everybody pays for it.
    ray.init(address="local", num_cpus=max(2, len(options.waits_ms)), dashboard_port=dashboard_port, _temp_dir=temp)
    serve.start(http_options={"host": "127.0.0.1", "port": options.port})
    for wait_ms in options.waits_ms:  # one after another: each measures what its batches cost, and must be alone for it
        app = Naive.bind() if options.kind == "naive" else Batched.bind(options.kind == "partitioned", wait_ms)
        serve.run(app, name=f"wait-{wait_ms}-ms", route_prefix=f"/{wait_ms}")
    print("ready:", flush=True)
    signal.pause()


if __name__ == "__main__":
    main()
