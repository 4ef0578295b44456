"""The cluster, as plain JSON: what a deploy reads and writes there, and what it says when the API server refuses."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from kubernetes import client, config
from kubernetes.client.exceptions import ApiException
from urllib3.exceptions import HTTPError

from deploy.manifests import Object

REQUEST_S = 30.0
LOG_LINES = 10


class ClusterError(Exception):
    """The API server did not do what it was asked to; the text says what, and what to do. status: of HTTP, or 0."""

    def __init__(self, text: str, status: int = 0) -> None:
        super().__init__(text)
        self.status = status


@dataclass(frozen=True)
class Problem:
    """Why the service is not ready: which object, what is wrong, what to do. final: waiting does not help."""

    text: str
    final: bool = False


@dataclass
class Look:
    """What the cluster says of the service. state: in one line. pods: the label selector of those that it needs.

    owners: names of the objects whose events tell why there is no pod.
    """

    ready: bool
    state: str
    pods: str
    owners: list[str]
    problems: list[Problem] = field(default_factory=list)


@contextmanager
def explained(doing: str) -> Iterator[None]:
    """Errors of the client inside, in words."""
    try:
        yield
    except ApiException as error:
        try:
            said = json.loads(error.body)["message"]
        except (TypeError, ValueError, KeyError):
            said = error.reason
        remedy = {
            401: ": log in to the cluster again",
            403: ": ask for a Role that allows it in this namespace",
            409: ": somebody else deploys at this moment; run it again when they are done",
        }.get(error.status, "")
        raise ClusterError(f"cannot {doing}: {said}{remedy}", error.status or 0) from None
    except (HTTPError, OSError) as error:
        raise ClusterError(f"cannot {doing}: the API server does not answer ({error})") from None


class Cluster:
    """One namespace, through a context of kubectl's configuration. Requests raise ClusterError."""

    def __init__(self, context: str, namespace: str) -> None:
        self.context, self.namespace = context, namespace
        with explained(f"use the context {context}"):
            try:
                api = config.new_client_from_config(context=context)
            except config.ConfigException as error:
                raise ClusterError(f"cannot use the context {context}: {error}") from None
        self._core, self._apps, self._custom = (
            client.CoreV1Api(api),
            client.AppsV1Api(api),
            client.CustomObjectsApi(api),
        )

    def _ask(self, doing: str, method: Callable[..., Any], *args: Any, **more: Any) -> Any:
        with explained(doing):
            answer = method(*args, _preload_content=False, _request_timeout=REQUEST_S, **more)
            return json.loads(answer.data)

    def pods(self, selector: str) -> list[Object]:
        found = self._ask("list pods", self._core.list_namespaced_pod, self.namespace, label_selector=selector)
        return list(found["items"])

    def events(self) -> list[Object]:
        """Oldest first."""
        found = self._ask("list events", self._core.list_namespaced_event, self.namespace)["items"]
        return sorted(found, key=lambda each: each.get("lastTimestamp") or each.get("eventTime") or "")

    def deployment(self, name: str) -> Object:
        found: Object = self._ask(
            f"read deployment/{name}", self._apps.read_namespaced_deployment, name, self.namespace
        )
        return found

    def replica_sets(self, selector: str) -> list[Object]:
        method = self._apps.list_namespaced_replica_set
        return list(self._ask("list replica sets", method, self.namespace, label_selector=selector)["items"])

    def ray(self, plural: str, name: str) -> Object:
        """A custom resource of KubeRay's."""
        method = self._custom.get_namespaced_custom_object
        found: Object = self._ask(f"read {plural}/{name}", method, "ray.io", "v1", self.namespace, plural, name)
        return found

    def last_lines(self, pod: str, container: str, previous: bool) -> list[str]:
        """The end of a container's log; empty where there is none."""
        with suppress(ClusterError), explained(f"read the log of {pod}"):
            answer = self._core.read_namespaced_pod_log(
                pod,
                self.namespace,
                container=container,
                previous=previous,
                tail_lines=LOG_LINES,
                _preload_content=False,
                _request_timeout=REQUEST_S,
            )
            text: str = answer.data.decode(errors="replace")
            return text.splitlines()
        return []

    def config_map(self, name: str) -> Object | None:
        method = self._core.list_namespaced_config_map
        listed = self._ask("list config maps", method, self.namespace, field_selector=f"metadata.name={name}")
        return next(iter(listed["items"]), None)

    def write_config_map(self, content: Object) -> Object:
        """Make it, or replace the version that was read; the one that the cluster has now."""
        name, core = content["metadata"]["name"], self._core
        if "resourceVersion" in content["metadata"]:
            written = self._ask(
                f"write configmap/{name}", core.replace_namespaced_config_map, name, self.namespace, content
            )
        else:
            written = self._ask(f"write configmap/{name}", core.create_namespaced_config_map, self.namespace, content)
        return dict(written)
