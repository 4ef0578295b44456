"""Nodes of Qdrant as far as backups see them: the snapshot API over HTTP, with the shapes of Qdrant's answers.

A node holds the bytes of its part of each collection; the first four count documents. What it should do wrong is set on
it: `die_while_sending`, `corrupt`.
"""

from __future__ import annotations

import email
import hashlib
import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from tests.store import free_port

KEY = "the key of the nodes"


class Node:
    """One node, on one port for life, whether it runs or not."""

    def __init__(self, cluster: Cluster, context: ssl.SSLContext | None) -> None:
        self.port = free_port()
        self.url = f"{'https' if context else 'http'}://127.0.0.1:{self.port}"
        self.parts: dict[str, bytes] = {}
        self.snapshots: dict[tuple[str, str], bytes] = {}
        self.made = 0
        self.die_while_sending: str | None = None
        self.corrupt: str | None = None
        self.cluster, self._context = cluster, context
        self._server: ThreadingHTTPServer | None = None

    def start(self) -> None:
        node = self

        class Handler(Requests):
            pass

        Handler.node = node
        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        if self._context:
            self._server.socket = self._context.wrap_socket(self._server.socket, server_side=True)
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def stop(self) -> None:
        """No connection is accepted any more."""
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            server.server_close()


class Cluster:
    """Three nodes, and what they know together."""

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self.aliases: dict[str, str] = {}
        self.version = "1.19.0"
        self.documents_per_count = 0  # as if somebody wrote between two counts
        self.lost = 0  # documents that no count finds
        self.nodes = [Node(self, context) for _ in range(3)]

    def put(self, collection: str, parts: list[bytes]) -> None:
        for node, part in zip(self.nodes, parts, strict=True):
            node.parts[collection] = part

    def collections(self) -> list[str]:
        return sorted({name for node in self.nodes for name in node.parts})

    def count(self, collection: str) -> int:
        total = sum(int.from_bytes(node.parts.get(collection, b"")[:4], "big") for node in self.nodes)
        self.documents_per_count *= 2
        return total + self.documents_per_count - self.lost


class Requests(BaseHTTPRequestHandler):
    node: Node
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.answer()

    do_POST = do_DELETE = do_GET

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def reply(self, status: int, body: bytes, kind: str = "application/json") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def result(self, result: Any) -> None:
        self.reply(200, json.dumps({"result": result, "status": "ok", "time": 0.001}).encode())

    def fault(self, status: int, error: str) -> None:
        self.reply(status, json.dumps({"status": {"error": error}, "time": 0.0}).encode())

    def body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def answer(self) -> None:
        node, cluster = self.node, self.node.cluster
        body, address = self.body(), urlsplit(self.path)
        path = [unquote(part) for part in address.path.split("/") if part]
        if self.headers.get("api-key") != KEY:
            self.reply(401, b"Invalid API key or JWT", "text/plain")
            return
        match self.command, path:
            case "GET", []:
                answer = {"title": "qdrant - vector search engine", "version": cluster.version, "commit": "0"}
                self.reply(200, json.dumps(answer).encode())
            case "GET", ["collections"]:
                self.result({"collections": [{"name": name} for name in cluster.collections()]})
            case "GET", ["aliases"]:
                aliases = cluster.aliases.items()
                self.result({"aliases": [{"alias_name": alias, "collection_name": to} for alias, to in aliases]})
            case "POST", ["collections", "aliases"]:
                for action in json.loads(body)["actions"]:
                    alias = action["create_alias"]
                    cluster.aliases[alias["alias_name"]] = alias["collection_name"]
                self.result(True)
            case "POST", ["collections", name, "points", "count"]:
                self.result({"count": cluster.count(name)})
            case "POST", ["collections", name, "snapshots"] if name in cluster.collections():
                node.made += 1
                snapshot, content = f"{name}-{node.port}-{node.made}.snapshot", node.parts.get(name, b"\0" * 4)
                node.snapshots[name, snapshot] = content
                described = {"name": snapshot, "creation_time": "2026-11-24T02:17:00", "size": len(content)}
                self.result({**described, "checksum": hashlib.sha256(content).hexdigest()})
            case "POST", ["collections", name, "snapshots", "upload"]:
                self.take_in(name, body, parse_qs(address.query))
            case "GET", ["collections", name, "snapshots", snapshot]:
                self.send_snapshot(name, node.snapshots[name, snapshot])
            case "DELETE", ["collections", name, "snapshots", snapshot]:
                del node.snapshots[name, snapshot]
                self.result(True)
            case _:
                self.fault(404, f"Not found: {'/'.join(path)} doesn't exist!")

    def send_snapshot(self, name: str, content: bytes) -> None:
        if self.node.die_while_sending == name:
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content[: len(content) // 2])
            self.wfile.flush()
            self.node.stop()
            self.close_connection = True
        elif self.node.corrupt == name:
            self.reply(200, content[:-1] + b"?", "application/octet-stream")
        else:
            self.reply(200, content, "application/octet-stream")

    def take_in(self, name: str, body: bytes, query: dict[str, list[str]]) -> None:
        message = email.message_from_bytes(b"Content-Type: " + self.headers["Content-Type"].encode() + b"\n\n" + body)
        *_, part = message.walk()
        content = part.get_payload(decode=True)
        assert isinstance(content, bytes)
        if query["priority"] != ["snapshot"] or query["wait"] != ["true"]:
            self.fault(400, "priority or wait is missing")
        elif hashlib.sha256(content).hexdigest() != query["checksum"][0]:
            self.fault(400, "Bad request: Snapshot checksum mismatch")
        else:
            self.node.parts[name] = content
            self.result(True)


@contextmanager
def running(cluster: Cluster) -> Iterator[Cluster]:
    with ExitStack() as stack:
        for node in cluster.nodes:
            node.start()
            stack.callback(node.stop)
        yield cluster
