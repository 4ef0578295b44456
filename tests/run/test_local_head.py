"""A service on a laptop, in Ray mode: what it may not do to a second one beside it."""

import socket
import sys
from contextlib import suppress

import pytest

from tests.run.conftest import Render
from tests.run.light import put_light_model
from tests.run.service import process, ready, wait_for
from tests.store import free_port

# Where Serve listens unless told otherwise: the proxy that HAProxy falls back to, the first replica, HAProxy itself.
USUAL_PORTS = (8500, 30000, 8404, 9101)


def in_use(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("0.0.0.0", port))  # noqa: S104
        except OSError:
            return True
    return False


def test_a_local_head_takes_none_of_the_ports_on_which_another_would_answer_its_requests(render: Render) -> None:
    """Serve's processes share a port in silence, and then each head answers some of the other's requests."""
    if taken := [port for port in USUAL_PORTS if in_use(port)]:
        pytest.fail(f"something else on this machine listens on {taken}: stop it, this test cannot see past it")
    folder = render(serving="ray", model_name="light")
    put_light_model(folder, "light")
    port = free_port()
    command = [sys.executable, "-m", "service.runtime.ray_local", "--port", str(port), "--dashboard-port", "0"]
    with process(command, folder) as started:
        url = f"http://127.0.0.1:{port}"
        wait_for(f"{url} is ready", lambda: started.poll() is not None or ready(url))
        assert started.poll() is None
        assert [port for port in USUAL_PORTS if in_use(port)] == []


def test_a_local_head_starts_beside_another_that_has_the_usual_port_of_the_dashboard(render: Render) -> None:
    folder = render(serving="ray", model_name="light")
    put_light_model(folder, "light")
    port = free_port()
    command = [sys.executable, "-m", "service.runtime.ray_local", "--port", str(port)]
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with suppress(OSError):  # somebody has it: as good
            other.bind(("127.0.0.1", 8265))
            other.listen()
        assert in_use(8265)
        with process(command, folder) as started:
            url = f"http://127.0.0.1:{port}"
            wait_for(f"{url} is ready", lambda: started.poll() is not None or ready(url))
            assert started.poll() is None
