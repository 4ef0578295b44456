"""A service in containers: what of its objects says that what was applied is what serves."""

from deploy.cluster import Cluster, Look, Problem

KIND = "Deployment"
LOOKS = 1
REVISION = "deployment.kubernetes.io/revision"


def service_of(name: str) -> tuple[str, int]:
    """The Service that answers predictions, and its port."""
    return name, 8000


def look(cluster: Cluster, name: str) -> Look:
    """Ready: the newest generation is rolled out, no pod of an older one is left, and all pods are available."""
    deployment = cluster.deployment(name)
    metadata, status = deployment["metadata"], deployment.get("status", {})
    wanted = deployment["spec"].get("replicas", 1)
    all_pods, updated, available = (status.get(f"{each}eplicas", 0) for each in ("r", "updatedR", "availableR"))
    where = f"deployment/{name}"
    observed = status.get("observedGeneration") == metadata["generation"]
    selector = ",".join(f"{key}={value}" for key, value in deployment["spec"]["selector"]["matchLabels"].items())
    # Pods of an earlier rollout that failed may still be there: those of the newest ReplicaSet count.
    newest = [
        each
        for each in cluster.replica_sets(selector)
        if each["metadata"].get("annotations", {}).get(REVISION) == metadata.get("annotations", {}).get(REVISION)
    ]
    found = Look(
        ready=observed and updated >= wanted and all_pods == updated and available >= updated,
        state=f"{where}: {updated} of {wanted} pods are new, {available} answer, {all_pods - updated} old ones left",
        pods=f"{selector},pod-template-hash={newest[0]['metadata']['labels']['pod-template-hash']}" if newest else "",
        owners=[name, *(each["metadata"]["name"] for each in newest)],
    )
    if observed:
        for condition in status.get("conditions", []):
            if condition.get("reason") == "ProgressDeadlineExceeded":
                found.problems.append(Problem(f"{where} has been given up: {condition['message']}", final=True))
    return found
