"""An API server of our own: the part of Kubernetes' HTTP API that kubectl and the client need to deploy a service.

Objects are kept as they are applied; what controllers would do to them, a test does: `turns` are functions, of which
each read of the service's main object runs the next, so that a status changes while somebody waits for it.
"""

from __future__ import annotations

import copy
import itertools
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import yaml

Object = dict[str, Any]
Key = tuple[str, str, str]  # plural, namespace, name

# Group and version -> plural -> kind.
KINDS = {
    "v1": {
        "configmaps": "ConfigMap",
        "events": "Event",
        "namespaces": "Namespace",
        "persistentvolumeclaims": "PersistentVolumeClaim",
        "pods": "Pod",
        "secrets": "Secret",
        "serviceaccounts": "ServiceAccount",
        "services": "Service",
    },
    "apps/v1": {"deployments": "Deployment", "replicasets": "ReplicaSet"},
    "ray.io/v1": {"rayclusters": "RayCluster", "rayjobs": "RayJob", "rayservices": "RayService"},
    "autoscaling/v2": {"horizontalpodautoscalers": "HorizontalPodAutoscaler"},
    "batch/v1": {"cronjobs": "CronJob", "jobs": "Job"},
    "monitoring.coreos.com/v1": {"podmonitors": "PodMonitor", "prometheusrules": "PrometheusRule"},
    "networking.k8s.io/v1": {"ingresses": "Ingress", "networkpolicies": "NetworkPolicy"},
    "policy/v1": {"poddisruptionbudgets": "PodDisruptionBudget"},
}
MAIN = ("deployments", "rayservices")


@dataclass
class Api:
    """What the cluster holds, and how it misbehaves. refusals: (method, plural) -> (status, reason, message)."""

    namespaces: set[str] = field(default_factory=lambda: {"text"})
    objects: dict[Key, Object] = field(default_factory=dict)
    logs: dict[tuple[str, str], str] = field(default_factory=dict)
    turns: list[Callable[[Object], None]] = field(default_factory=list)
    applied: list[tuple[str, str, bool]] = field(default_factory=list)  # plural, name, in a dry run
    owners: dict[Key, dict[str, str]] = field(default_factory=dict)  # field of the spec -> who has set it
    refusals: dict[tuple[str, str], tuple[int, str, str]] = field(default_factory=dict)
    refusals_after_dry_run: dict[str, tuple[int, str, str]] = field(default_factory=dict)
    without: set[str] = field(default_factory=set)  # groups that are not installed
    away: int = 0  # requests that get no answer
    url: str = ""
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(100))
    lock: threading.RLock = field(default_factory=threading.RLock)

    def put(self, plural: str, content: Object, namespace: str = "text") -> Object:
        """Set an object, as a controller would."""
        with self.lock:
            number = str(next(self.numbers))
            content.setdefault("metadata", {}).update(namespace=namespace, resourceVersion=number)
            content["metadata"].setdefault("uid", f"uid-{number}")
            self.objects[plural, namespace, content["metadata"]["name"]] = content
            return content

    def get(self, plural: str, name: str, namespace: str = "text") -> Object:
        return self.objects[plural, namespace, name]

    def has(self, plural: str, name: str) -> bool:
        return (plural, "text", name) in self.objects


class Failure(Exception):
    def __init__(self, status: int, reason: str, message: str, details: Object | None = None) -> None:
        self.status = status
        self.body = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": message,
            "reason": reason,
            "code": status,
            **({"details": details} if details else {}),
        }


def matches(labels: Object, selector: str) -> bool:
    return all(labels.get(pair.partition("=")[0]) == pair.partition("=")[2] for pair in selector.split(",") if pair)


class Requests(BaseHTTPRequestHandler):
    api: Api
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        with self.api.lock:
            if self.api.away > 0:
                self.api.away -= 1
                self.close_connection = True
                return
            try:
                self.reply(200, self.answer(body))
            except Failure as failure:
                self.reply(failure.status, failure.body)

    do_POST = do_PUT = do_PATCH = do_GET

    def reply(self, status: int, content: Any) -> None:
        is_text = isinstance(content, str)
        body = content.encode() if is_text else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/plain" if is_text else "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def answer(self, body: bytes) -> Any:
        address = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(address.query).items()}
        path = [part for part in address.path.split("/") if part]
        groups = {each: kinds for each, kinds in KINDS.items() if each.partition("/")[0] not in self.api.without}
        match path:
            case ["version"]:
                return {"major": "1", "minor": "32", "gitVersion": "v1.32.4"}
            case ["api"]:
                return {"kind": "APIVersions", "versions": ["v1"]}
            case ["apis"]:
                return {
                    "kind": "APIGroupList",
                    "apiVersion": "v1",
                    "groups": [group(each) for each in groups if "/" in each],
                }
            case ["openapi", "v2"]:
                return ""  # an empty document in protocol buffers: kubectl looks here for what v3 does not have
            case ["openapi", "v3"]:
                return {
                    "paths": {prefix(each): {"serverRelativeURL": f"/openapi/v3/{prefix(each)}"} for each in groups}
                }
            case ["openapi", "v3", *rest]:
                return schema("/".join(rest).removeprefix("apis/").removeprefix("api/"))
            case ["api", "v1"]:
                return resources("v1")
            case ["apis", name, version] if f"{name}/{version}" in groups:
                return resources(f"{name}/{version}")
            case ["apis", "apiextensions.k8s.io", "v1", "customresourcedefinitions"]:
                return {"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinitionList", "items": []}
            case ["api", "v1", "namespaces", namespace, "pods", pod, "log"]:
                return self.log(namespace, pod, query)
            case ["api", "v1", "namespaces", namespace, plural, *name]:
                return self.rest("v1", plural, namespace, name, query, body)
            case ["apis", name, version, "namespaces", namespace, plural, *names] if f"{name}/{version}" in groups:
                return self.rest(f"{name}/{version}", plural, namespace, names, query, body)
        raise Failure(404, "NotFound", "the server could not find the requested resource")

    def log(self, namespace: str, pod: str, query: dict[str, str]) -> str:
        kept = self.api.logs.get((pod, query.get("container", "")))
        if kept is None:
            raise Failure(400, "BadRequest", f"previous terminated container in pod {pod} not found")
        return "".join(f"{line}\n" for line in kept.splitlines()[-int(query.get("tailLines", 1000)) :])

    def rest(
        self, version: str, plural: str, namespace: str, name: list[str], query: dict[str, str], body: bytes
    ) -> Any:
        api, method = self.api, self.command
        if refusal := api.refusals.get((method, plural)):
            raise Failure(*refusal)
        if plural not in KINDS[version]:
            raise Failure(404, "NotFound", "the server could not find the requested resource")
        typed = {"apiVersion": version, "kind": KINDS[version][plural]}
        if not name and method == "GET":
            found = [each for (kind, where, _), each in api.objects.items() if (kind, where) == (plural, namespace)]
            wanted = query.get("fieldSelector", "").partition("metadata.name=")[2]
            items = [
                {**typed, **each}
                for each in found
                if matches(each["metadata"].get("labels", {}), query.get("labelSelector", ""))
                and wanted in ("", each["metadata"]["name"])
            ]
            return {"apiVersion": version, "kind": f"{typed['kind']}List", "metadata": {}, "items": items}
        content = yaml.safe_load(body) if body else {}
        key = (plural, namespace, name[0] if name else content["metadata"]["name"])
        group_name = version.partition("/")[0] if "/" in version else ""
        missing = Failure(
            404,
            "NotFound",
            f'{plural}{f".{group_name}" if group_name else ""} "{key[2]}" not found',
            {"name": key[2], "kind": plural},
        )
        if method == "GET":
            if key not in api.objects:
                raise missing
            if plural in MAIN and api.turns:
                turn = api.turns.pop(0) if len(api.turns) > 1 else api.turns[0]
                turn(api.objects[key])
            return {**typed, **api.objects[key]}
        if namespace not in api.namespaces:
            details = {"name": namespace, "kind": "namespaces"}
            raise Failure(404, "NotFound", f'namespaces "{namespace}" not found', details)
        if method == "POST":
            if key in api.objects:
                raise Failure(409, "AlreadyExists", f'{plural} "{key[2]}" already exists')
            return {**typed, **api.put(plural, content, namespace)}
        if method == "PUT":
            if key not in api.objects:
                raise missing
            if api.objects[key]["metadata"]["resourceVersion"] != content["metadata"].get("resourceVersion"):
                raise Failure(
                    409, "Conflict", f'Operation cannot be fulfilled on {plural} "{key[2]}": please apply it anew'
                )
            return {**typed, **api.put(plural, content, namespace)}
        assert self.headers["Content-Type"] == "application/apply-patch+yaml", "only server-side apply is expected"
        assert query["fieldManager"] == "raypath"
        assert query["fieldValidation"] == "Strict"
        return {**typed, **self.apply(key, content, query)}

    def apply(self, key: Key, content: Object, query: dict[str, str]) -> Object:
        api, dry = self.api, query.get("dryRun") == "All"
        theirs = {name: who for name, who in api.owners.get(key, {}).items() if name in content.get("spec", {})}
        if theirs and query.get("force") != "true":
            causes = [
                {
                    "reason": "FieldManagerConflict",
                    "message": f'conflict with "{who}" using v1',
                    "field": f".spec.{name}",
                }
                for name, who in theirs.items()
            ]
            said = "\n".join(f'conflict with "{who}" using v1: .spec.{name}' for name, who in theirs.items())
            plural = "s" if len(theirs) > 1 else ""
            raise Failure(
                409,
                "Conflict",
                f"Apply failed with {len(theirs)} conflict{plural}: {said}",
                {"name": key[2], "causes": causes},
            )
        if not dry and key[0] in api.refusals_after_dry_run:
            raise Failure(*api.refusals_after_dry_run[key[0]])
        api.applied.append((key[0], key[2], dry))
        before = copy.deepcopy(api.objects.get(key, {"metadata": {"generation": 0}}))
        after = {**before, **content, "metadata": {**before["metadata"], **content["metadata"]}}
        after["metadata"]["uid"] = before["metadata"].get("uid", f"uid-{key[2]}")
        changed = {name: part for name, part in before.items() if name not in ("metadata", "status")} != content_of(
            after
        )
        if changed:
            after["metadata"]["generation"] = before["metadata"].get("generation", 0) + 1
        if dry:
            return after
        api.owners.pop(key, None)
        return api.put(key[0], after, key[1])


def content_of(each: Object) -> Object:
    return {name: part for name, part in each.items() if name not in ("metadata", "status")}


def prefix(version: str) -> str:
    return f"apis/{version}" if "/" in version else f"api/{version}"


def group(version: str) -> Object:
    name, _, number = version.partition("/")
    one = {"groupVersion": version, "version": number}
    return {"name": name, "versions": [one], "preferredVersion": one}


def resources(version: str) -> Object:
    verbs = ["create", "delete", "get", "list", "patch", "update", "watch"]
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": version,
        "resources": [
            {"name": plural, "singularName": "", "namespaced": plural != "namespaces", "kind": kind, "verbs": verbs}
            for plural, kind in KINDS[version].items()
        ],
    }


def schema(version: str) -> Object:
    """Just enough for kubectl to see that the server itself finds unknown fields."""
    name, _, number = version.rpartition("/")
    paths = {}
    for plural, kind in KINDS[version].items():
        parameters = [{"name": each, "in": "query"} for each in ("dryRun", "fieldManager", "fieldValidation", "force")]
        paths[f"/{prefix(version)}/namespaces/{{namespace}}/{plural}/{{name}}"] = {
            "patch": {
                "parameters": parameters,
                "responses": {},
                "x-kubernetes-action": "patch",
                "x-kubernetes-group-version-kind": {"group": name, "version": number, "kind": kind},
            }
        }
    return {"openapi": "3.0.0", "info": {"title": "Kubernetes", "version": "v1.32.4"}, "paths": paths}


@contextmanager
def running(api: Api) -> Iterator[Api]:
    handler = type("Handler", (Requests,), {"api": api})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    api.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield api
    finally:
        server.shutdown()
        server.server_close()
