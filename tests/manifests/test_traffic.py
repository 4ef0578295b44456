"""The traffic of the generated workflow: it notices each request that is not answered."""

from __future__ import annotations

import http.server
import socketserver
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from tests.variants import ROOT


class Service(http.server.BaseHTTPRequestHandler):
    """Answers, and each tenth request with a 503 where the path says so."""

    asked = 0

    def do_POST(self) -> None:
        Service.asked += 1
        assert b"delivery" in self.rfile.read(int(self.headers["content-length"]))
        self.send_response(503 if self.path == "/failing" and Service.asked % 10 == 0 else 200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def address() -> Iterator[str]:
    Service.asked = 0
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Service) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def traffic(url: str) -> subprocess.CompletedProcess[str]:
    text = (ROOT / "template/tests/traffic.py").read_text()
    command = [sys.executable, "-c", text, url, "--rate", "50", "--seconds", "1"]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)


def test_traffic_succeeds_if_every_request_is_answered(address: str) -> None:
    done = traffic(f"{address}/predict")
    assert (done.returncode, done.stdout.splitlines()) == (0, ["50 requests, 0 failed", "    50 200"])


def test_one_refusal_fails_and_is_told(address: str) -> None:
    done = traffic(f"{address}/failing")
    assert done.returncode == 1
    assert done.stdout.startswith("50 requests, 5 failed\n")
    assert "     5 503" in done.stdout


def test_a_service_that_is_away_fails() -> None:
    done = traffic("http://127.0.0.1:9/predict")
    assert done.returncode == 1
    assert "50 requests, 50 failed\n    50 ConnectionRefusedError" in done.stdout
