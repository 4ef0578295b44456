"""A vector database for tests, as a render ships it, that can be stopped, paused, and started with another key."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.run.service import environment, python_of, wait_for
from tests.store import free_port

KEY = "right"


class Database:
    """The stand-in of the render in `folder`, on one port for life, whether it runs or not. A stop loses its data."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        (module,) = {path.stem for path in (folder / "tests").glob("embedded_*.py")} & {
            "embedded_qdrant",
            "embedded_pinecone",
        }
        self._folder, self._module = folder, module
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, key: str = KEY) -> None:
        command = [str(python_of(self._folder)), "-m", f"tests.{self._module}", str(self.port)]
        self._process = subprocess.Popen(
            command, cwd=self._folder, env=environment(self._folder, VECTOR_DB_API_KEY=key)
        )
        wait_for("the vector database listens", self._listens, 30, 0.05)

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def pause(self) -> None:
        """It accepts connections, and never answers."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGSTOP)

    def resume(self) -> None:
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGCONT)

    def env(self, port: int | None = None) -> dict[str, str]:
        """What a service or a job needs to find it, at another port where something stands before it."""
        return {"VECTOR_DB_URL": f"http://127.0.0.1:{port or self.port}", "VECTOR_DB_API_KEY": KEY}


@contextmanager
def running_database(folder: Path) -> Iterator[Database]:
    database = Database(folder)
    try:
        database.start()
        yield database
    finally:
        database.stop()


@contextmanager
def answering(port: int, status: int) -> Iterator[None]:
    """Something else at a database's port, that answers everything with `status`."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("content-length", 0)))
            self.send_response(status)
            self.send_header("retry-after", "1")
            self.send_header("content-length", "0")
            self.end_headers()

        do_POST = do_PUT = do_GET

        def log_message(self, format: str, *args: object) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
