"""What a database of one's own needs beyond what every pod does: three nodes that find each other, and lose one.

Each check takes an overlay that tests/manifests/built.py has joined with the database, and gives faults; without a
database there are none.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import yaml

from tests.manifests.built import Faults, Object, Overlay, Pod
from tests.manifests.reference_checks import made_by_hand, role, selects

HOST = "kubernetes.io/hostname"


def nodes_of(overlay: Overlay) -> tuple[Object, Pod] | None:
    """The object that makes the nodes, and their pod."""
    for key, thing in overlay.of_kind("StatefulSet"):
        return thing, next(pod for pod in overlay.pods() if pod.where == key)
    return None


def database_metrics(overlay: Overlay) -> Faults:
    """Prometheus reads each node, with TLS and the key, and under the name that the alerts look for."""
    faults = []
    services = [thing for _, thing in overlay.of_kind("Service")]
    for where, thing in overlay.of_kind("ServiceMonitor"):
        wanted = thing["spec"]["selector"]["matchLabels"]
        mine = [each for each in services if selects(thing["spec"]["selector"], each["metadata"]["labels"])]
        if len(mine) != 1 or mine[0]["spec"].get("clusterIP") != "None":
            faults.append(f"{where}: {wanted} selects {len(mine)} Services, and not the one with a name for each node")
        for endpoint in thing["spec"]["endpoints"]:
            if any(endpoint["port"] not in {port["name"] for port in each["spec"]["ports"]} for each in mine):
                faults.append(f"{where}: port {endpoint['port']} is none of the Service's")
            if endpoint.get("scheme") != "https" or "authorization" not in endpoint:
                faults.append(f"{where}: the metrics need TLS and the key")
        if any(each["metadata"]["labels"].get(thing["spec"]["jobLabel"]) != "qdrant" for each in mine):
            faults.append(f"{where}: the alerts look for the job qdrant")
    return faults


def database_nodes(overlay: Overlay) -> Faults:
    """Each node has a name before it is ready, the ports and folders of its configuration, and disks that stay."""
    found = nodes_of(overlay)
    if found is None:
        return []
    (nodes, pod), where, faults = found, found[1].where, []
    name, (container,) = nodes["spec"]["serviceName"], pod.spec["containers"]
    headless = overlay.objects.get(f"Service/{name}", {"spec": {}})["spec"]
    if headless.get("clusterIP") != "None" or not headless.get("publishNotReadyAddresses"):
        faults.append(f"{where}: the Service {name} gives nodes no name before they are ready")
    own = f"{nodes['metadata']['name']}-"
    peers = re.findall(r"https://([\w-]+?)-(?:\$\w+)\.([\w-]+):(\d+)", container["args"][0])
    if not peers or any((f"{peer}-", at, int(port)) != (own, name, 6335) for peer, at, port in peers):
        faults.append(f"{where}: starts with peers that have no such name: {peers}")
    config = yaml.safe_load(overlay.objects["ConfigMap/qdrant"]["data"]["production.yaml"])
    wanted = {"https": config["service"]["http_port"], "peers": config["cluster"]["p2p"]["port"]}
    if pod.ports != wanted:
        faults.append(f"{where}: has the ports {pod.ports}, and its configuration {wanted}")
    mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    for key in ("storage_path", "snapshots_path"):
        if mounts.get(config["storage"][key]) not in pod.claims:
            faults.append(f"{where}: {key} {config['storage'][key]} is on no volume that stays")
    (tls,) = (path for path, volume in mounts.items() if volume == "tls")
    for key in ("cert", "key", "ca_cert"):
        if config["tls"][key].removeprefix(f"{tls}/") not in made_by_hand()["qdrant-tls"]:
            faults.append(f"{where}: tls.{key} {config['tls'][key]} is not in the Secret")
    if not (config["service"]["enable_tls"] and config["cluster"]["p2p"]["enable_tls"]):
        faults.append("ConfigMap/qdrant: speaks without TLS")
    copies = config["storage"]["collection"]
    if copies["write_consistency_factor"] > copies["replication_factor"]:
        faults.append("ConfigMap/qdrant: waits for more copies than there are")
    return faults


def database_traffic(overlay: Overlay) -> Faults:
    """Pods of the service reach the nodes, the nodes each other, and nobody is let in or out everywhere."""
    found = nodes_of(overlay)
    if found is None:
        return []
    node, where = found[1].labels, "NetworkPolicy/qdrant"
    spec, faults = overlay.objects[where]["spec"], []
    if not selects(spec["podSelector"], node) or set(spec["policyTypes"]) != {"Ingress", "Egress"}:
        faults.append(f"{where}: does not hold for the nodes, both ways")

    def reaches(labels: dict[str, str], port: Any, rules: list[Object], side: str) -> bool:
        return any(
            "namespaceSelector" not in peer and selects(peer["podSelector"], labels) and {"port": port} in rule["ports"]
            for rule in rules
            for peer in rule[side]
        )

    for pod in overlay.pods():
        if role(pod) == "database":
            continue
        uses = "qdrant-tls" in str(pod.spec)
        if uses and not reaches(pod.labels, "https", spec["ingress"], "from"):
            faults.append(f"{where}: {pod.where} does not reach the nodes")
        if reaches(pod.labels, "peers", spec["ingress"], "from"):
            faults.append(f"{where}: {pod.where} reaches the port of the peers")
    if not reaches(node, "peers", spec["ingress"], "from") or not reaches(node, 6335, spec["egress"], "to"):
        faults.append(f"{where}: the nodes do not reach each other")
    for rule in [*spec["ingress"], *spec["egress"]]:
        peers = rule.get("from", rule.get("to"))
        if not peers or any(not any(peer.values()) for peer in peers) or not rule.get("ports"):
            faults.append(f"{where}: a rule holds for everybody, or for every port")
    return faults


def database_outage(overlay: Overlay) -> Faults:
    """The loss, or the drain, of one node stops nothing."""
    found = nodes_of(overlay)
    if found is None:
        return []
    spec, pod = found[0]["spec"], found[1]
    (container,) = pod.spec["containers"]
    apart = pod.spec["affinity"]["podAntiAffinity"].get("requiredDuringSchedulingIgnoredDuringExecution", [])
    paths = {"startupProbe": "/livez", "livenessProbe": "/livez", "readinessProbe": "/readyz"}
    rules = {
        "three nodes are the least that survive a loss": spec["replicas"] < 3,
        "nodes that wait for each other are started one by one": spec.get("podManagementPolicy") != "Parallel",
        "nodes are replaced before copies have caught up": spec["updateStrategy"]["type"] != "OnDelete",
        "two nodes may run on one machine": not any(
            term["topologyKey"] == HOST and selects(term["labelSelector"], pod.labels) for term in apart
        ),
        "a probe is missing": not paths.keys() <= container.keys(),
    }
    for probe, wanted in paths.items():
        asked = container.get(probe, {}).get("httpGet", {})
        rules[f"{probe} does not ask {wanted} over HTTPS"] = (asked.get("path"), asked.get("scheme")) != (
            wanted,
            "HTTPS",
        )
    return [f"{pod.where}: {rule}" for rule, broken in rules.items() if broken]


CHECKS: list[Callable[[Overlay], Faults]] = [database_metrics, database_nodes, database_traffic, database_outage]
