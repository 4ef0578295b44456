"""Ask Ray itself where replicas land: one logical node for each pod of a plan, one actor for each replica.

`python -m tests.run.placement` reads a JSON list of cases from stdin and writes one JSON line per case to stdout. It
runs by itself because Ray keeps its state in the process, on a cluster that nobody else can find.

A case:
    pods      [{num_cpus, num_gpus, resources}], one per pod
    replicas  [[name, ray_actor_options], ...] in the order in which they start
    extra     the same, started when all others are placed or given up
    wait_s    how long replicas are waited for before one that has no place is given up
Its answer:
    placed    [[name, number of the pod], ...] of the replicas and of `extra`
    pending   [name, ...] that found no place
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import ray
from ray.cluster_utils import Cluster

FENCE_S = 60
# Between the place that an actor got and its first answer: starting a process, which the fence behind it had to do too.
LATER_S = 1


class Replica:
    def node(self) -> str:
        return str(ray.get_runtime_context().get_node_id())


def start(options: dict[str, Any]) -> Any:
    """As Serve starts replicas: spread over the nodes that have room."""
    return ray.remote(Replica).options(scheduling_strategy="SPREAD", **options).remote()


def settled(wanted: list[list[Any]], actors: list[Any], timeout_s: float) -> tuple[dict[int, str], list[str]]:
    """Node of each replica that runs, and the names of those that do not.

    Ray looks for places in the order of the asking. So once a fence runs that was asked for behind them, which always
    finds room on the head, those that do not run either are without a place.
    """
    found = [actor.node.remote() for actor in actors]
    ready, waiting = ray.wait(found, num_returns=len(found), timeout=timeout_s)
    if waiting:
        fence = start({"num_cpus": 0, "resources": {"fence": 1}})
        ray.get(fence.node.remote(), timeout=FENCE_S)
        ray.kill(fence)
        more, waiting = ray.wait(waiting, num_returns=len(waiting), timeout=LATER_S)
        ready += more
    nodes = {found.index(reference): ray.get(reference) for reference in ready}
    return nodes, [wanted[found.index(reference)][0] for reference in waiting]


def answer(cluster: Cluster, case: dict[str, Any]) -> dict[str, Any]:
    nodes = [
        cluster.add_node(
            wait=False,
            num_cpus=pod["num_cpus"],
            num_gpus=pod["num_gpus"],
            resources=pod["resources"] | {f"pod-{number}": 1},
        )
        for number, pod in enumerate(case["pods"])
    ]
    cluster.wait_for_nodes()
    numbers = {
        node["NodeID"]: number
        for node in ray.nodes()
        for number in range(len(nodes))
        if node["Alive"] and f"pod-{number}" in node["Resources"]
    }
    actors = [start(options) for _, options in case["replicas"]]
    on, pending = settled(case["replicas"], actors, case["wait_s"])
    placed = [[case["replicas"][index][0], numbers[node]] for index, node in on.items()]
    if case["extra"]:
        extra = [start(options) for _, options in case["extra"]]
        on, waiting = settled(case["extra"], extra, 0)
        placed += [[case["extra"][index][0], numbers[node]] for index, node in on.items()]
        pending += waiting
        actors += extra
    for actor in actors:
        ray.kill(actor)
    for node in nodes:
        cluster.remove_node(node, allow_graceful=True)  # one that does not say goodbye is missed for 5 s
    return {"placed": placed, "pending": pending}


def main() -> None:
    cases = json.load(sys.stdin)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what Ray prints is no answer
    cluster = Cluster(
        initialize_head=True,
        connect=True,
        head_node_args={"num_cpus": 0, "resources": {"fence": 1}, "include_dashboard": False},
    )
    try:
        for case in cases:
            print(json.dumps(answer(cluster, case)), file=answers, flush=True)
    finally:
        ray.shutdown()
        cluster.shutdown()


if __name__ == "__main__":
    main()
