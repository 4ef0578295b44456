"""The rules by which KubeRay 1.7 refuses an object after the API server has taken it, each under its number.

The numbers are those of the list that was made from the operator's own validation; every one of 1 to 124 is here: as a
rule, or among the fields that we promise never to write, so that the rules about them have nothing to say.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import yaml

from tests.manifests.built import Faults, Object, Objects, Overlay, cluster_of, environment_of


@dataclass(frozen=True)
class Thing:
    """An object of Ray's."""

    where: str
    object: Object

    @property
    def spec(self) -> Object:
        spec: Object = self.object["spec"]
        return spec

    @property
    def name(self) -> str:
        return str(self.object["metadata"]["name"])


class Service(Thing):
    """A RayService."""

    @property
    def strategy(self) -> Object:
        return self.spec.get("upgradeStrategy") or {}

    @property
    def upgrade(self) -> Object | None:
        """The options of an incremental upgrade; None where there is no such upgrade, or no options."""
        incremental = self.strategy.get("type") == "NewClusterWithIncrementalUpgrade"
        return self.strategy.get("clusterUpgradeOptions") if incremental else None


class Job(Thing):
    """A RayJob."""


@dataclass(frozen=True)
class Cluster:
    """The cluster of a RayService or RayJob, with that object's annotations."""

    where: str
    spec: Object
    annotations: dict[str, str]
    objects: Objects

    @property
    def head(self) -> Object:
        head: Object = self.spec["headGroupSpec"]
        return head

    @property
    def head_environment(self) -> dict[str, str | None]:
        """Variables of ConfigMaps too, which the operator does not read and Ray does."""
        containers = self.head["template"]["spec"]["containers"] or [{}]
        return environment_of(containers[0], self.objects)

    @property
    def autoscaling(self) -> bool:
        return self.spec.get("enableInTreeAutoscaling") is True

    @property
    def autoscaler(self) -> Object:
        return self.spec.get("autoscalerOptions") or {}

    @property
    def is_v2(self) -> bool:
        return self.autoscaler.get("version") == "v2" or self.v2_by_environment

    @property
    def v2_by_environment(self) -> bool:
        return self.head_environment.get("RAY_enable_autoscaler_v2") in ("1", "true")

    @property
    def fault_tolerance(self) -> Object | None:
        return self.spec.get("gcsFaultToleranceOptions")

    @property
    def token(self) -> bool:
        return bool((self.spec.get("authOptions") or {}).get("mode") == "token")

    @property
    def version(self) -> tuple[int, ...] | None:
        found = re.fullmatch(r"(\d+)\.(\d+)\.(\d+)", str(self.spec.get("rayVersion", "")))
        return tuple(map(int, found.groups())) if found else None


@dataclass(frozen=True)
class Group:
    """The head's group, or one of workers."""

    where: str
    spec: Object
    cluster: Cluster
    is_head: bool

    @property
    def containers(self) -> list[Object]:
        containers: list[Object] = self.spec["template"]["spec"]["containers"]
        return containers

    @property
    def restart(self) -> str | None:
        return self.spec["template"]["spec"].get("restartPolicy")

    @property
    def start(self) -> dict[str, Any]:
        return self.spec.get("rayStartParams") or {}

    @property
    def labels(self) -> dict[str, str]:
        return self.spec.get("labels") or {}


@dataclass(frozen=True)
class Rule:
    numbers: tuple[int, ...]
    scope: type
    words: str
    holds: Callable[[Any], bool]


RULES: list[Rule] = []


def rule(*numbers: int, of: type, words: str) -> Callable[[Callable[[Any], bool]], Callable[[Any], bool]]:
    """Register what must hold for every Service, Job, Cluster or Group."""

    def register(holds: Callable[[Any], bool]) -> Callable[[Any], bool]:
        RULES.append(Rule(numbers, of, words, holds))
        return holds

    return register


def never(*numbers: int, of: type, field: str) -> None:
    """Register a field that we do not write: what the operator asks of it cannot be broken."""

    def is_absent(scope: Any) -> bool:
        value = scope.spec
        for key in field.split("."):
            value = (value or {}).get(key)
        return value is None

    RULES.append(Rule(numbers, of, f"{field} is not written by us", is_absent))


DNS_1035 = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")
DNS_1123 = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
LABEL_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
QUALIFIED = re.compile(r"([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
GO_DURATION = re.compile(r"(\d+(\.\d+)?(ns|us|µs|ms|s|m|h))+")


# ---- names -----------------------------------------------------------------------------------------------------------


@rule(2, of=Service, words="its name has at most 47 characters")
def _(service: Service) -> bool:
    return len(service.name) <= 47


@rule(3, of=Job, words="its name has at most 47 characters")
def _(job: Job) -> bool:
    return len(job.name) <= 47


@rule(5, of=Thing, words="its name is a DNS-1035 label")
def _(thing: Thing) -> bool:
    return DNS_1035.fullmatch(thing.name) is not None


# ---- groups ----------------------------------------------------------------------------------------------------------


@rule(6, of=Group, words="the head has a container")
def _(group: Group) -> bool:
    return bool(group.containers) or not group.is_head


@rule(7, of=Group, words="the group has a container")
def _(group: Group) -> bool:
    return bool(group.containers) or group.is_head


@rule(8, of=Group, words="resources stand in the group or in rayStartParams, not in both")
def _(group: Group) -> bool:
    return not (group.spec.get("resources") and group.start.keys() & {"num-cpus", "num-gpus", "memory", "resources"})


@rule(9, of=Group, words="rayStartParams hold no labels")
def _(group: Group) -> bool:
    return "labels" not in group.start


@rule(10, of=Group, words="keys of labels are qualified names")
def _(group: Group) -> bool:
    return all(QUALIFIED.fullmatch(key) for key in group.labels)


@rule(11, of=Group, words="values of labels are such values")
def _(group: Group) -> bool:
    return all(LABEL_VALUE.fullmatch(value) for value in group.labels.values())


@rule(12, of=Group, words="without autoscaling, minReplicas and maxReplicas are both set")
def _(group: Group) -> bool:
    return group.is_head or group.cluster.autoscaling or {"minReplicas", "maxReplicas"} <= group.spec.keys()


@rule(13, of=Group, words="minReplicas is not negative")
def _(group: Group) -> bool:
    return bool(group.spec.get("minReplicas", 0) >= 0)


@rule(14, of=Group, words="maxReplicas is not negative")
def _(group: Group) -> bool:
    return bool(group.spec.get("maxReplicas", 0) >= 0)


@rule(15, of=Group, words="minReplicas is at most maxReplicas")
def _(group: Group) -> bool:
    least, most = group.spec.get("minReplicas", 0), group.spec.get("maxReplicas", 2**31 - 1)
    return bool(least <= most or most < 0)


@rule(16, of=Group, words="idleTimeoutSeconds is not negative")
def _(group: Group) -> bool:
    return bool(group.spec.get("idleTimeoutSeconds", 0) >= 0)


@rule(17, of=Group, words="idleTimeoutSeconds of a group needs version 2 of the autoscaler")
def _(group: Group) -> bool:
    return "idleTimeoutSeconds" not in group.spec or group.cluster.is_v2


never(18, 19, 20, 21, of=Group, field="priority")
never(22, 23, of=Group, field="suspend")
never(24, 25, of=Cluster, field="upgradeStrategy")

# ---- fault tolerance -------------------------------------------------------------------------------------------------


@rule(26, of=Cluster, words="the annotation ray.io/ft-enabled and gcsFaultToleranceOptions exclude each other")
def _(cluster: Cluster) -> bool:
    return cluster.fault_tolerance is None or "ray.io/ft-enabled" not in cluster.annotations


@rule(27, of=Cluster, words="without fault tolerance the head has no RAY_REDIS_ADDRESS")
def _(cluster: Cluster) -> bool:
    on = cluster.fault_tolerance is not None or cluster.annotations.get("ray.io/ft-enabled") == "true"
    return on or "RAY_REDIS_ADDRESS" not in cluster.head_environment


@rule(28, of=Cluster, words="with fault tolerance, rayStartParams hold no redis-password")
def _(cluster: Cluster) -> bool:
    return cluster.fault_tolerance is None or "redis-password" not in (cluster.head.get("rayStartParams") or {})


@rule(29, of=Cluster, words="with fault tolerance, the head has no REDIS_PASSWORD")
def _(cluster: Cluster) -> bool:
    return cluster.fault_tolerance is None or "REDIS_PASSWORD" not in cluster.head_environment


@rule(30, of=Cluster, words="with fault tolerance, the head has no RAY_REDIS_ADDRESS")
def _(cluster: Cluster) -> bool:
    return cluster.fault_tolerance is None or "RAY_REDIS_ADDRESS" not in cluster.head_environment


@rule(31, of=Cluster, words="with fault tolerance, no annotation ray.io/external-storage-namespace")
def _(cluster: Cluster) -> bool:
    return cluster.fault_tolerance is None or "ray.io/external-storage-namespace" not in cluster.annotations


@rule(32, of=Cluster, words="neither redis-username nor REDIS_USERNAME")
def _(cluster: Cluster) -> bool:
    start = cluster.head.get("rayStartParams") or {}
    return "redis-username" not in start and "REDIS_USERNAME" not in cluster.head_environment


@rule(*range(33, 42), of=Cluster, words="the state of the head is kept in Redis: no other backend")
def _(cluster: Cluster) -> bool:
    return (cluster.fault_tolerance or {}).get("backend", "redis") == "redis"


never(42, of=Cluster, field="gcsFaultToleranceOptions.storage")

# ---- autoscaler ------------------------------------------------------------------------------------------------------


@rule(43, of=Cluster, words="without autoscaling the head does not switch its version 2 on")
def _(cluster: Cluster) -> bool:
    return cluster.autoscaling or not cluster.v2_by_environment


@rule(44, of=Cluster, words="the version stands in autoscalerOptions or in the environment, not in both")
def _(cluster: Cluster) -> bool:
    both = "version" in cluster.autoscaler and "RAY_enable_autoscaler_v2" in cluster.head_environment
    return not (cluster.autoscaling and both)


@rule(45, of=Group, words="version 2 of the autoscaler: the head's restartPolicy is Never or not set")
def _(group: Group) -> bool:
    watched = group.is_head and group.cluster.autoscaling and group.cluster.is_v2
    return not watched or group.restart in (None, "Never")


@rule(46, of=Group, words="version 2 of the autoscaler: the workers' restartPolicy is Never or not set")
def _(group: Group) -> bool:
    watched = not group.is_head and group.cluster.autoscaling and group.cluster.is_v2
    return not watched or group.restart in (None, "Never")


@rule(47, of=Cluster, words="the autoscaler's idleTimeoutSeconds is not negative")
def _(cluster: Cluster) -> bool:
    return bool(cluster.autoscaler.get("idleTimeoutSeconds", 0) >= 0)


@rule(48, of=Cluster, words="the autoscaler's env leaves KUBERAY_GEN_AUTOSCALER_START_CMD alone")
def _(cluster: Cluster) -> bool:
    return all(each["name"] != "KUBERAY_GEN_AUTOSCALER_START_CMD" for each in cluster.autoscaler.get("env", []))


# ---- history, authentication, network, TLS ---------------------------------------------------------------------------

never(*range(49, 60), of=Cluster, field="historyServerOptions")


@rule(60, of=Cluster, words="a token needs rayVersion")
def _(cluster: Cluster) -> bool:
    return not cluster.token or "rayVersion" in cluster.spec


@rule(61, of=Cluster, words="a token needs a rayVersion that is a version")
def _(cluster: Cluster) -> bool:
    return not cluster.token or "rayVersion" not in cluster.spec or cluster.version is not None


@rule(62, of=Cluster, words="a token needs Ray 2.52.0")
def _(cluster: Cluster) -> bool:
    return not cluster.token or cluster.version is None or cluster.version >= (2, 52, 0)


never(63, 64, 65, 66, 67, of=Cluster, field="authOptions.enableK8sTokenAuth")


@rule(71, of=Group, words="the group's name is a DNS-1123 label")
def _(group: Group) -> bool:
    return group.is_head or DNS_1123.fullmatch(group.spec["groupName"]) is not None


never(68, 69, 70, 72, of=Cluster, field="networkPolicy")
never(73, 74, 75, 76, 77, of=Cluster, field="tlsOptions")

# ---- RayService ------------------------------------------------------------------------------------------------------


@rule(78, of=Service, words="ray.io/initializing-timeout is a duration above zero")
def _(service: Service) -> bool:
    value = (service.object["metadata"].get("annotations") or {}).get("ray.io/initializing-timeout", "1")
    some = re.search(r"[1-9]", value) is not None
    return some and (value.isdigit() or GO_DURATION.fullmatch(value) is not None)


@rule(79, of=Cluster, words="the head's service has no name of our own")
def _(cluster: Cluster) -> bool:
    return "name" not in ((cluster.head.get("headService") or {}).get("metadata") or {})


@rule(80, of=Service, words="upgradeStrategy.type is one that the operator knows")
def _(service: Service) -> bool:
    return service.strategy.get("type", "None") in ("NewCluster", "NewClusterWithIncrementalUpgrade", "None")


@rule(81, of=Service, words="rayClusterDeletionDelaySeconds is not negative")
def _(service: Service) -> bool:
    return bool(service.spec.get("rayClusterDeletionDelaySeconds", 0) >= 0)


@rule(82, of=Service, words="an incremental upgrade needs autoscaling")
def _(service: Service) -> bool:
    incremental = service.strategy.get("type") == "NewClusterWithIncrementalUpgrade"
    return not incremental or service.spec["rayClusterConfig"].get("enableInTreeAutoscaling") is True


@rule(83, of=Service, words="an incremental upgrade needs clusterUpgradeOptions")
def _(service: Service) -> bool:
    return service.strategy.get("type") != "NewClusterWithIncrementalUpgrade" or service.upgrade is not None


@rule(84, of=Service, words="maxSurgePercent is 0 to 100")
def _(service: Service) -> bool:
    return service.upgrade is None or 0 <= service.upgrade.get("maxSurgePercent", 100) <= 100


@rule(85, of=Service, words="stepSizePercent is 0 to 100")
def _(service: Service) -> bool:
    return service.upgrade is None or 0 <= service.upgrade.get("stepSizePercent", -1) <= 100


@rule(86, of=Service, words="stepSizePercent is at most maxSurgePercent")
def _(service: Service) -> bool:
    if service.upgrade is None:
        return True
    step, surge = service.upgrade.get("stepSizePercent", 0), service.upgrade.get("maxSurgePercent", 100)
    return bool(step <= surge or step > 100 or surge < 0)


@rule(87, of=Service, words="intervalSeconds is above zero")
def _(service: Service) -> bool:
    return service.upgrade is None or service.upgrade.get("intervalSeconds", 0) > 0


@rule(88, of=Service, words="gatewayClassName is not empty")
def _(service: Service) -> bool:
    return service.upgrade is None or bool(service.upgrade.get("gatewayClassName"))


# ---- RayJob ----------------------------------------------------------------------------------------------------------

never(89, 92, of=Job, field="suspend")


@rule(90, of=Job, words="ttlSecondsAfterFinished is not negative")
def _(job: Job) -> bool:
    return bool(job.spec.get("ttlSecondsAfterFinished", 0) >= 0)


@rule(91, of=Job, words="ttlSecondsAfterFinished needs shutdownAfterJobFinishes")
def _(job: Job) -> bool:
    return job.spec.get("ttlSecondsAfterFinished", 0) <= 0 or job.spec.get("shutdownAfterJobFinishes") is True


@rule(93, of=Job, words="there is a rayClusterSpec")
def _(job: Job) -> bool:
    return bool(job.spec.get("rayClusterSpec"))


never(94, 95, 96, of=Job, field="clusterSelector")


@rule(97, 98, 99, 100, of=Job, words="submissionMode is not one of those that have rules of their own")
def _(job: Job) -> bool:
    return job.spec.get("submissionMode", "K8sJobMode") in ("K8sJobMode", "HTTPMode")


@rule(101, of=Job, words="runtimeEnvYAML is YAML")
def _(job: Job) -> bool:
    try:
        yaml.safe_load(job.spec.get("runtimeEnvYAML", ""))
    except yaml.YAMLError:
        return False
    return True


@rule(102, of=Job, words="activeDeadlineSeconds is above zero")
def _(job: Job) -> bool:
    return bool(job.spec.get("activeDeadlineSeconds", 1) > 0)


@rule(103, of=Job, words="preRunningDeadlineSeconds is above zero")
def _(job: Job) -> bool:
    return bool(job.spec.get("preRunningDeadlineSeconds", 1) > 0)


@rule(104, of=Job, words="backoffLimit is not negative")
def _(job: Job) -> bool:
    return bool(job.spec.get("backoffLimit", 0) >= 0)


never(*range(105, 119), of=Job, field="deletionStrategy")

# Kinds that we do not write, and the rules about them.
NO_SUCH_KIND = {"RayCluster": (1,), "RayCronJob": (4, *range(119, 125))}


# ---- all of them -----------------------------------------------------------------------------------------------------


def scopes(where: str, thing: Object, objects: Objects) -> Iterator[Thing | Cluster | Group]:
    """An object of Ray's, its cluster, and that one's groups."""
    kinds: dict[str, type[Thing]] = {"RayService": Service, "RayJob": Job}
    yield kinds[thing["kind"]](where, thing)
    spec = cluster_of(thing)
    if spec:
        cluster = Cluster(where, spec, thing["metadata"].get("annotations") or {}, objects)
        yield cluster
        yield Group(f"{where}, head", spec["headGroupSpec"], cluster, is_head=True)
        for group in spec.get("workerGroupSpecs", []):
            yield Group(f"{where}, workers {group['groupName']}", group, cluster, is_head=False)


def broken_rules(objects: Objects) -> Iterator[tuple[tuple[int, ...], str]]:
    """The numbers of each rule that does not hold, and a fault."""
    for where, thing in objects.items():
        if not thing["apiVersion"].startswith("ray.io/"):
            continue
        if thing["kind"] in NO_SUCH_KIND:
            yield NO_SUCH_KIND[thing["kind"]], f"{where}: no {thing['kind']} is written by us"
            continue
        for scope in scopes(where, thing, objects):
            for each in RULES:
                if isinstance(scope, each.scope) and not each.holds(scope):
                    numbers = ", ".join(map(str, each.numbers))
                    yield each.numbers, f"{scope.where}: KubeRay's rule {numbers} does not hold: {each.words}"


def operator_rules(overlay: Overlay) -> Faults:
    return [fault for _, fault in broken_rules(overlay.objects)]
