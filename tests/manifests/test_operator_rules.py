"""Every rule of KubeRay's is accounted for, and each finds the break that is planted for it, alone."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.manifests.built import Object
from tests.manifests.operator_rules import NO_SUCH_KIND, RULES, broken_rules

GROUP: Object = {"template": {"spec": {"containers": [{"name": "ray", "env": []}]}}}
CLUSTER: Object = {
    "rayVersion": "2.60.0",
    "authOptions": {"mode": "token", "secretName": "token"},
    "enableInTreeAutoscaling": True,
    "autoscalerOptions": {"version": "v2"},
    "headGroupSpec": {"rayStartParams": {}, **GROUP},
    "workerGroupSpecs": [{"groupName": "cards", "minReplicas": 1, "maxReplicas": 2, "rayStartParams": {}, **GROUP}],
}
SERVICE: Object = {
    "apiVersion": "ray.io/v1",
    "kind": "RayService",
    "metadata": {"name": "texts", "annotations": {}},
    "spec": {
        "upgradeStrategy": {
            "type": "NewClusterWithIncrementalUpgrade",
            "clusterUpgradeOptions": {"gatewayClassName": "istio", "stepSizePercent": 5, "intervalSeconds": 10},
        },
        "rayClusterConfig": CLUSTER,
    },
}
JOB: Object = {
    "apiVersion": "ray.io/v1",
    "kind": "RayJob",
    "metadata": {"name": "index"},
    "spec": {"entrypoint": "python", "rayClusterSpec": CLUSTER},
}
GONE = object()
C, J = "spec.rayClusterConfig", "spec.rayClusterSpec"
HEAD, HEAD_POD, WORKERS = f"{C}.headGroupSpec", f"{C}.headGroupSpec.template.spec", f"{C}.workerGroupSpecs.0"
ENV = f"{HEAD_POD}.containers.0.env"
FT, OPTIONS = f"{C}.gcsFaultToleranceOptions", "spec.upgradeStrategy.clusterUpgradeOptions"
ON = {FT: {"redisAddress": "redis:6379"}}
V1: dict[str, Any] = {f"{C}.autoscalerOptions": {}}

# (number, object, path -> planted value)
PLANTED: list[tuple[int, Object, dict[str, Any]]] = [
    (1, SERVICE, {"kind": "RayCluster"}),
    (2, SERVICE, {"metadata.name": "t" * 48}),
    (3, JOB, {"metadata.name": "t" * 48}),
    (4, JOB, {"kind": "RayCronJob"}),
    (5, SERVICE, {"metadata.name": "2texts"}),
    (5, JOB, {"metadata.name": "in.dex"}),
    (6, SERVICE, {f"{HEAD_POD}.containers": []}),
    (7, SERVICE, {f"{WORKERS}.template.spec.containers": []}),
    (8, SERVICE, {f"{WORKERS}.rayStartParams": {"num-cpus": "1"}, f"{WORKERS}.resources": {"CPU": "1"}}),
    (8, SERVICE, {f"{HEAD}.rayStartParams": {"resources": "{}"}, f"{HEAD}.resources": {"CPU": "1"}}),
    (9, SERVICE, {f"{WORKERS}.rayStartParams": {"labels": "a=b"}}),
    (10, SERVICE, {f"{WORKERS}.labels": {"a b": "c"}}),
    (11, SERVICE, {f"{WORKERS}.labels": {"a": "b c"}}),
    (12, JOB, {f"{J}.enableInTreeAutoscaling": False, f"{J}.workerGroupSpecs.0.minReplicas": GONE}),
    (13, SERVICE, {f"{WORKERS}.minReplicas": -1}),
    (14, SERVICE, {f"{WORKERS}.maxReplicas": -1}),
    (15, SERVICE, {f"{WORKERS}.minReplicas": 3}),
    (16, SERVICE, {f"{WORKERS}.idleTimeoutSeconds": -1}),
    (17, SERVICE, {f"{WORKERS}.idleTimeoutSeconds": 60, **V1}),
    (18, SERVICE, {f"{WORKERS}.priority": 1}),
    (22, SERVICE, {f"{WORKERS}.suspend": True}),
    (25, SERVICE, {f"{C}.upgradeStrategy": {"type": "None"}}),
    (26, SERVICE, {**ON, "metadata.annotations": {"ray.io/ft-enabled": "false"}}),
    (27, SERVICE, {ENV: [{"name": "RAY_REDIS_ADDRESS", "value": "redis:6379"}]}),
    (28, SERVICE, {**ON, f"{HEAD}.rayStartParams": {"redis-password": "$P"}}),
    (29, SERVICE, {**ON, ENV: [{"name": "REDIS_PASSWORD", "valueFrom": {}}]}),
    (30, SERVICE, {**ON, ENV: [{"name": "RAY_REDIS_ADDRESS", "value": "redis:6379"}]}),
    (31, SERVICE, {**ON, "metadata.annotations": {"ray.io/external-storage-namespace": "a"}}),
    (32, SERVICE, {f"{HEAD}.rayStartParams": {"redis-username": "me"}}),
    (32, SERVICE, {ENV: [{"name": "REDIS_USERNAME", "value": "me"}]}),
    (33, SERVICE, {FT: {"backend": "rocksdb"}}),
    (42, SERVICE, {FT: {"storage": {"size": "1Gi"}}}),
    (
        43,
        JOB,
        {
            f"{J}.enableInTreeAutoscaling": False,
            f"{J}.headGroupSpec.template.spec.containers.0.env": [{"name": "RAY_enable_autoscaler_v2", "value": "1"}],
        },
    ),
    (44, SERVICE, {ENV: [{"name": "RAY_enable_autoscaler_v2", "value": "0"}]}),
    (45, SERVICE, {f"{HEAD_POD}.restartPolicy": "Always"}),
    (46, SERVICE, {f"{WORKERS}.template.spec.restartPolicy": "OnFailure"}),
    (47, SERVICE, {f"{C}.autoscalerOptions.idleTimeoutSeconds": -1}),
    (48, SERVICE, {f"{C}.autoscalerOptions.env": [{"name": "KUBERAY_GEN_AUTOSCALER_START_CMD", "value": "x"}]}),
    (49, SERVICE, {f"{C}.historyServerOptions": {}}),
    (60, SERVICE, {f"{C}.rayVersion": GONE}),
    (61, SERVICE, {f"{C}.rayVersion": "nightly"}),
    (62, SERVICE, {f"{C}.rayVersion": "2.51.9"}),
    (63, SERVICE, {f"{C}.authOptions.enableK8sTokenAuth": True}),
    (68, SERVICE, {f"{C}.networkPolicy": {}}),
    (71, SERVICE, {f"{WORKERS}.groupName": "Cards_1"}),
    (73, SERVICE, {f"{C}.tlsOptions": {"enabled": False}}),
    (78, SERVICE, {"metadata.annotations": {"ray.io/initializing-timeout": "soon"}}),
    (78, SERVICE, {"metadata.annotations": {"ray.io/initializing-timeout": "0s"}}),
    (79, SERVICE, {f"{HEAD}.headService": {"metadata": {"name": "head"}}}),
    (80, SERVICE, {"spec.upgradeStrategy": {"type": "Newcluster"}}),
    (81, SERVICE, {"spec.rayClusterDeletionDelaySeconds": -1}),
    (82, SERVICE, {f"{C}.enableInTreeAutoscaling": False}),
    (83, SERVICE, {OPTIONS: GONE}),
    (84, SERVICE, {f"{OPTIONS}.maxSurgePercent": 101}),
    (85, SERVICE, {f"{OPTIONS}.stepSizePercent": GONE}),
    (86, SERVICE, {f"{OPTIONS}.maxSurgePercent": 4}),
    (87, SERVICE, {f"{OPTIONS}.intervalSeconds": 0}),
    (88, SERVICE, {f"{OPTIONS}.gatewayClassName": ""}),
    (89, JOB, {"spec.suspend": True}),
    (90, JOB, {"spec.ttlSecondsAfterFinished": -1}),
    (91, JOB, {"spec.ttlSecondsAfterFinished": 60}),
    (93, JOB, {"spec.rayClusterSpec": GONE}),
    (94, JOB, {"spec.clusterSelector": {"ray.io/cluster": ""}}),
    (97, JOB, {"spec.submissionMode": "SidecarMode"}),
    (101, JOB, {"spec.runtimeEnvYAML": "a: [b"}),
    (102, JOB, {"spec.activeDeadlineSeconds": 0}),
    (103, JOB, {"spec.preRunningDeadlineSeconds": 0}),
    (104, JOB, {"spec.backoffLimit": -1}),
    (105, JOB, {"spec.deletionStrategy": {"deletionRules": []}}),
]


def plant(thing: Object, breaks: dict[str, Any]) -> Object:
    """A copy of an object with other values at some paths, where numbers stand for places in lists."""
    broken: Any = json.loads(json.dumps(thing))  # what is shared between its parts is so no more
    for path, value in breaks.items():
        *way, last = (int(key) if key.isdigit() else key for key in path.split("."))
        place = broken
        for key in way:
            place = place[key]
        if value is GONE:
            del place[last]
        else:
            place[last] = value
    found: Object = broken
    return found


@pytest.mark.parametrize("thing", [SERVICE, JOB], ids=lambda thing: thing["kind"])
def test_no_rule_is_broken_without_a_planted_break(thing: Object) -> None:
    assert list(broken_rules({"it": thing})) == []


@pytest.mark.parametrize(
    ("number", "thing", "breaks"), PLANTED, ids=[f"{row[0]}-{next(iter(row[2])).split('.')[-1]}" for row in PLANTED]
)
def test_a_break_is_found_by_its_rule_alone(number: int, thing: Object, breaks: dict[str, Any]) -> None:
    found = dict(broken_rules({"it": plant(thing, breaks)}))
    assert len(found) == 1, found
    ((numbers, fault),) = found.items()
    assert number in numbers
    assert fault.startswith("it")


def test_a_variable_of_a_config_map_counts_like_one_that_stands_in_the_pod() -> None:
    thing = plant(SERVICE, {f"{HEAD_POD}.containers.0.envFrom": [{"configMapRef": {"name": "switches"}}]})
    switches = {"apiVersion": "v1", "kind": "ConfigMap", "data": {"REDIS_USERNAME": "me"}}
    ((numbers, _),) = broken_rules({"it": thing, "ConfigMap/switches": switches})
    assert numbers == (32,)


def test_every_rule_of_the_operator_is_accounted_for_once() -> None:
    numbers = [number for each in RULES for number in each.numbers]
    numbers += [number for group in NO_SUCH_KIND.values() for number in group]
    assert sorted(numbers) == list(range(1, 125))


def test_every_rule_has_been_seen_to_fail() -> None:
    planted = {number for number, _, _ in PLANTED}
    groups = [each.numbers for each in RULES] + list(NO_SUCH_KIND.values())
    assert [numbers for numbers in groups if not planted & set(numbers)] == []
