"""What schemas do not say of the objects that are applied file by file: the database of one's own, and jobs.

Each check takes the objects by path and returns faults.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

from tests.manifests import pod_checks
from tests.manifests.built import Object, Overlay
from tests.manifests.reference_checks import walk
from tests.manifests.schemas import schema_faults

Faults = list[str]
Objects = dict[str, Object]

# What people make by hand, as the how-tos run-qdrant-yourself.md and search-documents.md say: Secret -> its keys.
SECRETS = {
    "qdrant-keys": {"api-key", "read-only-api-key"},
    "qdrant-tls": {"ca.crt", "tls.crt", "tls.key"},
    "qdrant-backup": set[str](),
    "text-service-vector-db": set[str](),
}


def load(folder: Path) -> Objects:
    """Every object under deploy/ that is applied as it stands, by its path."""
    files = sorted(
        path for pattern in ("*.yaml", "jobs/*.yaml", "qdrant/*.yaml") for path in (folder / "deploy").glob(pattern)
    )
    return {path.relative_to(folder / "deploy").as_posix(): yaml.safe_load(path.read_text()) for path in files}


def of_kind(objects: Objects, *kinds: str) -> Iterator[tuple[str, Object]]:
    return ((path, thing) for path, thing in objects.items() if thing["kind"] in kinds)


def names(objects: Objects, kind: str) -> set[str]:
    return {thing["metadata"]["name"] for _, thing in of_kind(objects, kind)}


def pods(objects: Objects) -> Iterator[tuple[str, Object]]:
    """Every pod template."""
    for path, thing in of_kind(objects, "StatefulSet", "Job"):
        yield path, thing["spec"]["template"]
    for path, thing in of_kind(objects, "CronJob"):
        yield path, thing["spec"]["jobTemplate"]["spec"]["template"]
    for path, thing in of_kind(objects, "RayJob"):
        cluster = thing["spec"]["rayClusterSpec"]
        for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
            yield path, group["template"]


def selects(selector: dict[str, str], labels: dict[str, str]) -> bool:
    return bool(selector) and selector.items() <= labels.items()


def ports_of(pod: Object) -> dict[str, int]:
    return {
        port["name"]: port["containerPort"]
        for container in pod["spec"]["containers"]
        for port in container.get("ports", [])
    }


def schemas(objects: Objects) -> Faults:
    return [fault for path, thing in objects.items() for fault in schema_faults(path, thing)]


def names_that_pods_use(objects: Objects) -> Faults:
    """Service accounts, ConfigMaps, Secrets and their keys, volumes, ports of probes."""
    faults = []
    maps = {thing["metadata"]["name"]: thing["data"] for _, thing in of_kind(objects, "ConfigMap")}
    claims = {
        path: {claim["metadata"]["name"] for claim in thing["spec"]["volumeClaimTemplates"]}
        for path, thing in of_kind(objects, "StatefulSet")
    }
    for path, pod in pods(objects):
        spec = pod["spec"]
        volumes = {volume["name"]: volume for volume in spec.get("volumes", [])}
        account = spec.get("serviceAccountName")
        if account not in names(objects, "ServiceAccount") and not (
            account is None and spec.get("automountServiceAccountToken") is False  # it has no use for one
        ):
            faults.append(f"{path}: the service account {spec.get('serviceAccountName')} is not there")
        for volume in volumes.values():
            if "configMap" in volume and volume["configMap"]["name"] not in maps:
                faults.append(f"{path}: the ConfigMap {volume['configMap']['name']} is not there")
        for container in spec["containers"]:
            for mount in container["volumeMounts"]:
                if mount["name"] not in volumes.keys() | claims.get(path, set()):
                    faults.append(f"{path}: mounts {mount['name']}, which is no volume")
                mapped = volumes.get(mount["name"], {}).get("configMap", {}).get("name")
                if "subPath" in mount and mount["subPath"] not in maps.get(mapped, {}):
                    faults.append(f"{path}: mounts {mount['subPath']}, which the ConfigMap {mapped} has not")
            faults += [
                f"{path}: {probe} asks port {container[probe]['httpGet']['port']}, which has no name here"
                for probe in ("startupProbe", "livenessProbe", "readinessProbe")
                if probe in container and container[probe]["httpGet"]["port"] not in ports_of(pod)
            ]
    return faults


def secrets(objects: Objects) -> Faults:
    """Every Secret, and key of one, is among those that the how-to makes; and no value of one stands in a file."""
    faults = []
    for path, thing in objects.items():
        if thing["kind"] == "Secret":
            faults.append(f"{path}: a Secret does not belong in a file")
        for key, value in walk(thing):
            if key in ("secretKeyRef", "credentials") or (key == "secret" and "key" in value):
                if value["key"] not in SECRETS.get(value["name"], set()):
                    faults.append(f"{path}: nobody makes the key {value['key']} of the Secret {value['name']}")
            elif key in ("secret", "secretRef"):
                name = value.get("secretName", value.get("name"))
                if name not in SECRETS:
                    faults.append(f"{path}: nobody makes the Secret {name}")
                faults += [
                    f"{path}: nobody makes the key {item['key']} of the Secret {name}"
                    for item in value.get("items", [])
                    if item["key"] not in SECRETS.get(name, set())
                ]
            elif key == "env":
                faults += [
                    f"{path}: {each['name']} stands in the file; take it from a Secret"
                    for each in value
                    if re.search(r"KEY|PASSWORD|TOKEN", each["name"]) and "value" in each
                ]
    return faults


def selectors(objects: Objects) -> Faults:
    """Services, disruption budget, monitor and policy find their pods, and the ports that they name."""
    faults = []
    labelled = {path: pod["metadata"]["labels"] for path, pod in pods(objects)}
    found = dict(pods(objects))
    for path, thing in of_kind(objects, "Service"):
        mine = [found[other] for other, labels in labelled.items() if selects(thing["spec"]["selector"], labels)]
        if len(mine) != 1:
            faults.append(f"{path}: selects {len(mine)} kinds of pods")
        faults += [
            f"{path}: port {port['targetPort']} is none of its pods'"
            for pod in mine
            for port in thing["spec"]["ports"]
            if port["targetPort"] not in ports_of(pod) or port["port"] != ports_of(pod)[port["targetPort"]]
        ]
    for path, thing in of_kind(objects, "StatefulSet", "PodDisruptionBudget"):
        wanted = thing["spec"]["selector"]["matchLabels"]
        if [other for other, labels in labelled.items() if selects(wanted, labels)] != [
            other for other, _ in of_kind(objects, "StatefulSet")
        ]:
            faults.append(f"{path}: does not select exactly the nodes")
    for path, thing in of_kind(objects, "StatefulSet"):
        spec = thing["spec"]["template"]["spec"]
        terms = spec["affinity"]["podAntiAffinity"].get("requiredDuringSchedulingIgnoredDuringExecution", [])
        if not any(
            term["topologyKey"] == "kubernetes.io/hostname"
            and selects(term["labelSelector"]["matchLabels"], labelled[path])
            for term in terms
        ):
            faults.append(f"{path}: two nodes may run on one machine")
    services = {thing["metadata"]["name"]: thing for _, thing in of_kind(objects, "Service")}
    for path, thing in of_kind(objects, "ServiceMonitor"):
        wanted = thing["spec"]["selector"]["matchLabels"]
        mine = [each for each in services.values() if selects(wanted, each["metadata"]["labels"])]
        if len(mine) != 1 or mine[0]["spec"].get("clusterIP") != "None":
            faults.append(f"{path}: selects {len(mine)} Services, and not the one with a name for each node")
        for endpoint in thing["spec"]["endpoints"]:
            if any(endpoint["port"] not in {port["name"] for port in each["spec"]["ports"]} for each in mine):
                faults.append(f"{path}: port {endpoint['port']} is none of the Service's")
            if endpoint.get("scheme") != "https" or "authorization" not in endpoint:
                faults.append(f"{path}: the metrics need TLS and the key")
            if any(each["metadata"]["labels"].get(thing["spec"]["jobLabel"]) != "qdrant" for each in mine):
                faults.append(f"{path}: the alerts look for the job qdrant")
    return faults


def traffic(objects: Objects) -> Faults:
    """Each node has a name and reaches the others; jobs reach the nodes; nobody else does."""
    faults = []
    services = {thing["metadata"]["name"]: thing for _, thing in of_kind(objects, "Service")}
    config = yaml.safe_load(objects["qdrant/configmap.yaml"]["data"]["production.yaml"])
    for path, thing in of_kind(objects, "StatefulSet"):
        name, pod = thing["spec"]["serviceName"], thing["spec"]["template"]
        headless = services.get(name, {"spec": {}})["spec"]
        if headless.get("clusterIP") != "None" or not headless.get("publishNotReadyAddresses"):
            faults.append(f"{path}: the Service {name} gives nodes no name before they are ready")
        (container,) = pod["spec"]["containers"]
        own = f"{thing['metadata']['name']}-"
        peers = re.findall(r"https://([\w-]+?)-(?:\$\w+)\.([\w-]+):(\d+)", container["args"][0])
        if not peers or any((f"{peer}-", where, int(port)) != (own, name, 6335) for peer, where, port in peers):
            faults.append(f"{path}: starts with peers that have no such name: {peers}")
        wanted = {"https": config["service"]["http_port"], "peers": config["cluster"]["p2p"]["port"]}
        if ports_of(pod) != wanted:
            faults.append(f"{path}: has the ports {ports_of(pod)}, and its configuration {wanted}")
        mounts = {mount["mountPath"]: mount for mount in container["volumeMounts"]}
        claims = {claim["metadata"]["name"] for claim in thing["spec"]["volumeClaimTemplates"]}
        for key in ("storage_path", "snapshots_path"):
            if mounts.get(config["storage"][key], {}).get("name") not in claims:
                faults.append(f"{path}: {key} {config['storage'][key]} is on no volume that stays")
        (tls,) = (mount["mountPath"] for mount in container["volumeMounts"] if mount["name"] == "tls")
        for key in ("cert", "key", "ca_cert"):
            if config["tls"][key].removeprefix(f"{tls}/") not in SECRETS["qdrant-tls"]:
                faults.append(f"{path}: tls.{key} {config['tls'][key]} is not in the Secret")
        if not (config["service"]["enable_tls"] and config["cluster"]["p2p"]["enable_tls"]):
            faults.append("qdrant/configmap.yaml: speaks without TLS")
        if (
            config["storage"]["collection"]["write_consistency_factor"]
            > (config["storage"]["collection"]["replication_factor"])
        ):
            faults.append("qdrant/configmap.yaml: waits for more copies than there are")
    node = dict(pods(objects))["qdrant/statefulset.yaml"]["metadata"]["labels"]
    for path, thing in of_kind(objects, "NetworkPolicy"):
        spec = thing["spec"]
        if not selects(spec["podSelector"]["matchLabels"], node) or set(spec["policyTypes"]) != {"Ingress", "Egress"}:
            faults.append(f"{path}: does not hold for the nodes, both ways")

        def reaches(labels: dict[str, str], port: Any, rules: list[Object], side: str) -> bool:
            return any(
                "namespaceSelector" not in peer
                and selects(peer.get("podSelector", {}).get("matchLabels", {}), labels)
                and {"port": port} in rule["ports"]
                for rule in rules
                for peer in rule[side]
            )

        for other, pod in pods(objects):
            labels = pod["metadata"]["labels"]
            if pod["metadata"]["labels"] != node and not reaches(labels, "https", spec["ingress"], "from"):
                faults.append(f"{path}: {other} does not reach the nodes")
            if labels != node and reaches(labels, "peers", spec["ingress"], "from"):
                faults.append(f"{path}: {other} reaches the port of the peers")
        if not reaches(node, "peers", spec["ingress"], "from") or not reaches(node, 6335, spec["egress"], "to"):
            faults.append(f"{path}: the nodes do not reach each other")
        for rule in [*spec["ingress"], *spec["egress"]]:
            peers_of_rule = rule.get("from", rule.get("to"))
            if not peers_of_rule or any(not any(peer.values()) for peer in peers_of_rule) or not rule.get("ports"):
                faults.append(f"{path}: a rule holds for everybody, or for every port")
    return faults


def restricted(objects: Objects) -> Faults:
    """As every pod of an overlay, and with memory that is bounded, and a database's reserved."""
    faults = pod_checks.restricted(Overlay("files/production", Path(), objects))
    for path, pod in pods(objects):
        for container in [*pod["spec"]["containers"], *pod["spec"].get("initContainers", [])]:
            if "memory" not in container.get("resources", {}).get("limits", {}):
                faults.append(f"{path}: has no limit of memory")
            if not pod_checks.TAG.search(container["image"]):
                faults.append(f"{path}: has no pinned image")
    for path, thing in of_kind(objects, "StatefulSet"):
        resources = thing["spec"]["template"]["spec"]["containers"][0]["resources"]
        if resources["requests"].get("memory") != resources.get("limits", {}).get("memory"):
            faults.append(f"{path}: its memory is not reserved")
    return faults


def outage(objects: Objects) -> Faults:
    """The loss, or the drain, of one node stops nothing."""
    faults = []
    for path, thing in of_kind(objects, "StatefulSet"):
        spec = thing["spec"]
        (container,) = spec["template"]["spec"]["containers"]
        rules = {
            "three nodes are the least that survive a loss": spec["replicas"] < 3,
            "nodes that wait for each other are started one by one": spec.get("podManagementPolicy") != "Parallel",
            "nodes are replaced before copies have caught up": spec["updateStrategy"]["type"] != "OnDelete",
            "a probe is missing": not {"startupProbe", "livenessProbe", "readinessProbe"} <= container.keys(),
        }
        paths = {"startupProbe": "/livez", "livenessProbe": "/livez", "readinessProbe": "/readyz"}
        for probe, wanted in paths.items():
            asked = container.get(probe, {}).get("httpGet", {})
            rules[f"{probe} does not ask {wanted} over HTTPS"] = (asked.get("path"), asked.get("scheme")) != (
                wanted,
                "HTTPS",
            )
        faults += [f"{path}: {rule}" for rule, broken in rules.items() if broken]
    budgets = [thing["spec"].get("maxUnavailable") for _, thing in of_kind(objects, "PodDisruptionBudget")]
    if budgets != [1]:
        faults.append(f"drains may take {budgets} nodes at once")
    for path, thing in of_kind(objects, "CronJob"):
        spec, job = thing["spec"], thing["spec"]["jobTemplate"]["spec"]
        if spec.get("concurrencyPolicy") != "Forbid" or "startingDeadlineSeconds" not in spec:
            faults.append(f"{path}: two backups may run at once, or one that was missed for ever")
        if "activeDeadlineSeconds" not in job or "backoffLimit" not in job:
            faults.append(f"{path}: a backup may hang for ever")
    return faults


CHECKS: list[Callable[[Objects], Faults]] = [
    schemas,
    names_that_pods_use,
    secrets,
    selectors,
    traffic,
    restricted,
    outage,
]
