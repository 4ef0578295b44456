"""Ray mode on one machine, without Kubernetes: a Ray head of its own, and the shipped Serve config deployed on it.

GPU shares become *logical* GPUs: Ray places replicas exactly as on real cards, and the models run on the CPU.
"""

import argparse
import math
import os
import signal
import socket
import sys
import tempfile
import threading
from pathlib import Path
from types import FrameType
from typing import Any

import yaml
from dotenv import dotenv_values

STARTUP_S = 300
DASHBOARD_PORT = 8265


def most_replicas(deployment: dict[str, Any]) -> int:
    """The replicas of a deployment at most, those included that an update starts before it stops others."""
    replicas: int = deployment["autoscaling_config"]["max_replicas"]
    surge_percent: float = deployment["max_surge_percent"]
    return replicas + math.ceil(replicas * surge_percent / 100)


def logical_gpus(config: dict[str, Any]) -> int:
    """Whole GPUs that hold every deployment's highest replica count, packed as Ray packs them."""
    total = 0
    for application in config["applications"]:
        for deployment in application["deployments"]:
            share = deployment["ray_actor_options"].get("num_gpus", 0)
            if share:
                total += math.ceil(most_replicas(deployment) / math.floor(1 / share))
    return total


def logical_cpus(config: dict[str, Any]) -> int:
    """CPUs for every deployment's highest replica count."""
    return sum(
        math.ceil(deployment["ray_actor_options"]["num_cpus"] * most_replicas(deployment))
        for application in config["applications"]
        for deployment in application["deployments"]
    )


def places(config: dict[str, Any]) -> dict[str, float]:
    """Custom resources for the most replicas of every deployment, such as `slot-<model>` of the capacity plan."""
    found: dict[str, float] = {}
    for application in config["applications"]:
        for deployment in application["deployments"]:
            for name, amount in deployment["ray_actor_options"].get("resources", {}).items():
                found[name] = found.get(name, 0) + amount * most_replicas(deployment)
    return found


def can_listen(port: int) -> bool:
    """Whether nothing listens on `port`. HAProxy would only fail in a log, and the start would never end."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("0.0.0.0", port))
        except OSError:
            return False
    return True


def free_port() -> int:
    """A TCP port that nothing listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until_running(client: Any, names: list[str], stopped: threading.Event) -> None:
    """Return when every application runs; SystemExit with Serve's own message when one cannot."""
    for _ in range(STARTUP_S * 2):
        applications = client.get_serve_details()["applications"]
        for name, details in applications.items():
            if details["status"] in ("DEPLOY_FAILED", "UNHEALTHY"):
                sys.exit(f"the application {name!r} is {details['status']}:\n{details['message']}")
        if all(applications.get(name, {}).get("status") == "RUNNING" for name in names) or stopped.wait(0.5):
            return
    sys.exit(f"not running after {STARTUP_S} s: {', '.join(names)}; the replicas' logs may say why")


def main() -> None:
    """Serve until SIGINT or SIGTERM, then drain and stop what was started here, and nothing else."""
    parser = argparse.ArgumentParser(prog="python -m service.runtime.ray_local", description=main.__doc__)
    parser.add_argument("--config", type=Path, default=Path("config/serve.yaml"), help="Serve config file")
    parser.add_argument("--port", type=int, help="HTTP port, instead of the config's")
    parser.add_argument(
        "--dashboard-port", type=int, help="0 takes a free one (default: 8265, if nothing listens there)"
    )
    parser.add_argument("--metrics-port", type=int, default=0, help="where Prometheus reads; 0 takes a free one")
    options = parser.parse_args()
    if not options.config.is_file():
        parser.exit(2, f"there is no Serve config file {options.config}: run this in the repository, or name one\n")
    # Serve reads its switches from the environment when it is imported, and Ray's processes inherit them.
    for name, value in dotenv_values(Path("config/ray.env")).items():
        os.environ.setdefault(name, value or "")
    os.environ["RAY_AUTH_MODE"] = "disabled"
    for name in ("RAY_SERVE_PROXY_MIN_DRAINING_PERIOD_S", "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S"):
        os.environ.setdefault(name, "1")  # on one machine no load balancer has to notice
    # Serve's processes listen on ports that another head's listen on already: replicas and the proxy to which HAProxy
    # falls back would then answer the requests of the other service. So nothing keeps its usual port.
    for name in ("HAPROXY_METRICS_PORT", "HAPROXY_STATS_PORT", "FALLBACK_PROXY_HTTP_PORT"):
        os.environ.setdefault(f"RAY_SERVE_{name}", str(free_port()))
    first = free_port()
    os.environ.setdefault("RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT", str(first))
    os.environ.setdefault("RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT", str(first + 100))
    os.environ.setdefault("PYTHONPATH", str(Path.cwd()))

    import ray
    from ray import serve
    from ray.dashboard.modules.serve.sdk import ServeSubmissionClient

    config = yaml.safe_load(options.config.read_text())
    if options.port:
        config["http_options"]["port"] = options.port
    port = config["http_options"]["port"]
    if not can_listen(port):
        sys.exit(f"port {port} is taken: stop what listens there, or choose another with --port")
    metrics_port = options.metrics_port or free_port()
    if not can_listen(metrics_port):
        sys.exit(f"port {metrics_port} is taken: choose another with --metrics-port (make dev METRICS_PORT=...)")
    dashboard_port = options.dashboard_port
    if dashboard_port is None and can_listen(DASHBOARD_PORT):  # another head on this machine has it, as a rule
        dashboard_port = DASHBOARD_PORT
    stopped = threading.Event()

    def stop(_signal: int, _frame: FrameType | None) -> None:
        stopped.set()

    # Below /tmp, as the path of a socket may have 103 bytes on a Mac, and its own folder for such files takes half.
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp") as temp_dir:
        context = ray.init(
            address="local",
            num_cpus=logical_cpus(config) + 1,
            num_gpus=logical_gpus(config),
            resources=places(config),
            include_dashboard=True,
            dashboard_host="127.0.0.1",
            dashboard_port=dashboard_port or free_port(),
            _temp_dir=temp_dir,
            _metrics_export_port=metrics_port,
        )
        print(f"logs of the replicas, while this runs: {temp_dir}/session_latest/logs/worker-*.err", flush=True)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, stop)
        client = ServeSubmissionClient(f"http://{context.dashboard_url}")
        client.deploy_applications(config)
        try:
            wait_until_running(client, [application["name"] for application in config["applications"]], stopped)
            if not stopped.is_set():
                print(f"metrics, for Prometheus: http://127.0.0.1:{metrics_port}/metrics", flush=True)
                print(f"ready: http://127.0.0.1:{port}/docs", flush=True)
            stopped.wait()
        finally:
            serve.shutdown()
            ray.shutdown()


if __name__ == "__main__":
    main()
