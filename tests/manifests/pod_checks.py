"""No pod may do more than it must: Pod Security "restricted", bounded resources, pinned images, few writable places."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from tests.manifests.built import Faults, Object, Overlay, Pod, cluster_of, environment_of

VOLUMES = {"configMap", "secret", "emptyDir", "persistentVolumeClaim"}
DIGEST = re.compile(r"@sha256:[0-9a-f]{64}$")
TAG = re.compile(r":v?\d+\.\d+\.\d+(-\w+)?$")


def containers(overlay: Overlay) -> Iterator[tuple[str, Pod, Object]]:
    for pod in overlay.pods():
        for container in pod.containers:
            yield f"{pod.where}, {container['name']}", pod, container


def restricted(overlay: Overlay) -> Faults:
    """The Pod Security Standard of that name, a read-only file system, and no token of the API but the autoscaler's."""
    faults = []
    for pod in overlay.pods():
        spec = pod.spec
        security = spec.get("securityContext", {})
        scales = pod.is_head and pod.cluster is not None and bool(pod.cluster.get("enableInTreeAutoscaling"))
        rules = {
            "runs as root": security.get("runAsNonRoot") is not True or security.get("runAsUser") == 0,
            "has no seccomp profile": security.get("seccompProfile") != {"type": "RuntimeDefault"},
            "shares a namespace of its machine": any(spec.get(key) for key in ("hostNetwork", "hostPID", "hostIPC")),
            "gets a token of the API": spec.get("automountServiceAccountToken") is not scales,
            "has a volume that is not allowed": any(
                volume.keys() - {"name"} - VOLUMES for volume in spec.get("volumes", [])
            ),
        }
        faults += [f"{pod.where}: {rule}" for rule, broken in rules.items() if broken]
        if scales:
            assert pod.cluster is not None
            own = (pod.cluster.get("autoscalerOptions") or {}).get("securityContext", {})
            faults += [f"{pod.where}, autoscaler: {rule}" for rule, broken in container_rules(own).items() if broken]
    for where, _, container in containers(overlay):
        rules = container_rules(container.get("securityContext", {}))
        rules["opens a port of its machine"] = any("hostPort" in port for port in container.get("ports", []))
        faults += [f"{where}: {rule}" for rule, broken in rules.items() if broken]
    for where, thing in overlay.of_kind("ServiceAccount"):
        if thing.get("automountServiceAccountToken") is not False:
            faults.append(f"{where}: gets a token of the API")
    for where, _ in overlay.of_kind("Role", "ClusterRole", "RoleBinding", "ClusterRoleBinding"):
        faults.append(f"{where}: gives rights; KubeRay makes the one that is needed")
    return faults


def container_rules(own: Object) -> dict[str, bool]:
    return {
        "may gain privileges": own.get("allowPrivilegeEscalation") is not False or bool(own.get("privileged")),
        "keeps capabilities": own.get("capabilities") != {"drop": ["ALL"]},
        "runs as root": own.get("runAsNonRoot") is False or own.get("runAsUser") == 0,
        "has another seccomp profile": "seccompProfile" in own,
        "may write to its image": own.get("readOnlyRootFilesystem") is not True,
    }


def resources(overlay: Overlay) -> Faults:
    """Requests are limits, of CPU and memory, so that quotas can be counted; a laptop shares what it has."""
    faults = []
    found = [(where, container.get("resources", {})) for where, _, container in containers(overlay)]
    for key, thing in overlay.of_kind("RayService", "RayJob"):
        cluster = cluster_of(thing)
        if cluster is not None and cluster.get("enableInTreeAutoscaling"):
            found.append((f"{key}, autoscaler", (cluster.get("autoscalerOptions") or {}).get("resources", {})))
    for where, given in found:
        requests, limits = given.get("requests", {}), given.get("limits", {})
        missing = {"cpu", "memory"} - (requests.keys() & limits.keys())
        if missing:
            faults.append(f"{where}: has no requests or limits of {', '.join(sorted(missing))}")
        elif overlay.environment != "local" and requests != limits:
            faults.append(f"{where}: requests {requests} are not its limits {limits}")
    return faults


def images(overlay: Overlay) -> Faults:
    """By digest in production, elsewhere by a version; on a laptop by the tag that was just built."""
    own = f"{overlay.answers['image_registry']}/{overlay.answers['service_name']}"
    faults = []
    for where, _, container in containers(overlay):
        image = container["image"]
        own_image = image.startswith((f"{own}:", f"{own}@"))
        if own_image and overlay.environment == "local":
            pinned = image.endswith(":local")
        elif own_image and overlay.environment == "production":
            pinned = DIGEST.search(image) is not None
        else:
            pinned = (TAG.search(image) or DIGEST.search(image)) is not None
        if not pinned:
            faults.append(f"{where}: {image} is not pinned as {overlay.environment} needs it")
        if container.get("imagePullPolicy") == "Always" and overlay.environment == "local":
            faults.append(f"{where}: its image is pulled, and only this machine has it")
    return faults


def writable(overlay: Overlay) -> Faults:
    """Temporary folder and HOME of our image are on a volume that is empty, and every such volume is bounded."""
    own = f"{overlay.answers['image_registry']}/{overlay.answers['service_name']}"
    faults = []
    for where, pod, container in containers(overlay):
        volumes = {volume["name"]: volume for volume in pod.spec.get("volumes", [])}
        mounts = {mount["mountPath"]: volumes.get(mount["name"], {}) for mount in container.get("volumeMounts", [])}
        home = environment_of(container, overlay.objects).get("HOME")
        for path in ("/tmp", home) if container["image"].startswith((f"{own}:", f"{own}@")) else ():
            if path is None or "emptyDir" not in mounts.get(path, {}):
                faults.append(f"{where}: {path or 'HOME, which is not set,'} is on no emptyDir")
        faults += [
            f"{where}: the emptyDir at {path} has no sizeLimit: it may fill the disk of its machine"
            for path, volume in mounts.items()
            if "emptyDir" in volume and "sizeLimit" not in volume["emptyDir"]
        ]
    return faults


def probes(overlay: Overlay) -> Faults:
    """The server says when it has started, lives and is ready; of Ray's pods KubeRay asks itself."""
    wanted = {"startupProbe": "/readyz", "livenessProbe": "/healthz", "readinessProbe": "/readyz"}
    return [
        f"{where}: {probe} does not ask {path}"
        for where, pod, container in containers(overlay)
        if pod.where.startswith("Deployment/")
        for probe, path in wanted.items()
        if container.get(probe, {}).get("httpGet", {}).get("path") != path
    ]


def jobs(overlay: Overlay) -> Faults:
    """A job does not run twice at once, nor for ever."""
    faults = []
    for key, thing in overlay.of_kind("CronJob", "Job", "RayJob"):
        spec = thing["spec"]
        if thing["kind"] == "CronJob":
            if spec.get("concurrencyPolicy") != "Forbid" or "startingDeadlineSeconds" not in spec:
                faults.append(f"{key}: two of it may run at once, or one that was missed for ever")
            spec = spec["jobTemplate"]["spec"]
        if "activeDeadlineSeconds" not in spec or "backoffLimit" not in spec:
            faults.append(f"{key}: may hang, or be tried again, for ever")
    return faults


def scaling(overlay: Overlay) -> Faults:
    """One thing sets the number of pods, within bounds that have room."""
    faults = []
    scaled = set()
    for key, thing in overlay.of_kind("HorizontalPodAutoscaler"):
        least, most = thing["spec"].get("minReplicas", 1), thing["spec"]["maxReplicas"]
        scaled.add(thing["spec"]["scaleTargetRef"]["name"])
        if not 1 <= least <= most:
            faults.append(f"{key}: minReplicas {least} is above maxReplicas {most}, or below 1")
    for key, thing in overlay.of_kind("Deployment"):
        if ("replicas" in thing["spec"]) == (thing["metadata"]["name"] in scaled):
            faults.append(f"{key}: its replicas are set by it and by an autoscaler, or by neither")
    return faults


def labels(overlay: Overlay) -> Faults:
    """Whoever looks for the service's objects and pods by its name finds all of them; a database has its own name."""
    service = overlay.answers["service_name"]

    def name_of(own: dict[str, str]) -> str:
        return "qdrant" if own.get("app.kubernetes.io/component") == "database" else str(service)

    found = {key: thing["metadata"].get("labels") or {} for key, thing in overlay.objects.items()}
    found |= {f"{pod.where}, its pods": pod.labels for pod in overlay.pods()}
    return [
        f"{where}: its label app.kubernetes.io/name is {own.get('app.kubernetes.io/name')}, not {name_of(own)}"
        for where, own in found.items()
        if own.get("app.kubernetes.io/name") != name_of(own)
    ]


CHECKS: list[Callable[[Overlay], Faults]] = [restricted, resources, images, writable, probes, jobs, scaling, labels]
