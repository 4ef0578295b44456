"""A rendered service at somebody's desk: small overlays, a cluster to deploy to, and what stands for its pods."""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.api import Api, Object, running
from tests.rendering import compiled_once, render
from tests.variants import AXES, choices_of

NAME = "text-service"
IMAGE = f"registry.example.com/{NAME}@sha256:{'1' * 64}"
CONTEXTS = ("kind-laptop", "cloud-staging", "cloud-production")
PATH = f"{Path(sys.prefix, 'bin')}{os.pathsep}{os.environ['PATH']}"

# Everything but the tunnel to a pod is the real kubectl: it would speak SPDY with the node.
KUBECTL = """#!/bin/sh
case " $* " in
  *" port-forward "*)
    echo "$*" > "$DESK/forward.arguments"
    if [ -n "$FORWARD_FAILS" ]; then echo "$FORWARD_FAILS" >&2; exit 1; fi
    echo $$ > "$DESK/forward.pid"
    echo "Forwarding from 127.0.0.1:$FORWARD_PORT -> 8000"
    exec sleep 600
    ;;
esac
exec "$REAL_KUBECTL" "$@"
"""


class Service(BaseHTTPRequestHandler):
    """What answers at the other end of the tunnel. answers: path -> status and body."""

    answers: dict[str, tuple[int, Any]]
    asked: list[tuple[str, Any]]

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.asked.append((self.path, json.loads(body) if body else None))
        if self.path.startswith("/v1/models/hangs/"):
            self.rfile.read(1)  # until the caller leaves
            return
        status, content = self.answers[self.path]
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(content).encode())

    do_POST = do_GET


def prediction(model: str, **more: Any) -> tuple[int, Any]:
    return 200, {"model": model, "revision": "v1", "request_id": "r", "predictions": [{"label": "late"}], **more}


@dataclass
class Desk:
    """Runs the commands of a service. kind: of the object that serves."""

    folder: Path
    api: Api
    serving: str
    scratch: Path
    environment: dict[str, str]
    answers: dict[str, tuple[int, Any]] = field(default_factory=dict)
    asked: list[tuple[str, Any]] = field(default_factory=list)
    namespace: str = "text"

    def overlay(
        self, environment: str, image: str = IMAGE, namespace: str = "text", *more: Object, **spec: Any
    ) -> None:
        """Write an overlay with what serves, and a ConfigMap."""
        folder = self.folder / "deploy/overlays" / environment
        folder.mkdir(parents=True, exist_ok=True)
        settings = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"}, "data": {"at": "1e3"}}
        objects = [ray_service(image, **spec) if self.serving == "ray" else deployment(image, **spec), settings, *more]
        (folder / "objects.yaml").write_text("\n---\n".join(map(json.dumps, objects)))
        kustomization = {
            "apiVersion": "kustomize.config.k8s.io/v1beta1",
            "kind": "Kustomization",
            "resources": ["objects.yaml"],
            **({"namespace": namespace} if namespace else {}),
        }
        (folder / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))

    def context(self, name: str) -> None:
        contexts = [{"name": each, "context": {"cluster": "fake", "user": "me"}} for each in CONTEXTS]
        configuration = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": name,
            "contexts": contexts,
            "clusters": [{"name": "fake", "cluster": {"server": self.api.url}}],
            "users": [{"name": "me", "user": {"token": "the-token-of-a-user"}}],
        }
        (self.scratch / "kubeconfig").write_text(yaml.safe_dump(configuration))

    def command(self, *options: str) -> list[str]:
        return [sys.executable, "-m", "deploy.deploy", "--poll-s", "0.02", *options]

    def __call__(
        self, *options: str, timeout_s: float = 60, more: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command("--timeout-s", str(timeout_s), *options),
            cwd=self.folder,
            env={**self.environment, **(more or {})},
            check=False,
            capture_output=True,
            text=True,
            timeout=120,
        )

    def make(self, *words: str, options: str = "") -> subprocess.CompletedProcess[str]:
        """`make`, with an environment that is installed. options: added to each command of its Python."""
        python = self.folder / ".venv/bin/python"
        python.parent.mkdir(parents=True, exist_ok=True)
        python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@" {options}\n')
        python.chmod(0o755)
        (self.folder / ".venv/.installed").touch()
        of_the_shell = dict.fromkeys(("ENV", "CONTEXT", "ARGS"), "of-the-shell")
        return subprocess.run(
            ["make", *words],
            cwd=self.folder,
            env={**self.environment, **of_the_shell},
            check=False,
            capture_output=True,
            text=True,
            timeout=120,
        )

    @contextmanager
    def started(self, *options: str) -> Iterator[subprocess.Popen[str]]:
        with subprocess.Popen(
            self.command(*options),
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,  # so that a signal reaches it alone, and not its children
            # What is started in the background ignores the signal of Ctrl-C, and so do its children.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 no threads here
        ) as process:
            try:
                yield process
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)

    def tunnel_is_open(self) -> bool:
        try:
            os.kill(int((self.scratch / "forward.pid").read_text()), 0)
        except ProcessLookupError:
            return False
        return True

    def deployed(self) -> Object:
        return self.api.get("configmaps", f"{NAME}-deployed")["data"]

    def main(self) -> Object:
        return self.api.get("rayservices" if self.serving == "ray" else "deployments", NAME, self.namespace)


# ---- What serves, and what controllers make of it ------------------------------------------------------------------


def container(image: str) -> Object:
    return {"name": "server", "image": image}


def deployment(image: str, **spec: Any) -> Object:
    labels = {"app.kubernetes.io/name": NAME}
    pod = {"metadata": {"labels": labels}, "spec": {"containers": [container(image)]}}
    spec = {"replicas": 2, "selector": {"matchLabels": labels}, "template": pod, **spec}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": NAME}, "spec": spec}


def ray_service(image: str, **spec: Any) -> Object:
    template = {"spec": {"containers": [container(image)]}}
    cluster = {
        "rayVersion": "2.60.0",
        "headGroupSpec": {"rayStartParams": {"num-cpus": "0"}, "template": template},
        "workerGroupSpecs": [{"groupName": "minilm", "minReplicas": 1, "maxReplicas": 2, "template": template}],
    }
    spec = {"serveConfigV2": "applications: []", "rayClusterConfig": cluster, **spec}
    return {"apiVersion": "ray.io/v1", "kind": "RayService", "metadata": {"name": NAME}, "spec": spec}


def app(status: str, message: str = "", **deployments: tuple[str, str]) -> Object:
    told = {name: {"status": each, "message": said} for name, (each, said) in deployments.items()}
    return {"status": status, "message": message, "serveDeploymentStatuses": told}


def ray_status(
    service: Object,
    ready: str = "True",
    reason: str = "NonZeroServeEndpoints",
    message: str = "Number of serve endpoints is greater than 0",
    active: Object | None = None,
    pending: Object | None = None,
    behind: int = 0,
) -> None:
    """Set the status as KubeRay does. active, pending: applications by name, of the clusters `text-service-1`, `-2`."""
    service["status"] = {
        "observedGeneration": service["metadata"]["generation"] - behind,
        "conditions": [{"type": "Ready", "status": ready, "reason": reason, "message": message}],
        "activeServiceStatus": {} if active is None else {"rayClusterName": f"{NAME}-1", "applicationStatuses": active},
        "pendingServiceStatus": {}
        if pending is None
        else {"rayClusterName": f"{NAME}-2", "applicationStatuses": pending},
    }


def starting(service: Object) -> None:
    """A first cluster, whose head is not up yet."""
    ray_status(service, "False", "Initializing", "RayService is initializing", pending={})


def upgrading(service: Object) -> None:
    """The one before serves, a new one starts: Ready is True all the while."""
    ray_status(service, active={"minilm": app("RUNNING")}, pending={"minilm": app("DEPLOYING")})


def serves(service: Object) -> None:
    ray_status(service, active={"minilm": app("RUNNING", model=("HEALTHY", ""))})


def rolled(
    updated: int, available: int, replicas: int = 2, behind: int = 0, **condition: str
) -> Callable[[Object], None]:
    """Sets the status of a Deployment."""

    def turn(each: Object) -> None:
        each["metadata"].setdefault("annotations", {})["deployment.kubernetes.io/revision"] = "2"
        each["status"] = {
            "observedGeneration": each["metadata"]["generation"] - behind,
            "replicas": replicas,
            "updatedReplicas": updated,
            "availableReplicas": available,
            "conditions": [condition] if condition else [],
        }

    return turn


# ---- Fixtures ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def renders(template: Path, made_once: Callable[[str, Callable[[Path], object]], Path]) -> Path:
    """One service of each serving mode, with jobs."""

    def make(folder: Path) -> None:
        with compiled_once():
            for serving in choices_of("serving"):
                answers = {"serving": serving, "service_name": NAME, **AXES["vector_db"]["qdrant_self_hosted"]}
                render(template, folder / serving, answers)

    return made_once("deployed", make)


@contextmanager
def at_desk(serving: str, renders: Path, tmp_path: Path) -> Iterator[Desk]:
    folder = tmp_path / "service"
    shutil.copytree(renders / serving, folder)
    shutil.rmtree(folder / "deploy/overlays")  # theirs are large, and not the point
    stub = tmp_path / "bin" / "kubectl"
    stub.parent.mkdir()
    stub.write_text(KUBECTL)
    stub.chmod(stub.stat().st_mode | stat.S_IXUSR)
    real = shutil.which("kubectl", path=PATH)
    assert real is not None, "these tests need kubectl"
    answers = {"/v1/models": (200, {"models": [{"name": "minilm", "revision": "v1", "ready": True}]})}
    answers["/v1/models/minilm/predict"] = prediction("minilm")
    asked: list[tuple[str, Any]] = []
    handler = type("Handler", (Service,), {"answers": answers, "asked": asked})
    service = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=service.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    environment = {
        "PATH": f"{stub.parent}{os.pathsep}{PATH}",
        "HOME": str(tmp_path),
        "KUBECONFIG": str(tmp_path / "kubeconfig"),
        "REAL_KUBECTL": real,
        "DESK": str(tmp_path),
        "FORWARD_PORT": str(service.server_address[1]),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    with running(Api()) as api:
        desk = Desk(folder, api, serving, tmp_path, environment, answers, asked)
        desk.context("kind-laptop")
        yield desk
    service.shutdown()
    service.server_close()
    if (tmp_path / "forward.pid").exists() and desk.tunnel_is_open():
        os.kill(int((tmp_path / "forward.pid").read_text()), signal.SIGKILL)


@pytest.fixture
def ray(renders: Path, tmp_path: Path) -> Iterator[Desk]:
    with at_desk("ray", renders, tmp_path) as desk:
        yield desk


@pytest.fixture
def plain(renders: Path, tmp_path: Path) -> Iterator[Desk]:
    """A service in containers."""
    with at_desk("container", renders, tmp_path) as desk:
        yield desk
