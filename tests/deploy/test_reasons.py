"""Why a service does not become ready: the words that a user reads, each from what a cluster really says."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.deploy.api import Api, Object
from tests.deploy.conftest import (
    IMAGE,
    NAME,
    Desk,
    app,
    at_desk,
    ray_service,
    ray_status,
    rolled,
    serves,
    starting,
    upgrading,
)

TERMINATED = {"exitCode": 1, "reason": "Error"}


def not_ready(desk: Desk, *turns: Callable[[Object], None], timeout_s: float = 0.4) -> str:
    """Why, after a deploy that is applied and does not become ready; a rollback is offered where there is one."""
    worked = desk.api.has("configmaps", f"{NAME}-deployed") and desk.deployed()["deploys"] != "[]"
    desk.overlay("local")
    desk.api.turns = list(turns)
    done = desk(timeout_s=timeout_s)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "what was applied stays, and is no deploy to go back to" in done.stderr
    assert ("make rollback ENV=local CONTEXT=" in done.stderr) == worked
    assert desk.deployed()["running"] == ""
    return done.stderr


# ---- Pods ----------------------------------------------------------------------------------------------------------


def pod(name: str, phase: str = "Pending", node: Any = True, labels: Object | None = None, **state: Any) -> Object:
    """A pod of the starting cluster with one container. state: of the container; node: or why there is none."""
    scheduled: Object = {"type": "PodScheduled", "status": "True"}
    if node is not True:
        scheduled = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": node}
    statuses = [{"name": "server", "image": IMAGE, "restartCount": 3, **state}] if state else []
    return {
        "metadata": {"name": name, "labels": {"ray.io/cluster": f"{NAME}-2", **(labels or {})}},
        "spec": {"containers": [{"name": "server", "image": IMAGE}], "nodeSelector": {"accelerator": "nvidia-l4"}},
        "status": {"phase": phase, "conditions": [scheduled], "containerStatuses": statuses},
    }


def event(reason: str, kind: str, name: str, message: str, count: int = 1) -> Object:
    return {
        "metadata": {"name": f"{name}.{reason}"},
        "involvedObject": {"kind": kind, "name": name},
        "reason": reason,
        "message": message,
        "count": count,
        "lastTimestamp": "2026-11-24T12:00:00Z",
    }


def waits(reason: str, message: str = "", **more: Any) -> Object:
    return {"state": {"waiting": {"reason": reason, "message": message}}, **more}


def many_bad_pods(api: Api) -> None:
    """A cluster in which everything goes wrong at once."""
    for each in (
        pod("pulls", **waits("ImagePullBackOff", f'Back-off pulling image "{IMAGE}"')),
        pod("misnamed", **waits("ErrImageNeverPull", "Container image is not present with pull policy of Never")),
        pod("crashes", "Running", **waits("CrashLoopBackOff", "back-off 5m0s", lastState={"terminated": TERMINATED})),
        pod("ends", "Failed", state={"terminated": TERMINATED}),
        pod("hungry", "Running", state={"terminated": {"exitCode": 137, "reason": "OOMKilled"}}),
        pod("keyless", **waits("CreateContainerConfigError", 'secret "text-service-store" not found')),
        pod("settingless", **waits("CreateContainerConfigError", 'configmap "text-service-env" not found')),
        pod(
            "cardless",
            node="0/3 nodes are available: 1 Insufficient cpu, 3 Insufficient nvidia.com/gpu. preemption: 0/3",
        ),
        pod(
            "tainted",
            node="0/2 nodes are available: 2 node(s) had untolerated taint {nvidia.com/gpu: present}. preemption: 0/2",
        ),
        pod("choosy", node="0/2 nodes are available: 2 node(s) didn't match Pod's node affinity/selector."),
        pod("mountless", **waits("ContainerCreating")),
        pod("unwell", "Running", ready=False, state={"running": {}}),
        pod("idle", "Running", labels={"ray.io/node-type": "worker"}, ready=False, state={"running": {}}),
        pod("waits", **waits("PodInitializing")),
    ):
        api.put("pods", each)
    leaving = pod("leaving", **waits("ErrImagePull", "gone"))
    leaving["metadata"]["deletionTimestamp"] = "2026-11-24T12:00:00Z"
    api.put("pods", leaving)
    before = pod("before", **waits("ErrImagePull", "of the cluster before"))
    before["metadata"]["labels"]["ray.io/cluster"] = f"{NAME}-1"
    api.put("pods", before)
    api.logs["crashes", "server"] = "\n".join([*(f"line {number}" for number in range(20)), "ValueError: no weights"])
    for each in (
        event("Failed", "Pod", "pulls", f'Failed to pull image "{IMAGE}": not found'),
        event("NotTriggerScaleUp", "Pod", "cardless", "pod didn't trigger scale-up: 1 max node group size reached"),
        event("FailedMount", "Pod", "mountless", 'MountVolume.SetUp failed for volume "tls": secret "tls" not found'),
        event("Unhealthy", "Pod", "unwell", "Startup probe failed: HTTP probe failed with statuscode: 503"),
        event("Unhealthy", "Pod", "idle", "Readiness probe failed: no replica here"),
        event(
            "FailedToCreateWorkerPod",
            "RayCluster",
            f"{NAME}-2",
            'Failed to create worker Pod text/w, pods "w" is forbidden: exceeded quota: team, requested: '
            "requests.nvidia.com/gpu=1, used: requests.nvidia.com/gpu=4, limited: requests.nvidia.com/gpu=4",
        ),
        event("FailedToCreateHeadPod", "RayCluster", "another", "is of somebody else"),
    ):
        api.put("events", each)


@pytest.fixture(scope="module")
def told(renders: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """What is told of many bad pods, in one run."""
    with at_desk("ray", renders, tmp_path_factory.mktemp("bad")) as desk:

        def gone_wrong(service: Object) -> None:
            many_bad_pods(desk.api)
            starting(service)

        desk.api.put("events", event("FailedToDeleteService", "RayService", NAME, "is of an earlier deploy"))
        yield not_ready(desk, gone_wrong, starting)


@pytest.mark.parametrize(
    "words",
    [
        f"container server of pod/pulls gets no image (ImagePullBackOff): {IMAGE}: Failed to pull image "
        f'"{IMAGE}": not found: is it pushed under this name, and may the nodes read it (imagePullSecrets)?',
        f"container server of pod/misnamed gets no image (ErrImageNeverPull): {IMAGE}: Container image is not present",
        "container server of pod/crashes ended with status 1, 3 restarts; its last lines:\n    line 11\n",
        "    ValueError: no weights\n",
        "container server of pod/ends ended with status 1, 3 restarts; its last lines: nothing in its log\n",
        "container server of pod/hungry ended with status 137, killed as it took more memory than its limit, 3 rest",
        'container server of pod/keyless cannot be set up: secret "text-service-store" not found: make it, '
        "`kubectl create secret generic text-service-store --namespace text --from-file=KEY=FILE`",
        'container server of pod/settingless cannot be set up: configmap "text-service-env" not found\n',
        "pod/cardless has no node: 0/3 nodes are available: 1 Insufficient cpu, 3 Insufficient nvidia.com/gpu. ",
        "no node has the nvidia.com/gpu free that it asks for: add nodes, or ask for fewer or smaller replicas",
        "the cluster's autoscaler says: pod didn't trigger scale-up: 1 max node group size reached",
        "nodes have the taint `nvidia.com/gpu: present`, which the pod does not tolerate",
        "no node has the labels that it selects (accelerator=nvidia-l4): `kubectl get nodes --show-labels`",
        'pod/mountless cannot start: MountVolume.SetUp failed for volume "tls": secret "tls" not found',
        "pod/unwell runs and does not get ready: Startup probe failed: HTTP probe failed with statuscode: 503",
        f"raycluster/{NAME}-2 cannot make a pod: Failed to create worker Pod text/w",
        "`kubectl describe quota --namespace text` shows what is used; have it raised, or ask for fewer replicas",
    ],
    ids=lambda words: words[:40],
)
def test_what_keeps_a_pod_from_running_is_told(told: str, words: str) -> None:
    assert words in told


@pytest.mark.parametrize(
    "words", ["pod/idle", "pod/waits", "pod/leaving", "pod/before", "of an earlier deploy", "of somebody else"]
)
def test_what_is_in_order_leaves_or_belongs_to_others_is_not_told(told: str, words: str) -> None:
    assert words not in told


def test_the_end_of_time_is_told(told: str) -> None:
    assert told.startswith("not ready, after 0 s (TIMEOUT_S):\n  ")


# ---- A RayService --------------------------------------------------------------------------------------------------


def test_a_rayservice_that_breaks_a_rule_of_kuberays_ends_the_wait(ray: Desk) -> None:
    said = "The RayService spec is invalid: headGroupSpec should have at least one container"

    def invalid(service: Object) -> None:
        ray_status(service, "False", "ValidationFailed", said, behind=1)

    assert (
        f"not ready, and waiting does not help:\n  rayservice/{NAME} breaks a rule of KubeRay's: {said}"
        in not_ready(ray, invalid, timeout_s=60)
    )


def test_a_rule_that_was_broken_before_is_not_told_of_what_is_applied_now(ray: Desk) -> None:
    """KubeRay leaves the condition as it was until there are endpoints."""
    ray.overlay("local")

    def was_invalid(service: Object) -> None:
        ray_status(service, "False", "ValidationFailed", "The RayService spec is invalid: long ago", pending={})

    def not_looked_at(service: Object) -> None:
        ray_status(service, "False", "ValidationFailed", "The RayService spec is invalid: long ago", behind=1)

    ray.api.turns = [not_looked_at, *[was_invalid] * 9, serves]
    done = ray()
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_rayservice_that_kuberay_has_given_up_must_be_made_anew(ray: Desk) -> None:
    def given_up(service: Object) -> None:
        ray_status(service, "False", "InitializingTimeout", "failed to become ready within 30m", behind=1)

    said = not_ready(ray, given_up, timeout_s=60)
    assert "has been given up by KubeRay for good: failed to become ready within 30m" in said
    assert f"`kubectl delete rayservice {NAME} --namespace text`, then deploy again" in said


def test_an_operator_that_does_not_run_is_asked_for(ray: Desk) -> None:
    assert "waits for KubeRay: does its operator run? `kubectl get pods --all-namespaces --selector" in not_ready(
        ray, lambda service: None
    )


def test_an_application_that_failed_ends_the_wait_with_what_serve_says(ray: Desk) -> None:
    said = "The deployment failed to start 3 times in a row: ValueError: no weights"
    failed = {
        "minilm": app("DEPLOY_FAILED", "Failed to update", model=("DEPLOY_FAILED", said)),
        "front": app("RUNNING"),
    }
    text = not_ready(ray, lambda service: ray_status(service, active={}, pending=failed), timeout_s=60)
    assert "not ready, and waiting does not help:" in text
    assert (
        f"Serve application minilm is DEPLOY_FAILED: Failed to update; deployment model DEPLOY_FAILED: {said}" in text
    )
    assert "front" not in text


def test_an_application_in_the_cluster_that_serves_may_be_unhealthy(ray: Desk) -> None:
    sick = {"minilm": app("UNHEALTHY", "", model=("UNHEALTHY", "a replica does not answer"))}
    text = not_ready(ray, lambda service: ray_status(service, active=sick))
    assert "Serve application minilm is UNHEALTHY: deployment model UNHEALTHY: a replica does not answer" in text


def test_replicas_for_which_there_is_no_room_are_told(ray: Desk) -> None:
    said = 'has 1 replicas that have taken more than 30s to be scheduled. Resources required: {"GPU": 1}'
    wait = {"minilm": app("DEPLOYING", "", model=("UPDATING", said))}
    text = not_ready(ray, lambda service: ray_status(service, active={}, pending=wait))
    assert f"Serve application minilm is DEPLOYING: deployment model UPDATING: {said}" in text


def test_a_suspended_rayservice_is_told(ray: Desk) -> None:
    def suspended(service: Object) -> None:
        starting(service)
        service["status"]["conditions"].append({"type": "Suspended", "status": "True", "reason": "Queue"})

    assert f"rayservice/{NAME} is suspended" in not_ready(ray, suspended)


def test_without_a_second_cluster_the_one_before_is_not_taken_for_the_new_one(ray: Desk) -> None:
    old = ray_service(IMAGE.replace("1" * 64, "3" * 64))["spec"]["rayClusterConfig"]
    ray.api.put("rayclusters", {"metadata": {"name": f"{NAME}-1"}, "spec": old})
    ray.overlay("local", upgradeStrategy={"type": "None"})
    ray.api.turns = [serves]
    done = ray(timeout_s=0.5)
    assert done.returncode == 1
    assert f"raycluster/{NAME}-1 still runs what was deployed before: `upgradeStrategy` is None" in done.stderr
    assert f"`kubectl delete raycluster {NAME}-1 --namespace text`; the new one follows" in done.stderr
    new = ray_service(IMAGE)["spec"]["rayClusterConfig"]
    ray.api.put("rayclusters", {"metadata": {"name": f"{NAME}-1"}, "spec": new})
    done = ray()
    assert done.returncode == 0, done.stderr


def test_nothing_but_time_says_so(ray: Desk) -> None:
    assert "not ready, after 0 s (TIMEOUT_S), and no object says why" in not_ready(ray, upgrading)


# ---- A Deployment --------------------------------------------------------------------------------------------------


def replica_set(api: Api, number: int) -> None:
    labels = {"app.kubernetes.io/name": NAME, "pod-template-hash": f"hash{number}"}
    annotations = {"deployment.kubernetes.io/revision": str(number)}
    api.put("replicasets", {"metadata": {"name": f"{NAME}-hash{number}", "labels": labels, "annotations": annotations}})
    broken = pod(f"pod-of-{number}", labels=labels, **waits("ErrImagePull", f"manifest of {number} unknown"))
    api.put("pods", broken)
    said = f'Error creating: pods "p{number}" is forbidden: violates PodSecurity "restricted": runAsNonRoot != true'
    api.put("events", event("FailedCreate", "ReplicaSet", f"{NAME}-hash{number}", said))


def test_of_a_deployment_the_newest_pods_tell_why(plain: Desk) -> None:
    def broken(each: Object) -> None:
        rolled(1, 0, replicas=3)(each)
        replica_set(plain.api, 1)
        replica_set(plain.api, 2)

    said = not_ready(plain, broken)
    assert "container server of pod/pod-of-2 gets no image (ErrImagePull)" in said
    assert "manifest of 2 unknown" in said
    assert f"replicaset/{NAME}-hash2 cannot make a pod: Error creating: " in said
    assert "the namespace enforces a Pod Security level that these pods do not meet" in said
    assert "of-1" not in said
    assert "hash1" not in said


def test_a_deployment_that_kubernetes_has_given_up_ends_the_wait(plain: Desk) -> None:
    message = f'ReplicaSet "{NAME}-hash2" has timed out progressing.'
    given_up = rolled(1, 0, replicas=3, type="Progressing", reason="ProgressDeadlineExceeded", message=message)
    assert f"deployment/{NAME} has been given up: {message}" in not_ready(plain, given_up, timeout_s=60)


# ---- The API server, and the prediction ----------------------------------------------------------------------------


def test_an_object_that_is_not_applied_after_all(ray: Desk) -> None:
    ray.overlay("local")
    ray.api.refusals_after_dry_run["rayservices"] = (422, "Invalid", "a webhook says no")
    done = ray()
    assert done.returncode == 1
    assert "not all objects are applied:\n  " in done.stderr
    assert "a webhook says no" in done.stderr


def test_somebody_who_may_not_list_pods(ray: Desk) -> None:
    said = 'pods is forbidden: User "me" cannot list resource "pods"'
    ray.api.refusals["GET", "pods"] = (403, "Forbidden", said)
    assert f"cannot list pods: {said}: ask for a Role that allows it" in not_ready(ray, starting, timeout_s=60)


@pytest.mark.parametrize(
    ("path", "answer", "words"),
    [
        (
            "/v1/models/minilm/predict",
            (503, {"title": "Unavailable"}),
            'does not answer POST /v1/models/minilm/predict: status 503, {"title": "Unavailable"}',
        ),
        (
            "/v1/models/minilm/predict",
            (200, {"predictions": []}),
            'model minilm answers one text with {"predictions": []}',
        ),
        ("/v1/models", (200, {"models": []}), "the service is ready, and has no model"),
    ],
    ids=["refused", "empty", "no model"],
)
def test_a_prediction_that_does_not_come_back_is_no_success(
    ray: Desk, path: str, answer: tuple[int, Any], words: str
) -> None:
    ray.answers[path] = answer
    assert words in not_ready(ray, serves, timeout_s=60)
    assert not ray.tunnel_is_open()


def test_a_tunnel_that_does_not_open_is_told(ray: Desk) -> None:
    ray.environment["FORWARD_FAILS"] = "error: timed out waiting for the condition"
    assert (
        f"service/{NAME}-serve-svc is ready, and cannot be reached by port-forward: error: timed out waiting"
        in not_ready(ray, serves, timeout_s=60)
    )
