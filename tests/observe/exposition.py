"""GPU metrics on a machine without a GPU: what NVIDIA's exporter and a replica on a card would say."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

CARD = 'gpu="0",UUID="GPU-1",pci_bus_id="00000000:00:04.0",device="nvidia0",modelName="NVIDIA L4",Hostname="node-1"'
CARD_VALUES = {
    "DCGM_FI_DEV_GPU_UTIL": 61,
    "DCGM_FI_DEV_FB_USED": 9000,
    "DCGM_FI_DEV_FB_FREE": 13000,
    "DCGM_FI_DEV_GPU_TEMP": 58,
    "DCGM_FI_DEV_POWER_USAGE": 52.4,
    "DCGM_FI_DEV_XID_ERRORS": 0,
    "DCGM_FI_PROF_GR_ENGINE_ACTIVE": 0.55,
    "DCGM_FI_PROF_PIPE_TENSOR_ACTIVE": 0.21,
}
REPLICA_VALUES = {
    "service_gpu_memory_reserved_bytes": 4e9,
    "service_gpu_memory_share_bytes": 10e9,
    "service_gpu_memory_free_bytes": 13e9,
}
NODE = 'ray_node_gpus_utilization{GpuIndex="0",GpuDeviceName="NVIDIA L4",IsHeadNode="false",ip="10.0.0.1"} 61'


def gpu_exposition(models: list[str]) -> str:
    """The text of one card with one replica of each model on it, in Ray mode."""
    lines = []
    for name, value in CARD_VALUES.items():
        lines += [f"# TYPE {name} gauge", f"{name}{{{CARD}}} {value}"]
    for model in models:
        replica = f'model="{model}",application="{model}",deployment="model",replica="r1"'
        lines += [f"ray_{name}{{{replica}}} {value}" for name, value in REPLICA_VALUES.items()]
    return "\n".join([*lines, NODE, ""])


@contextmanager
def serving(text: str) -> Iterator[str]:
    """host:port of a server that answers everything with `text`."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = text.encode()
            self.send_response(200)
            self.send_header("content-type", "text/plain; version=0.0.4")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
