"""What refers to something finds it: names, keys, ports, labels; and packets get where they must and nowhere else."""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from tests.manifests.built import Faults, Object, Overlay, Pod
from tests.variants import ROOT

# ---- names -----------------------------------------------------------------------------------------------------------


def walk(value: Any) -> Iterator[tuple[str, Any]]:
    """Every (key, value) of nested objects."""
    for key, member in value.items() if isinstance(value, dict) else enumerate(value):
        if isinstance(key, str):
            yield key, member
        if isinstance(member, dict | list):
            yield from walk(member)


def names_that_pods_use(overlay: Overlay) -> Faults:
    """Service accounts, ConfigMaps, claims, volumes, ports of probes."""
    faults = []
    kinds = {
        "configMapRef": ("ConfigMap", "name"),
        "configMapKeyRef": ("ConfigMap", "name"),
        "configMap": ("ConfigMap", "name"),
        "persistentVolumeClaim": ("PersistentVolumeClaim", "claimName"),
    }
    for pod in overlay.pods():
        account = pod.spec.get("serviceAccountName")
        if account not in overlay.names("ServiceAccount"):
            faults.append(f"{pod.where}: the service account {account} is not there")
        for key, value in walk(pod.spec):
            if key in kinds:
                kind, name = kinds[key][0], value[kinds[key][1]]
                found = overlay.objects.get(f"{kind}/{name}")
                if name == f"{overlay.answers['service_name']}-documents":  # search-documents.md says how it is made
                    continue
                if found is None:
                    faults.append(f"{pod.where}: the {kind} {name} is not there")
                elif "key" in value and value["key"] not in found.get("data", {}):
                    faults.append(f"{pod.where}: the {kind} {name} has no key {value['key']}")
        for claim in pod.spec.get("resourceClaims", []):
            if claim["resourceClaimTemplateName"] not in overlay.names("ResourceClaimTemplate"):
                faults.append(f"{pod.where}: the claim of a card {claim['resourceClaimTemplateName']} is not there")
        volumes = {volume["name"] for volume in pod.spec.get("volumes", [])} | pod.claims
        mounting = [
            *pod.containers,
            *([pod.cluster.get("autoscalerOptions") or {}] if pod.is_head and pod.cluster else []),
        ]
        mounted = {mount["name"] for container in mounting for mount in container.get("volumeMounts", [])}
        claims = {claim["name"] for claim in pod.spec.get("resourceClaims", [])}
        used = {
            claim["name"] for container in pod.containers for claim in container.get("resources", {}).get("claims", [])
        }
        faults += [f"{pod.where}: mounts {name}, which is no volume" for name in sorted(mounted - volumes)]
        faults += [f"{pod.where}: has the volume {name}, and mounts it nowhere" for name in sorted(volumes - mounted)]
        faults += [f"{pod.where}: uses the claim {name}, which it does not make" for name in sorted(used - claims)]
        for container in pod.containers:
            for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
                port = container.get(probe, {}).get("httpGet", {}).get("port")
                if port is not None and port not in pod.ports and port not in pod.ports.values():
                    faults.append(f"{pod.where}: its {probe} asks port {port}, which it does not have")
    for key, thing in overlay.of_kind("HorizontalPodAutoscaler"):
        target = thing["spec"]["scaleTargetRef"]
        if f"{target['kind']}/{target['name']}" not in overlay.objects:
            faults.append(f"{key}: scales {target['kind']}/{target['name']}, which is not there")
    return faults


def storage(overlay: Overlay) -> Faults:
    """A claim can be bound: by many nodes in a cluster, and on a laptop by the one node and with its own storage."""
    faults = []
    for key, thing in overlay.of_kind("PersistentVolumeClaim"):
        modes, wanted = thing["spec"]["accessModes"], "ReadWriteMany"
        if overlay.environment == "local":
            wanted = "ReadWriteOnce"
            if "storageClassName" in thing["spec"]:
                faults.append(f"{key}: kind has no storage class {thing['spec']['storageClassName']}")
        if modes != [wanted]:
            faults.append(f"{key}: accessModes are {modes}, not {wanted}")
    return faults


def namespaces(overlay: Overlay) -> Faults:
    """All in one, as names are looked up in an object's own."""
    found = {thing["metadata"].get("namespace") for thing in overlay.objects.values()}
    wanted = {f"{overlay.answers['service_name']}-{overlay.environment}"}
    return [] if found == wanted else [f"objects are in the namespaces {found}, not {wanted}"]


def kept_local(overlay: Overlay) -> Faults:
    """What kustomize only reads does not reach the cluster."""
    return [
        f"{key}: is meant for kustomize alone"
        for key, thing in overlay.objects.items()
        if "config.kubernetes.io/local-config" in thing["metadata"].get("annotations", {})
    ]


# ---- secrets ---------------------------------------------------------------------------------------------------------


def secrets_made_in(text: str) -> dict[str, set[str]]:
    """Secret -> keys, of every `kubectl create secret generic`. A file of variables may hold any key."""
    made: dict[str, set[str]] = {}
    joined = re.sub(r"\\\n|\n +(?=--from)", " ", text)
    for name, options in re.findall(r"\bcreate secret generic (\S+)([^\n]*)", joined):
        keys = re.findall(r"--from-(?:literal|file)=\"?([\w.-]+)", options)
        made.setdefault(name, set()).update(keys, {"*"} if "--from-env-file" in options else ())
    return made


@functools.cache
def made_by_hand() -> dict[str, set[str]]:
    """Secret -> keys, of docs/how-to."""
    return secrets_made_in("\n".join(path.read_text() for path in sorted((ROOT / "docs/how-to").glob("*.md"))))


def secrets_of(overlay: Overlay) -> dict[str, set[str]]:
    """Secret -> keys that somebody makes for this overlay."""
    service = overlay.answers["service_name"]
    made = {
        re.sub(r"^text-service\b", service, name): keys
        for name, keys in made_by_hand().items()
        if overlay.answers["secrets"] == "plain" or overlay.environment == "local" or name.startswith("qdrant-")
    }
    for _, thing in overlay.of_kind("ExternalSecret"):
        name = thing["spec"].get("target", {}).get("name", thing["metadata"]["name"])
        keys = {item["secretKey"] for item in thing["spec"].get("data", [])}
        made[name] = keys | ({"*"} if thing["spec"].get("dataFrom") else set())
    return made


def asked(overlay: Overlay) -> Iterator[tuple[str, str, str | None]]:
    """Where, Secret, and its key, of everything that asks for one; None for a key where all are taken."""
    for where, thing in overlay.objects.items():
        for key, value in walk(thing):
            if key in ("secretKeyRef", "credentials") or (key == "secret" and "key" in value):
                yield where, value["name"], value["key"]
            elif key == "secretRef":
                yield where, value["name"], None
            elif key == "secret" and "secretName" in value:
                for item in value.get("items", [{"key": None}]):
                    yield where, value["secretName"], item["key"]
            elif key == "authOptions" and "secretName" in value:
                yield where, value["secretName"], "auth_token"


def not_made(overlay: Overlay, made: dict[str, set[str]], by: str) -> Faults:
    faults = []
    for where, name, key in asked(overlay):
        if name not in made:
            faults.append(f"{where}: {by} makes the Secret {name}")
        elif key is not None and not made[name] & {key, "*"}:
            faults.append(f"{where}: {by} makes the key {key} of the Secret {name}, which has {sorted(made[name])}")
    return faults


def secrets(overlay: Overlay) -> Faults:
    """Every Secret, and key of one, has a maker; and none of their values stands in an object."""
    faults = not_made(overlay, secrets_of(overlay), "nobody")
    for where, thing in overlay.objects.items():
        if thing["kind"] == "Secret":
            faults.append(f"{where}: a Secret does not belong in a file")
        for key, value in walk(thing):
            if key == "env":
                faults += [
                    f"{where}: {each['name']} stands in the file; take it from a Secret"
                    for each in value
                    if re.search(r"KEY|PASSWORD|TOKEN|SECRET", each["name"]) and "value" in each
                ]
            elif key in ("redisPassword", "redisUsername") and "value" in value:
                faults.append(f"{where}: {key} stands in the file; take it from a Secret")
    for where, thing in overlay.of_kind("ConfigMap"):
        faults += [
            f"{where}: {name} stands in the file; take it from a Secret"
            for name in thing.get("data", {})
            if re.search(r"(KEY|PASSWORD|TOKEN|SECRET)$", name)
        ]
    return faults


def secrets_in_ci(overlay: Overlay) -> Faults:
    """The workflow that applies the overlay of a laptop makes what its pods ask for, or they would not start there."""
    workflow = overlay.folder / ".github/workflows/kubernetes.yml"
    if overlay.environment != "local" or not workflow.exists():  # with weights on a volume there is none
        return []
    return not_made(overlay, secrets_made_in(workflow.read_text()), "kubernetes.yml never")


# ---- selectors -------------------------------------------------------------------------------------------------------


def role(pod: Pod) -> str:
    """Head or worker of the service, its server (a container), a node of its database, or a pod of a job.

    A pod of a cluster that indexes, or the one that submits the work there, is "index".
    """
    if pod.where.startswith("RayService/"):
        return "head" if pod.is_head else "worker"
    kinds = {"Deployment": "server", "StatefulSet": "database", "RayJob": "index"}
    return kinds.get(pod.where.partition("/")[0], "job")


def selects(selector: Object, labels: dict[str, str]) -> bool:
    """A label selector; one that is empty selects everything."""
    if not selector.get("matchLabels", {}).items() <= labels.items():
        return False
    for each in selector.get("matchExpressions", []):
        value = labels.get(each["key"])
        if not {
            "In": value in each.get("values", []),
            "NotIn": value not in each.get("values", []),
            "Exists": value is not None,
            "DoesNotExist": value is None,
        }[each["operator"]]:
            return False
    return True


# (kind, rest of the name after the service's) -> whose pods it means, by serving mode.
MEANT = {
    "ray": {
        ("PodDisruptionBudget", ""): {"worker"},
        ("PodDisruptionBudget", "-head"): {"head"},
        ("NetworkPolicy", ""): {"head", "worker"},
        ("PodMonitor", "-head"): {"head"},
        ("PodMonitor", "-workers"): {"worker"},
    },
    "container": {
        ("PodDisruptionBudget", ""): {"server"},
        ("NetworkPolicy", ""): {"server"},
        ("PodMonitor", ""): {"server"},
        ("Service", ""): {"server"},
    },
}
# The same for what is there with jobs, or with a database of one's own, whose objects have names of their own.
MEANT_OF_JOBS = {("NetworkPolicy", "-jobs"): {"job"}, ("NetworkPolicy", "-index"): {"index"}}
MEANT_OF_DATABASE = {
    ("NetworkPolicy", "qdrant"): {"database"},
    ("PodDisruptionBudget", "qdrant"): {"database"},
    ("Service", "qdrant"): {"database"},
    ("Service", "qdrant-headless"): {"database"},
}
KINDS = ("PodDisruptionBudget", "NetworkPolicy", "PodMonitor", "Service")


def selectors(overlay: Overlay) -> Faults:
    """Services, budgets, policies and monitors find exactly the pods that they mean; none of these is missing."""
    faults = []
    service = overlay.answers["service_name"]
    roles_here = set(map(role, overlay.pods()))
    meant = {**MEANT[overlay.answers["serving"]], **MEANT_OF_JOBS, **MEANT_OF_DATABASE}
    for (kind, rest), who in meant.items():
        name = rest if rest.startswith("qdrant") else f"{service}{rest}"
        unmonitored = kind == "PodMonitor" and overlay.environment == "local"  # there is no Prometheus operator
        if f"{kind}/{name}" not in overlay.objects and who & roles_here and not unmonitored:
            faults.append(f"{kind}/{name}: is missing")
    for key, thing in overlay.of_kind(*KINDS):
        name = thing["metadata"]["name"].removeprefix(service)
        selector = thing["spec"].get("podSelector", thing["spec"].get("selector", {}))
        if thing["kind"] == "Service":
            selector = {"matchLabels": selector}
        found = {pod.where for pod in overlay.pods() if selects(selector, pod.labels)}
        roles = meant.get((thing["kind"], name))
        wanted = {pod.where for pod in overlay.pods() if role(pod) in (roles or ())}
        if roles is None:
            faults.append(f"{key}: what it is meant to select is not said in {__name__}")
        elif found != wanted:
            faults.append(f"{key}: selects {sorted(found) or 'nobody'}, and means {sorted(wanted)}")
    for pod in overlay.pods():
        for spread in pod.spec.get("topologySpreadConstraints", []):
            if not selects(spread["labelSelector"], pod.labels):
                faults.append(f"{pod.where}: is spread among pods of which it is none")
    for key, thing in overlay.of_kind("Deployment"):
        if not selects(thing["spec"]["selector"], thing["spec"]["template"]["metadata"]["labels"]):
            faults.append(f"{key}: does not select its own pods")
    return faults


def budgets(overlay: Overlay) -> Faults:
    """A drain of nodes takes one pod at a time of those that are always there, and no head that cannot come back.

    A RayCluster has no scale subresource: with maxUnavailable, or a share of its pods, Kubernetes would let none go.
    """
    faults = []
    for key, thing in overlay.of_kind("PodDisruptionBudget"):
        wanted: Object = {"maxUnavailable": 1, "unhealthyPodEvictionPolicy": "AlwaysAllow"}
        if key.endswith("-head"):
            wanted = {"minAvailable": 0 if overlay.answers["head_fault_tolerance"] else 1}
        elif overlay.answers["serving"] == "ray" and thing["metadata"]["name"] != "qdrant":
            least = sum(pod.group["minReplicas"] for pod in overlay.pods() if role(pod) == "worker" and pod.group)
            wanted = {"minAvailable": max(least - 1, 0), "unhealthyPodEvictionPolicy": "AlwaysAllow"}
        found = {name: value for name, value in thing["spec"].items() if name != "selector"}
        if found != wanted:
            faults.append(f"{key}: says {found}, not {wanted}")
    return faults


METRICS = {"head": {8080, 44217, 44227}, "worker": {8080}, "server": {8000}}


def monitors(overlay: Overlay) -> Faults:
    """Every port with metrics is read once, under a name that all pods which are read have."""
    faults = []
    read: dict[str, list[int]] = {}
    for key, thing in overlay.of_kind("PodMonitor"):
        for pod in overlay.pods():
            if not selects(thing["spec"]["selector"], pod.labels):
                continue
            for endpoint in thing["spec"]["podMetricsEndpoints"]:
                if endpoint["port"] not in pod.ports:
                    faults.append(f"{key}: reads port {endpoint['port']}, which {pod.where} does not name")
                else:
                    read.setdefault(pod.where, []).append(pod.ports[endpoint["port"]])
    if overlay.environment == "local":
        return faults
    for pod in overlay.pods():
        wanted = sorted(METRICS.get(role(pod), []))
        if sorted(read.get(pod.where, [])) != wanted:
            faults.append(f"{pod.where}: metrics are read at {read.get(pod.where, [])}, and are at {wanted}")
    return faults


# ---- traffic ---------------------------------------------------------------------------------------------------------


def services_of(overlay: Overlay) -> dict[str, dict[str, int]]:
    """Service -> its ports by name; those that KubeRay makes too."""
    found = {
        thing["metadata"]["name"]: {port.get("name", ""): port["port"] for port in thing["spec"]["ports"]}
        for _, thing in overlay.of_kind("Service")
    }
    for pod in overlay.pods():
        name = pod.where.partition(",")[0].removeprefix("RayService/")
        if role(pod) == "head":
            found[f"{name}-head-svc"] = pod.ports
        if role(pod) in ("head", "worker") and "serve" in pod.ports:
            found[f"{name}-serve-svc"] = {"serve": pod.ports["serve"]}
    return found


def routes(overlay: Overlay) -> Faults:
    """From outside there is a way to port 8000 of the service, if one was asked for, and to nothing else."""
    faults = []
    there = services_of(overlay)
    backends: list[tuple[str, str, Any]] = []
    for key, thing in overlay.of_kind("HTTPRoute"):
        for route in thing["spec"]["rules"]:
            backends += [(key, each["name"], each["port"]) for each in route["backendRefs"]]
    for key, thing in overlay.of_kind("Ingress"):
        for rule in thing["spec"]["rules"]:
            for path in rule["http"]["paths"]:
                port = path["backend"]["service"]["port"]
                backends.append((key, path["backend"]["service"]["name"], port.get("number", port.get("name"))))
    for key, name, port in backends:
        number = there.get(name, {}).get(port, port)
        if name not in there:
            faults.append(f"{key}: leads to the Service {name}, which is not there")
        elif number not in there[name].values():
            faults.append(f"{key}: leads to port {port} of {name}, which has {there[name]}")
        if number != 8000 or name.endswith("-head-svc"):
            faults.append(f"{key}: leads from outside to port {number} of {name}: only 8000 of the service may be open")
    kinds = {"gateway": "HTTPRoute", "ingress": "Ingress"}
    wanted = {kinds[overlay.answers["ingress"]]} if overlay.answers["ingress"] != "none" else set()
    found = {thing["kind"] for _, thing in overlay.of_kind("HTTPRoute", "Ingress")}
    if found != (set() if overlay.environment == "local" else wanted):
        faults.append(f"ways from outside are {sorted(found)}, and the answers ask for {sorted(wanted)}")
    for key, thing in overlay.of_kind("Service"):
        if thing["spec"].get("type", "ClusterIP") != "ClusterIP":
            faults.append(f"{key}: is open to the outside by itself: {thing['spec']['type']}")
        for pod in overlay.pods():
            if selects({"matchLabels": thing["spec"]["selector"]}, pod.labels):
                for port in thing["spec"]["ports"]:
                    target = port.get("targetPort", port["port"])
                    if target not in pod.ports and target not in pod.ports.values():
                        faults.append(f"{key}: leads to port {target}, which {pod.where} does not have")
    for pod in overlay.pods():
        if pod.group is not None and (pod.group.get("serviceType", "ClusterIP") != "ClusterIP"):
            faults.append(f"{pod.where}: opens the dashboard to the outside: {pod.group['serviceType']}")
        if pod.group is not None and (pod.group.get("enableIngress") or pod.group.get("ingressOptions")):
            faults.append(f"{pod.where}: opens the dashboard to the outside by an Ingress")
    return faults


# What GKE's Ingress must find at a Service, less the name of the BackendConfig.
OF_BACKEND = {"cloud.google.com/neg": '{"ingress": true}', "cloud.google.com/backend-config": '{"default": "%s"}'}


def health_of_backends(overlay: Overlay) -> Faults:
    """On GKE each way from outside comes with the path to ask for health: else it is `/`, which is a 404 here.

    No schema of these kinds is at hand (see schemas.py): they are compared whole.
    """
    answers, faults = overlay.answers, []
    ray, name = answers["serving"] == "ray", answers["service_name"]
    way = answers["ingress"] if answers["platform"] == "gke" else "none"
    check = {"requestPath": "/-/healthz" if ray else "/readyz"}
    target = {"group": "", "kind": "Service", "name": f"{name}-serve-svc" if ray else name}
    longest_s = max(5, -(-answers["latency_objective_ms"] // 100))
    wanted: dict[str, Object] = {}
    if way == "gateway":
        config = {"type": "HTTP", "httpHealthCheck": check}
        wanted[f"HealthCheckPolicy/{name}"] = {"default": {"config": config}, "targetRef": target}
    elif way == "ingress":
        wanted[f"BackendConfig/{name}"] = {"healthCheck": {"type": "HTTP", **check}, "timeoutSec": longest_s + 5}
        key = f"RayService/{name}" if ray else f"Service/{name}"
        thing = overlay.objects[key]
        service = thing["spec"].get("serveService", {}) if ray else thing
        given = service.get("metadata", {}).get("annotations", {})
        for annotation, value in OF_BACKEND.items():
            if given.get(annotation) != value.replace("%s", name):
                faults.append(f"{key}: the annotation {annotation} of its Service is {given.get(annotation)}")
    if overlay.environment == "local":
        wanted = {}
    found = {key: thing["spec"] for key, thing in overlay.of_kind("HealthCheckPolicy", "BackendConfig")}
    if found != wanted:
        faults.append(f"load balancers are told {found}, not {wanted}")
    return faults


@dataclass(frozen=True)
class Caller:
    """Who sends packets: a pod, by its namespace's labels and its own; or an address outside the cluster."""

    name: str
    namespace: dict[str, str] | None = None  # None: the service's own
    labels: dict[str, str] = field(default_factory=dict)
    outside: bool = False


OPERATOR = Caller("KubeRay", {"kubernetes.io/metadata.name": "kuberay-system"})
PROMETHEUS = Caller("Prometheus", {"kubernetes.io/metadata.name": "monitoring"})
OTHERS = [
    Caller("a pod of another namespace", {"kubernetes.io/metadata.name": "other"}),
    Caller("another pod of the namespace", None, {"app.kubernetes.io/name": "other"}),
    Caller("an address outside", outside=True),
]


def allowed(policies: list[Object], pod: Pod, caller: Caller, port: int) -> bool:
    """Do the NetworkPolicies that hold for a pod let a caller in? All in, where none holds."""
    mine = [
        policy["spec"]
        for policy in policies
        if selects(policy["spec"]["podSelector"], pod.labels) and "Ingress" in policy["spec"].get("policyTypes", [])
    ]

    def is_from(peer: Object) -> bool:
        if "ipBlock" in peer:
            return caller.outside
        if caller.outside:
            return False
        if "namespaceSelector" in peer:
            labels = {"kubernetes.io/metadata.name": "own"} if caller.namespace is None else caller.namespace
            if not selects(peer["namespaceSelector"], labels):
                return False
        elif caller.namespace is not None:
            return False
        return "podSelector" not in peer or selects(peer["podSelector"], caller.labels)

    def is_at(rule: Object) -> bool:
        if not rule.get("ports"):
            return True
        return any(
            each.get("port") is None
            or pod.ports.get(each["port"], each["port"]) == port
            or each.get("endPort", 0) >= port >= (each["port"] if "endPort" in each else port + 1)
            for each in rule["ports"]
        )

    return not mine or any(
        is_at(rule) and (not rule.get("from") or any(is_from(peer) for peer in rule["from"]))
        for policy in mine
        for rule in policy.get("ingress", [])
    )


def traffic(overlay: Overlay) -> Faults:
    """Port by port: who must get through does, and nobody else."""
    faults = []
    policies = [thing for _, thing in overlay.of_kind("NetworkPolicy")]
    pods = [pod for pod in overlay.pods() if role(pod) in ("head", "worker", "server")]
    own = [Caller(pod.where, None, pod.labels) for pod in pods]
    jobs = [
        Caller(pod.where, None, pod.labels) for pod in overlay.pods() if role(pod) not in ("head", "worker", "server")
    ]
    index = {pod.where for pod in overlay.pods() if role(pod) == "index"}
    for pod in overlay.pods():
        if role(pod) not in ("job", "index"):  # of a database of one's own, see database_checks.py
            continue
        for port, caller in itertools.product((8000, 8080, 8265), [*own, OPERATOR, PROMETHEUS, *OTHERS, *jobs]):
            gets = allowed(policies, pod, caller, port)
            if gets != (pod.where in index and (caller.name in index or (caller is OPERATOR and port == 8265))):
                verb = "lets in" if gets else "does not let in"
                faults.append(f"{pod.where}: is a job, and {verb} {caller.name} at {port}")
    for pod in pods:
        ray = pod.cluster is not None
        # 52365 is the dashboard's agent, 9101 and 8404 HAProxy's own, the last two where replicas listen.
        numbers = {*pod.ports.values(), *({52365, 9101, 8404, 30001, 40001} if ray else {9000})}
        for port in sorted(numbers):
            may = {caller.name: True for caller in own if ray}
            may |= {caller.name: port == 8000 for caller in (OPERATOR, PROMETHEUS, *OTHERS[:2], *jobs)}
            may |= {OTHERS[2].name: port == 8000 and overlay.answers["ingress"] != "none"}
            if ray:
                may[OPERATOR.name] = port in (8000, 8265) if role(pod) == "head" else port == 8000
                may[PROMETHEUS.name] = port in {8000, *METRICS[role(pod)]}
            for caller in [*own, OPERATOR, PROMETHEUS, *OTHERS, *jobs]:
                if caller.name not in may:
                    continue
                gets = allowed(policies, pod, caller, port)
                if gets != may[caller.name]:
                    verb = "gets to" if gets else "does not get to"
                    faults.append(f"{pod.where}: {caller.name} {verb} port {port}")
    for policy in policies:
        name = policy["metadata"]["name"]
        if "Egress" in policy["spec"].get("policyTypes", []) and name != "qdrant":  # see database_checks.py
            faults.append(f"NetworkPolicy/{name}: what may leave is not checked in {__name__}")
    return faults


CHECKS: list[Callable[[Overlay], Faults]] = [
    names_that_pods_use,
    storage,
    namespaces,
    kept_local,
    secrets,
    secrets_in_ci,
    selectors,
    budgets,
    monitors,
    routes,
    health_of_backends,
    traffic,
]
