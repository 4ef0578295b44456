"""Why pods are not running, in words: what their status, their events and their last lines tell, and what to do."""

import re
from collections.abc import Iterator

from deploy.cluster import Cluster, Problem
from deploy.manifests import Object

PULLS = ("ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName", "RegistryUnavailable")
# Reasons of events that tell why a pod which has a node does not start its containers.
STUCK = ("FailedMount", "FailedAttachVolume", "FailedCreatePodSandBox", "FailedPrepareDynamicResources")


def problems(cluster: Cluster, pods: list[Object], events: list[Object], owners: list[str]) -> Iterator[Problem]:
    """What keeps these pods from running, and what keeps `owners` from making more. events: oldest first."""
    told: dict[str, list[Object]] = {}
    for event in events:
        told.setdefault(event["involvedObject"].get("name", ""), []).append(event)
    for owner in owners:
        yield from not_made(cluster, told.get(owner, []))
    for pod in pods:
        if "deletionTimestamp" not in pod["metadata"]:
            mine = told.get(pod["metadata"]["name"], [])
            yield from not_placed(pod, mine)
            yield from not_started(cluster, pod, mine)


def not_made(cluster: Cluster, events: list[Object]) -> Iterator[Problem]:
    """The last failure to make a pod, of one owner."""
    for event in reversed(events):
        if event["reason"].startswith("Failed"):
            of, said = event["involvedObject"], event["message"]
            where = f"{of['kind'].lower()}/{of['name']}"
            remedy = ""
            if "exceeded quota" in said:
                remedy = (
                    f": `kubectl describe quota --namespace {cluster.namespace}` shows what is used; have it raised, "
                    f"or ask for fewer replicas"
                )
            elif "PodSecurity" in said:
                remedy = ": the namespace enforces a Pod Security level that these pods do not meet"
            yield Problem(f"{where} cannot make a pod: {said}{remedy}")
            return


def not_placed(pod: Object, events: list[Object]) -> Iterator[Problem]:
    """A pod that no node takes, and whether the cluster's autoscaler brings one."""
    for condition in pod.get("status", {}).get("conditions", []):
        if condition["type"] != "PodScheduled" or condition["status"] == "True":
            continue
        said = condition.get("message", "")
        remedies = []
        for resource in sorted(set(re.findall(r"Insufficient ([\w./-]*\w)", said))):
            remedies.append(
                f"no node has the {resource} free that it asks for: add nodes, or ask for fewer or smaller replicas"
            )
        for taint in sorted(set(re.findall(r"untolerated taint \{?([^},]+)", said))):
            remedies.append(f"nodes have the taint `{taint.strip()}`, which the pod does not tolerate")
        if "node affinity/selector" in said:
            labels = ", ".join(f"{key}={value}" for key, value in pod["spec"].get("nodeSelector", {}).items())
            remedies.append(
                f"no node has the labels that it selects ({labels or 'by affinity'}): "
                f"`kubectl get nodes --show-labels` shows what there is"
            )
        scaling = [each["message"] for each in events if each["reason"] in ("TriggeredScaleUp", "NotTriggerScaleUp")]
        remedies += [f"the cluster's autoscaler says: {message}" for message in scaling[-1:]]
        yield Problem(f"pod/{pod['metadata']['name']} has no node: {'; '.join([said.rstrip('. '), *remedies])}")


def not_started(cluster: Cluster, pod: Object, events: list[Object]) -> Iterator[Problem]:
    """Containers that wait for something, or that end as soon as they start."""
    name, status = pod["metadata"]["name"], pod.get("status", {})
    images = {
        each["name"]: each["image"] for each in [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]
    }
    for container in [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]:
        who = f"container {container['name']} of pod/{name}"
        waiting = container.get("state", {}).get("waiting", {})
        reason, said = waiting.get("reason", ""), waiting.get("message", "")
        ended = ended_badly(container)
        if reason in PULLS:
            failed = [each["message"] for each in events if each["message"].startswith("Failed to pull image")]
            yield Problem(
                f"{who} gets no image ({reason}): {images[container['name']]}: {(failed or [said])[-1]}: is it pushed "
                f"under this name, and may the nodes read it (imagePullSecrets)? On kind: `kind load docker-image`",
                final=reason == "InvalidImageName",
            )
        elif reason in ("CreateContainerConfigError", "CreateContainerError"):
            missing = re.search(r'(?i)(secret|configmap) "?([\w.-]+)"? not found', said)
            remedy = ""
            if missing and missing[1].lower() == "secret":
                remedy = (
                    f": make it, `kubectl create secret generic {missing[2]} --namespace {cluster.namespace} "
                    f"--from-file=KEY=FILE`, with the keys that the manifest names"
                )
            yield Problem(f"{who} cannot be set up: {said}{remedy}")
        elif ended is not None:
            why = f"status {ended.get('exitCode')}"
            if ended.get("reason") == "OOMKilled":
                why += ", killed as it took more memory than its limit"
            lines = cluster.last_lines(name, container["name"], previous="waiting" in container["state"])
            log = "".join(f"\n    {line}" for line in lines) or " nothing in its log"
            yield Problem(f"{who} ended with {why}, {container.get('restartCount', 0)} restarts; its last lines:{log}")
    # A worker of Ray that holds no replica is never ready, by design.
    if status.get("phase") == "Running" and pod["metadata"].get("labels", {}).get("ray.io/node-type") != "worker":
        ready = all(each.get("ready") for each in status.get("containerStatuses", []))
        failed = [] if ready else [each["message"] for each in events if each["reason"] == "Unhealthy"]
        yield from (Problem(f"pod/{name} runs and does not get ready: {message}") for message in failed[-1:])
    if status.get("phase") == "Pending":
        stuck = [each for each in events if each["reason"] in STUCK]
        yield from (Problem(f"pod/{name} cannot start: {each['message']}") for each in stuck[-1:])


def ended_badly(container: Object) -> Object | None:
    """How the container ended, where it waits to be started again or has ended for good."""
    state, last = container.get("state", {}), container.get("lastState", {})
    ended: Object | None = state.get("terminated")
    if state.get("waiting", {}).get("reason") == "CrashLoopBackOff":
        ended = last.get("terminated", {})
    return ended if ended is not None and ended.get("exitCode") != 0 else None
