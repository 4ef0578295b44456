"""The variants whose alerts and dashboards are checked: together they have all of them."""

from tests.variants import AXES, RUN, Answers

VARIANTS: dict[str, Answers] = {
    "container": {"serving": "container"},
    "container-with-search": {"serving": "container", "features": "feast", **AXES["vector_db"]["qdrant_cloud"]},
    "ray-gpu": RUN["ray-shared-gpu"],
    # The lowest promise: 14.4 times its error budget is more than all requests.
    "ray-with-everything": {
        "serving": "ray",
        "gpu_type": "l4",
        "availability_objective": 90,
        "latency_objective_ms": 1000,
        "features": "redis",
        **AXES["vector_db"]["qdrant_self_hosted"],
        **AXES["models"]["two"],
    },
    # Nothing can grow, the promise is a whole number of nines, and a controller deploys.
    "ray-fixed": {"serving": "ray", "availability_objective": 99, "model_max_replicas": 1, "gitops": "argocd"},
}
