"""A small HTTP server for stand-ins of databases: JSON in, JSON out, one request at a time, on a port of its own."""

import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

START_S = 30
# (parts of the path, body or query) -> (status, answer)
Answer = tuple[int, Any]
Route = Callable[[Sequence[str], Any], Answer]


def serve(port: int, routes: Mapping[str, Route], key_header: str, key: str | None) -> None:
    """Answer until the process ends. routes: `METHOD /path/(part)` -> what answers. Without `key` anybody may ask."""
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def _answer(self) -> Answer:
            length = int(self.headers.get("content-length", 0))
            body = json.loads(self.rfile.read(length)) if length else parse_qs(urlsplit(self.path).query)
            if key and self.headers.get(key_header) != key:
                return HTTPStatus.UNAUTHORIZED, {"message": "wrong key"}
            for route, answer in routes.items():
                if found := re.fullmatch(route, f"{self.command} {urlsplit(self.path).path}"):
                    with lock:
                        return answer(found.groups(), body)
            return HTTPStatus.NOT_FOUND, {"message": f"the stand-in does not know {self.command} {self.path}"}

        def do_GET(self) -> None:
            status, answer = self._answer()
            content = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(content)))
            self._headers_buffer.append(b"\r\n" + content)  # type: ignore[attr-defined]
            self.flush_headers()

        do_POST = do_PUT = do_DELETE = do_PATCH = do_GET

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing: a person looks at the service."""

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    server.serve_forever()


@contextmanager
def running(module: str, **env: str) -> Iterator[int]:
    """The port of `python -m module PORT`, a process that lives as long as the context."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    with subprocess.Popen([sys.executable, "-m", module, str(port)], env={**os.environ, **env}) as process:
        try:
            _wait(port, process)
            yield port
        finally:
            process.terminate()


def _wait(port: int, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        assert process.poll() is None, f"the stand-in ended with status {process.returncode}; its output is above"
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise TimeoutError(f"the stand-in did not listen within {START_S} s")
