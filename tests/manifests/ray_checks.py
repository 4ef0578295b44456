"""What neither schemas nor KubeRay check, and we promise of every RayService and RayJob."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import yaml

from tests.manifests.built import Faults, Object, Overlay, Pod, cluster_of, environment_of
from tests.render.checks import switches_of_ray, unknown_keys

# Ports by the names that KubeRay looks for; it declares none itself once one is declared.
HEAD_PORTS = {
    "gcs": 6379,
    "dashboard": 8265,
    "client": 10001,
    "serve": 8000,
    "metrics": 8080,
    "as-metrics": 44217,
    "dash-metrics": 44227,
}
WORKER_PORTS = {"serve": 8000, "metrics": 8080}
DRAIN = "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"
THROUGHPUT = ("RAY_SERVE_ENABLE_HA_PROXY", "RAY_SERVE_THROUGHPUT_OPTIMIZED", "RAY_SERVE_LOG_TO_STDERR")
UPGRADES = {"full": "NewCluster", "some": "NewClusterWithIncrementalUpgrade", "none": "None"}
CARD = re.compile(r"nvidia\.com/(gpu(\.shared)?|mig-.*)")


def clusters(overlay: Overlay) -> Iterator[tuple[str, Object, Object]]:
    """Where, the object, and the spec of its cluster."""
    for key, thing in overlay.of_kind("RayService", "RayJob"):
        cluster = cluster_of(thing)
        if cluster is not None:
            yield key, thing, cluster


def services(overlay: Overlay) -> Iterator[tuple[str, Object, Object]]:
    return ((key, thing["spec"], cluster) for key, thing, cluster in clusters(overlay) if thing["kind"] == "RayService")


def serve_config(spec: Object) -> Any:
    return yaml.safe_load(spec["serveConfigV2"]) or {}


def ray_pods(overlay: Overlay) -> Iterator[Pod]:
    return (pod for pod in overlay.pods() if pod.cluster is not None)


# ---- versions, images, one Serve config ------------------------------------------------------------------------------


def one_version_of_ray(overlay: Overlay) -> Faults:
    """rayVersion is the Ray that constraints.txt pins, and the image holds what that file says."""
    image = (overlay.folder / "deploy/Dockerfile").read_text()
    faults = []
    for where, _, cluster in clusters(overlay):
        if str(cluster.get("rayVersion")) != overlay.ray:
            faults.append(f"{where}: rayVersion is {cluster.get('rayVersion')}, and constraints.txt pins {overlay.ray}")
        others = set(re.findall(r"\bray(?:project/ray:|\[\S+\]==|==)([\d.]+)", image)) - {overlay.ray}
        if others or not re.search(r"pip install .*--constraint constraints\.txt", image):
            faults.append(f"deploy/Dockerfile: its Ray is not that of constraints.txt, {overlay.ray}: {others}")
    return faults


def image_for_kuberay(overlay: Overlay) -> Faults:
    """KubeRay starts Ray with bash and asks how workers are with wget: Debian's image has only bash."""
    last = (overlay.folder / "deploy/Dockerfile").read_text().rsplit("\nFROM ", 1)[-1]
    needs = any(True for _ in services(overlay))
    has = re.search(r"^RUN apt-get .*\binstall\b.*\bwget\b", last, re.M) is not None
    return ["deploy/Dockerfile: has no wget, so workers would never be ready"] if needs and not has else []


def one_image(overlay: Overlay) -> Faults:
    """Head, workers and jobs run one image: theirs first, as KubeRay takes the first container for Ray's."""
    image = f"{overlay.answers['image_registry']}/{overlay.answers['service_name']}"
    faults = []
    found = {pod.where: pod.spec["containers"][0] for pod in ray_pods(overlay)}
    for where, container in found.items():
        name = "ray-head" if where.endswith(", head") else "ray-worker"
        if not re.match(rf"{re.escape(image)}[:@]", container["image"]) or container["name"] != name:
            faults.append(f"{where}: its first container is {container['name']} with {container['image']}")
    if len({container["image"] for container in found.values()}) > 1:
        faults.append(f"images differ: {sorted({container['image'] for container in found.values()})}")
    return faults


def one_serve_config(overlay: Overlay) -> Faults:
    """The cluster gets the file that local runs and tests start with."""
    file = overlay.folder / "config/serve.yaml"
    return [
        f"{where}: serveConfigV2 is not config/serve.yaml"
        for where, spec, _ in services(overlay)
        if spec["serveConfigV2"] != file.read_text()
    ]


def strict_serve_config(overlay: Overlay) -> Faults:
    """Ray's own schema takes it, no key is one that Ray drops in silence, and what we rely on is written out."""
    from pydantic import ValidationError
    from ray.serve.schema import ServeDeploySchema

    faults = []
    for where, spec, _ in services(overlay):
        config = serve_config(spec)
        faults += unknown_keys(config, ServeDeploySchema, f"{where}, serveConfigV2")
        try:
            ServeDeploySchema.model_validate(config)
        except ValidationError as error:
            faults.append(f"{where}, serveConfigV2: {error}")
            continue
        options = config.get("http_options", {})
        rules = {
            "proxy_location is not EveryNode": config.get("proxy_location") != "EveryNode",
            "http_options.request_timeout_s is not set": not options.get("request_timeout_s"),
            "http_options.port is not 8000": options.get("port") != 8000,
            "http_options.host leaves other pods out": options.get("host") != "0.0.0.0",  # noqa: S104
            "no application": not config["applications"],
        }
        faults += [f"{where}, serveConfigV2: {rule}" for rule, broken in rules.items() if broken]
    return faults


# ---- the cluster -----------------------------------------------------------------------------------------------------


def written_out(overlay: Overlay) -> Faults:
    """What has a default that nobody wants, or that differs between Ray and KubeRay."""
    faults = []
    for where, thing, cluster in clusters(overlay):
        auth = cluster.get("authOptions") or {}
        rules = {
            "authOptions.mode is not token: whoever reaches the dashboard runs code": auth.get("mode") != "token",
            "authOptions has no secretName": not auth.get("secretName"),
            "autoscalerOptions.version is not v2": bool(cluster.get("enableInTreeAutoscaling"))
            and (cluster.get("autoscalerOptions") or {}).get("version") != "v2",
        }
        if thing["kind"] == "RayService":
            wanted = UPGRADES[overlay.answers["spare_gpus_on_upgrade"]]
            if overlay.environment == "local" and wanted == UPGRADES["some"]:
                wanted = UPGRADES["full"]  # kind has no gateway
            strategy = (thing["spec"].get("upgradeStrategy") or {}).get("type")
            rules |= {
                f"upgradeStrategy.type is {strategy}, and the answers ask for {wanted}": strategy != wanted,
                "enableInTreeAutoscaling is not true": cluster.get("enableInTreeAutoscaling") is not True,
            }
        faults += [f"{where}: {rule}" for rule, broken in rules.items() if broken]
        for group in cluster.get("workerGroupSpecs", []):
            least, most = group.get("minReplicas"), group.get("maxReplicas")
            if least is None or most is None or not least <= group.get("replicas", least) <= most or most < 1:
                faults.append(f"{where}, workers {group['groupName']}: replicas are not between {least} and {most}")
    return faults


def fault_tolerance(overlay: Overlay) -> Faults:
    """As answered; each cluster keeps to a part of Redis of its own, by its UID."""
    faults = []
    for where, _, cluster in services(overlay):
        options = cluster.get("gcsFaultToleranceOptions")
        wanted = overlay.answers["head_fault_tolerance"] and overlay.environment != "local"
        if bool(options) != wanted:
            faults.append(f"{where}: gcsFaultToleranceOptions are {options}, and the answers say {wanted}")
        if options and "externalStorageNamespace" in options:
            faults.append(f"{where}: two clusters of an upgrade would share externalStorageNamespace")
    return faults


def groups_have_names_of_their_own(overlay: Overlay) -> Faults:
    return [
        f"{where}: two groups of workers are called {name}"
        for where, _, cluster in clusters(overlay)
        for name, times in Counter(group["groupName"] for group in cluster.get("workerGroupSpecs", [])).items()
        if times > 1
    ]


def head_works_for_nobody(overlay: Overlay) -> Faults:
    """No replica and no job runs on the head."""
    faults = []
    for where, _, cluster in clusters(overlay):
        head = cluster["headGroupSpec"]
        given = {**head.get("rayStartParams", {}), **{k.lower(): v for k, v in head.get("resources", {}).items()}}
        if given.get("num-cpus", given.get("cpu")) != "0":
            faults.append(f"{where}, head: takes replicas: num-cpus is not 0")
    return faults


def ports(overlay: Overlay) -> Faults:
    """All of the head, as one that is declared hides KubeRay's own; `serve` makes the Service of the workers."""
    faults = []
    for pod in ray_pods(overlay):
        if "RayService" not in pod.where:
            continue
        wanted = HEAD_PORTS if pod.is_head else WORKER_PORTS
        own = {port["name"]: port["containerPort"] for port in pod.spec["containers"][0].get("ports", [])}
        for name, number in wanted.items():
            if own.get(name) != number:
                faults.append(f"{pod.where}: port {name} is {own.get(name)}, not {number}")
    return faults


def throughput(overlay: Overlay) -> Faults:
    """Serve's switches are all set or none, alike on head and workers, and Ray of this version reads them."""
    faults = []
    kept: dict[str, dict[str, str | None]] = {}
    for pod in ray_pods(overlay):
        if "RayService" not in pod.where:
            continue
        variables = environment_of(pod.spec["containers"][0], overlay.objects)
        switches = {name: value for name, value in variables.items() if name.startswith("RAY_")}
        kept[pod.where] = switches
        if {switches.get(name) for name in THROUGHPUT} not in ({"1"}, {None}):
            faults.append(f"{pod.where}: of {', '.join(THROUGHPUT)} only some are set: {switches}")
        faults += [
            f"{pod.where}: Ray of this version reads no {name}"
            for name in switches
            if f'"{name}"' not in switches_of_ray()
        ]
    if len({tuple(sorted({**switches, DRAIN: None}.items(), key=str)) for switches in kept.values()}) > 1:
        faults.append(f"switches differ between pods: {kept}")
    return faults


def left_to_kuberay(overlay: Overlay) -> Faults:
    """KubeRay adds these itself, to the version of Ray: ours would be in the way, or do nothing."""
    faults = []
    for pod in ray_pods(overlay):
        container = pod.spec["containers"][0]
        rules = {
            "has a volume at /dev/shm": any(
                mount["mountPath"] == "/dev/shm" for mount in container.get("volumeMounts", [])
            ),
            "has probes": bool(container.keys() & {"livenessProbe", "readinessProbe", "startupProbe"}),
            "has the init container wait-gcs-ready": any(
                each["name"] == "wait-gcs-ready" for each in pod.spec.get("initContainers", [])
            ),
            "brings a port that Ray's own autoscaler uses": any(
                port["containerPort"] == 52365 for port in container.get("ports", [])
            ),
        }
        faults += [f"{pod.where}: {rule}" for rule, broken in rules.items() if broken]
    for where, spec, _ in services(overlay):
        dead = spec.keys() & {"serviceUnhealthySecondThreshold", "deploymentUnhealthySecondThreshold"}
        faults += [f"{where}: {name} does nothing any more" for name in sorted(dead)]
    return faults


def strings(overlay: Overlay) -> Faults:
    """rayStartParams and resources of a group are texts; a JSON text in them is one."""
    faults = []
    for pod in ray_pods(overlay):
        assert pod.group is not None
        for field in ("rayStartParams", "resources"):
            for name, value in (pod.group.get(field) or {}).items():
                if not isinstance(value, str):
                    faults.append(f"{pod.where}: {field}.{name} is no text: {value!r}")
    return faults


# ---- room for what the Serve config asks -----------------------------------------------------------------------------


def amount(text: Any) -> float:
    """A quantity of Kubernetes, as a number: 500m is 0.5, 2Gi is 2 ** 31."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)(m|[KMGT]i)?", str(text))
    assert found is not None, text
    units = {"m": 1e-3, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}
    return float(found[1]) * units.get(found[2] or "", 1)


def cards_of(pod: Pod) -> float:
    """The cards, or shares of cards that the device plugin hands out, that a pod asks for."""
    limits = [container.get("resources", {}).get("limits", {}) for container in pod.spec["containers"]]
    asked = sum(amount(value) for limit in limits for name, value in limit.items() if CARD.fullmatch(name))
    return asked + len(pod.spec.get("resourceClaims", []))


def logical(pod: Pod) -> dict[str, float]:
    """What Ray may place in a pod: as the group says, and else as its container does."""
    assert pod.group is not None
    container = pod.spec["containers"][0].get("resources", {}).get("limits", {})
    given = {name: float(value) for name, value in (pod.group.get("resources") or {}).items()}
    return {"CPU": math.ceil(amount(container.get("cpu", 0))), "GPU": cards_of(pod), **given}


def slots_of(deployment: Object, pod: Pod) -> int:
    """The replicas that a pod holds at most, by each resource that they ask for: `slot-...` of the plan too."""
    there = logical(pod)
    return min(math.floor(there.get(name, 0) / value + 1e-9) for name, value in needs_of(deployment).items())


def needs_of(deployment: Object) -> dict[str, float]:
    options = deployment.get("ray_actor_options", {})
    needs = {"CPU": options.get("num_cpus", 1), "GPU": options.get("num_gpus", 0), **options.get("resources", {})}
    return {name: value for name, value in needs.items() if value}


def room(overlay: Overlay) -> Faults:
    """The workers at their most hold every replica at its most, and at their least those that are always there.

    So they do whatever the order in which Ray places replicas: each pod holds all that it has slots for, at once.
    """
    faults = []
    workers = [pod for pod in ray_pods(overlay) if "RayService" in pod.where and pod.is_worker]
    groups = [pod.group for pod in workers if pod.group is not None]
    for where, spec, _ in services(overlay):
        used: list[dict[str, float]] = [{} for _ in workers]
        for app in serve_config(spec).get("applications", []):
            for deployment in app.get("deployments", []):
                scaling, needs = deployment.get("autoscaling_config", {}), needs_of(deployment)
                small = needs.keys() == {"CPU"} and needs["CPU"] < 1  # the front: it finds a place beside the others
                slots = [slots_of(deployment, pod) for pod in workers]
                for bound, pods in (("min_replicas", "minReplicas"), ("max_replicas", "maxReplicas")):
                    held = sum(slot * group[pods] for slot, group in zip(slots, groups, strict=True))
                    if held < scaling.get(bound, 1):
                        faults.append(
                            f"{where}: {app['name']} has {bound} {scaling.get(bound)}, and there is room for {held}"
                        )
                for index, slot in enumerate(slots):
                    for name, value in needs.items():
                        used[index][name] = used[index].get(name, 0) + value * (0 if small else slot)
        for pod, mine in zip(workers, used, strict=True):
            over = {name: value for name, value in mine.items() if value > logical(pod).get(name, 0) + 1e-9}
            if over:
                faults.append(f"{pod.where}: models have slots for {over} there, of {logical(pod)}")
    return faults


def cards(overlay: Overlay) -> Faults:
    """Pods with a card go where cards are, Ray is told of one each, and nobody else takes a place there.

    On a laptop there are no cards: there the models run on CPUs, and Ray is told of cards all the same.
    """
    faults = []
    for pod in ray_pods(overlay):
        assert pod.group is not None
        tolerated = any(each.get("key") == "nvidia.com/gpu" for each in pod.spec.get("tolerations", []))
        told = float((pod.group.get("resources") or {}).get("GPU", 0))
        asked = cards_of(pod)
        variables = environment_of(pod.spec["containers"][0], overlay.objects)
        resources = pod.spec["containers"][0].get("resources", {})
        if overlay.environment == "local":
            rules = {"asks for a card, and kind has none": asked > 0, "looks for nodes with cards": tolerated}
        elif asked:
            rules = {
                f"asks for {asked} cards: a pod is one": asked != 1,
                "does not tolerate the taint of nodes with cards": not tolerated,
                "does not say which card": not pod.spec.get("nodeSelector"),
                "claims a card that its container does not use": bool(pod.spec.get("resourceClaims"))
                != bool(resources.get("claims")),
                f"tells Ray of {told} cards": "RayService" in pod.where and told != asked,
            }
        else:
            rules = {
                "takes a place beside cards, sees them and has none": tolerated
                and variables.get("NVIDIA_VISIBLE_DEVICES") != "void",
                "tells Ray of cards that it does not ask for": told > 0,
            }
        faults += [f"{pod.where}: {rule}" for rule, broken in rules.items() if broken]
    return faults


# ---- leaving ---------------------------------------------------------------------------------------------------------


def drain(overlay: Overlay) -> Faults:
    """Whoever leaves finishes what it has: grace of the pod > grace of Serve >= timeouts of requests >= of batches."""
    faults = []
    for where, spec, cluster in services(overlay):
        config = serve_config(spec)
        serve_s = config["http_options"].get("request_timeout_s") or math.inf
        graces = []
        for app in config["applications"]:
            own_s = app.get("args", {}).get("request_timeout_s", 0)
            for deployment in app.get("deployments", []):
                grace_s = deployment.get("graceful_shutdown_timeout_s", 20)
                batch_s = deployment.get("user_config", {}).get("batch_wait_ms", 0) / 1000
                graces.append(grace_s)
                rules = {
                    f"Serve gives a request up after {serve_s} s, the service itself after {own_s} s": serve_s <= own_s,
                    f"a request ends after {own_s} s, and its replica is stopped after {grace_s} s": grace_s < own_s,
                    f"a batch waits {batch_s} s, a request only {own_s} s": 0 < own_s <= batch_s,
                }
                faults += [f"{where}, {app['name']}: {rule}" for rule, broken in rules.items() if broken]
        delay_s = spec.get("rayClusterDeletionDelaySeconds", 60)
        if delay_s < max(graces):
            faults.append(f"{where}: the old cluster is deleted after {delay_s} s, a replica may need {max(graces)} s")
        for group in cluster.get("workerGroupSpecs", []):
            pod = group["template"]["spec"]
            given_s = pod.get("terminationGracePeriodSeconds", 30)
            if given_s <= max(graces):
                faults.append(
                    f"{where}, workers {group['groupName']}: killed after {given_s} s, a replica may need "
                    f"{max(graces)} s"
                )
            # Ray hands the replicas of its node over when it is told to stop, for this long.
            drain_s = float(environment_of(pod["containers"][0], overlay.objects).get(DRAIN) or 0)
            if not max(graces) < drain_s < given_s:
                faults.append(
                    f"{where}, workers {group['groupName']}: {DRAIN} is {drain_s:g} s, not between what a replica may "
                    f"need, {max(graces)} s, and when the pod is killed, {given_s} s"
                )
    for key, thing in overlay.of_kind("Deployment"):
        pod = thing["spec"]["template"]["spec"]
        container = pod["containers"][0]
        settings = yaml.safe_load((overlay.folder / "config/service.yaml").read_text())
        longest_s = max(model["request_timeout_s"] for model in settings["models"])
        command = (container.get("lifecycle", {}).get("preStop", {}).get("exec", {}) or {}).get("command", ["sleep", 0])
        leave_s = float(command[-1])
        given_s = pod.get("terminationGracePeriodSeconds", 30)
        if leave_s < 5:
            faults.append(f"{key}: stopped while requests are still sent to it: preStop sleeps {leave_s} s")
        if given_s < leave_s + longest_s:
            faults.append(
                f"{key}: killed after {given_s} s, and its last request may end after {leave_s} + {longest_s} s"
            )
    return faults


CHECKS: list[Callable[[Overlay], Faults]] = [
    one_version_of_ray,
    image_for_kuberay,
    one_image,
    one_serve_config,
    strict_serve_config,
    written_out,
    fault_tolerance,
    groups_have_names_of_their_own,
    head_works_for_nobody,
    ports,
    throughput,
    left_to_kuberay,
    strings,
    room,
    cards,
    drain,
]
