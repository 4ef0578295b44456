"""A service on Ray: what of its objects says that what was applied is what serves."""

from typing import Any

from deploy.cluster import Cluster, Look, Problem
from deploy.manifests import Object

KIND = "RayService"
# KubeRay asks Serve how it is, then hands a changed config over, each two seconds: what it tells may be a turn old.
LOOKS = 5
FAILED = ("DEPLOY_FAILED", "UNHEALTHY")


def service_of(name: str) -> tuple[str, int]:
    """The Service that answers predictions, and its port."""
    return f"{name}-serve-svc", 8000


def condition_of(service: Object, kind: str) -> dict[str, str]:
    conditions = service.get("status", {}).get("conditions", [])
    return next((each for each in conditions if each["type"] == kind), {"status": "Unknown", "reason": "not told yet"})


def look(cluster: Cluster, name: str) -> Look:
    """Ready: KubeRay has taken up the newest generation, one cluster is left, and all of its applications run."""
    service = cluster.ray("rayservices", name)
    status, ready = service.get("status", {}), condition_of(service, "Ready")
    where, reason = f"rayservice/{name}", ready.get("reason", "")
    if status.get("observedGeneration") != service["metadata"]["generation"]:
        return Look(False, f"{where}: KubeRay has not taken it up", "", [name], not_taken_up(cluster, name, ready))
    active, pending = status.get("activeServiceStatus", {}), status.get("pendingServiceStatus", {})
    serving = pending if pending.get("rayClusterName") else active
    ray_cluster = serving.get("rayClusterName", "")
    applications: dict[str, Any] = serving.get("applicationStatuses") or {}
    states = ", ".join(f"{each} {told['status']}" for each, told in sorted(applications.items()))
    new = (
        " (new, traffic still goes to the one before)"
        if pending.get("rayClusterName") and active.get("rayClusterName")
        else ""
    )
    found = Look(
        ready=ready["status"] == "True"
        and not pending.get("rayClusterName")
        and bool(applications)
        and all(told["status"] == "RUNNING" for told in applications.values()),
        state=f"{where}: Ready={ready['status']} ({reason}), cluster {ray_cluster or 'none'}{new}: "
        f"{states or 'no applications yet'}",
        pods=f"ray.io/cluster={ray_cluster}" if ray_cluster else "",
        owners=[name, ray_cluster],
        problems=[problem for each, told in sorted(applications.items()) for problem in failing(each, told)],
    )
    if condition_of(service, "Suspended")["status"] == "True":
        found.problems.append(Problem(f"{where} is suspended: `spec.suspend`, or the queue that admits it, holds it"))
    if found.ready and is_older(cluster, service, ray_cluster):
        found.ready = False
        found.problems.append(
            Problem(
                f"raycluster/{ray_cluster} still runs what was deployed before: `upgradeStrategy` is None, so KubeRay "
                f"makes no second cluster. Stop the old one, which means minutes without the service, with "
                f"`kubectl delete raycluster {ray_cluster} --namespace {cluster.namespace}`; the new one follows"
            )
        )
    return found


def not_taken_up(cluster: Cluster, name: str, ready: dict[str, str]) -> list[Problem]:
    """KubeRay counts a generation as observed when its rules have passed."""
    where, said = f"rayservice/{name}", ready.get("message", "")
    match ready.get("reason"):
        case "ValidationFailed":
            return [Problem(f"{where} breaks a rule of KubeRay's: {said}", final=True)]
        case "InitializingTimeout":
            remedy = f"`kubectl delete rayservice {name} --namespace {cluster.namespace}`, then deploy again"
            return [Problem(f"{where} has been given up by KubeRay for good: {said}: {remedy}", final=True)]
    return [
        Problem(
            f"{where} waits for KubeRay: does its operator run? "
            f"`kubectl get pods --all-namespaces --selector app.kubernetes.io/name=kuberay-operator`"
        )
    ]


def failing(application: str, told: Object) -> list[Problem]:
    """What Serve says of an application that does not run, and of each of its deployments."""
    if told["status"] == "RUNNING":
        return []
    said = [told.get("message", "")]
    for name, deployment in sorted((told.get("serveDeploymentStatuses") or {}).items()):
        if deployment["status"] != "HEALTHY" and deployment.get("message"):
            said.append(f"deployment {name} {deployment['status']}: {deployment['message']}")
    words = "; ".join(filter(None, said))
    if not words and told["status"] not in FAILED:
        return []
    return [
        Problem(
            f"Serve application {application} is {told['status']}: {words}", final=told["status"] == "DEPLOY_FAILED"
        )
    ]


def is_older(cluster: Cluster, service: Object, ray_cluster: str) -> bool:
    """Does the cluster run other pods than the RayService describes? Only where KubeRay leaves it so."""
    spec = service["spec"]
    if spec.get("upgradeStrategy", {}).get("type") != "None":
        return False
    return templates(cluster.ray("rayclusters", ray_cluster)["spec"]) != templates(spec["rayClusterConfig"])


def templates(spec: Object) -> dict[str, Any]:
    groups = {each["groupName"]: each["template"] for each in spec.get("workerGroupSpecs", [])}
    return {"": spec["headGroupSpec"]["template"], **groups}
