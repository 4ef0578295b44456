"""Bring an environment into the cluster, and wait until it predicts: `make deploy ENV=...`, `make rollback ENV=...`.

What could be wrong is looked for before anything is touched: the overlay builds, its images are fixed ones, the context
is the one that was meant, and the API server accepts every object in a dry run. Then the objects are applied
(server-side, as `raypath`), and the cluster is asked until the service is ready and answers a prediction of each model,
or the time is over, and then why. Nothing is ever deleted: what an overlay no longer has is listed.

A rollback applies the objects of the last deploy that became ready, or of the one before if that is what runs now, and
waits in the same way; record.py says where they are kept, and why there.
"""

import argparse
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import httpx

from deploy import serving
from deploy.cluster import Cluster, ClusterError, Look, Problem
from deploy.manifests import OVERLAYS, Object, Refused, built, check_images, kubectl, name_of, objects_of
from deploy.reasons import problems
from deploy.record import Record

MANAGER = "raypath"
PREDICTION_S = 60.0
TEXT = "The delivery was late again."

# What a cluster must have learned before it knows a kind.
EXTENSIONS = {
    "ray.io": "KubeRay's operator",
    "monitoring.coreos.com": "the operator of Prometheus",
    "gateway.networking.k8s.io": "the Gateway API",
    "external-secrets.io": "the External Secrets operator",
}


class NotReady(Exception):
    """What was applied does not serve; the text says why."""


# ---- Before anything is touched ------------------------------------------------------------------------------------


def chosen_context(environment: str, given: str | None, command: str) -> str:
    """The context of kubectl's configuration to use; raises Refused.

    Where `kind` runs, the current one will do. Anywhere else it must be named: whoever has two terminals open has the
    wrong cluster in one of them.
    """
    done = subprocess.run([kubectl(), "config", "view", "--output=json"], check=False, capture_output=True, text=True)
    if done.returncode:
        raise Refused(f"kubectl cannot read its configuration: {done.stderr.strip()}")
    view = json.loads(done.stdout)
    current, known = view.get("current-context", ""), [each["name"] for each in view.get("contexts") or []]
    if given and given not in known:
        raise Refused(f"kubectl knows no context {given}: CONTEXT is one of {', '.join(known) or 'none'}")
    context = given or current
    if environment == "local":
        if not context.startswith("kind-"):
            raise Refused(
                f"the context {context or '(none)'} is no cluster of kind, and `local` is for those: start one with "
                f"`kind create cluster`, or choose one: CONTEXT=kind-NAME"
            )
    elif not given:
        raise Refused(
            f"which cluster is {environment}? The current context is {current or '(none)'}; if that is it, say so: "
            f"make {command} ENV={environment} CONTEXT={current or 'NAME'}"
        )
    return context


def check_gitops(environment: str) -> None:
    """Raises Refused where a controller brings what is in git: it would undo what is applied beside it."""
    for path in sorted((OVERLAYS.parent / "gitops").glob(f"*-{environment}.yaml")):
        raise Refused(
            f"deploy/gitops/{path.name} has a controller bring {environment} from git, and undo what others apply: "
            f"commit and push a change, and to go back `git revert` it"
        )


def served(environment: str, objects: list[Object]) -> tuple[str, str]:
    """Name and namespace of the service; raises Refused."""
    found = [each["metadata"] for each in objects if each["kind"] == serving.KIND]
    if len(found) != 1 or not found[0].get("namespace"):
        raise Refused(
            f"deploy/overlays/{environment} must have one {serving.KIND}, in a namespace: it has "
            f"{[(each['name'], each.get('namespace')) for each in found] or 'none'}"
        )
    return found[0]["name"], found[0]["namespace"]


def apply(manifest: str, context: str, *more: str) -> str:
    """`kubectl apply --server-side`; what went wrong in words, or an empty text."""
    command = [kubectl(), "--context", context, "apply", "--server-side", f"--field-manager={MANAGER}", *more]
    done = subprocess.run([*command, "--filename=-"], check=False, input=manifest, capture_output=True, text=True)
    if done.returncode == 0:
        return ""
    said = done.stderr.strip()
    remedies = []
    for kind, group in sorted(set(re.findall(r'no matches for kind "(\w+)" in version "([\w.-]+)/', said))):
        remedies.append(f"the cluster does not know the kind {kind}: install {EXTENSIONS.get(group, group)} first")
    for namespace in sorted(set(re.findall(r'namespaces "([\w-]+)" not found', said))):
        remedies.append(f"make the namespace: kubectl create namespace {namespace} --context {context}")
    if "conflict" in said:
        remedies.append(
            "somebody else, named above, has set these fields, and would lose them: remove them from the overlay, or "
            "take them over with FORCE=1"
        )
    if "forbidden" in said.lower():
        remedies.append(f"ask for a Role that allows this to the user of the context {context}")
    if "must be logged in" in said or "Unauthorized" in said:
        remedies.append("log in to the cluster again")
    if re.search(r"connection refused|no such host|i/o timeout|unable to connect", said, re.I):
        remedies.append(f"the API server of the context {context} cannot be reached: is this the right one?")
    return "\n  ".join([*said.splitlines(), *(f"-> {remedy}" for remedy in remedies)])


# ---- Until it serves -----------------------------------------------------------------------------------------------


def say(text: str) -> None:
    print(text, flush=True)


class Progress:
    """Prints what is new."""

    def __init__(self) -> None:
        self._started_s, self._said = time.monotonic(), set[str]()

    def __call__(self, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            say(f"{time.monotonic() - self._started_s:4.0f} s  {text}")


def wait(cluster: Cluster, name: str, before: set[tuple[str, int]], timeout_s: float, poll_s: float) -> None:
    """Ask until the service is ready; raises NotReady when the time is over, or when waiting does not help.

    before: the events that were there before anything was applied, which tell nothing of it.
    """
    progress, until_s = Progress(), time.monotonic() + timeout_s
    looks, last = 0, (False, False)
    why: list[Problem] = []
    while time.monotonic() < until_s:
        try:
            found = serving.look(cluster, name)
            why = [] if found.ready else [*found.problems, *of_pods(cluster, found, before)]
            state = found.state
        except ClusterError as error:  # it may be away for a moment; if it stays away, this is what is told
            found, why, state = None, [Problem(str(error), final=error.status in (401, 403))], ""
        if state:
            progress(state)
        for problem in why:
            progress(f"! {problem.text}")
        ready, final = now = (found is not None and found.ready, any(problem.final for problem in why))
        looks, last = looks + 1 if now == last else 1, now
        if looks >= serving.LOOKS and ready:
            return
        if looks >= serving.LOOKS and final:
            raise NotReady(told(why, "and waiting does not help"))
        time.sleep(poll_s)
    raise NotReady(told(why, f"after {timeout_s:.0f} s (TIMEOUT_S)"))


def of_pods(cluster: Cluster, found: Look, before: set[tuple[str, int]]) -> Iterator[Problem]:
    events = [each for each in cluster.events() if mark(each) not in before]
    pods = cluster.pods(found.pods) if found.pods else []
    return problems(cluster, pods, events, found.owners)


def mark(event: Object) -> tuple[str, int]:
    """Tells an event, and its repetitions, from others."""
    return event["metadata"]["uid"], (event.get("series") or event).get("count") or 0


def told(why: list[Problem], when: str) -> str:
    reasons = "".join(f"\n  {problem.text}" for problem in why)
    return f"not ready, {when}:{reasons}" if why else f"not ready, {when}, and no object says why: the last line above"


@contextmanager
def forwarded(cluster: Cluster, service: str, port: int) -> Iterator[str]:
    """The address at which a Service answers while inside: through the node, so that no NetworkPolicy is in the way."""
    command = [kubectl(), "--context", cluster.context, "--namespace", cluster.namespace, "port-forward"]
    command += ["--address=127.0.0.1", "--pod-running-timeout=30s", f"service/{service}", f":{port}"]
    said = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            for line in process.stdout or []:
                if at := re.match(r"Forwarding from (127\.0\.0\.1:\d+)", line):
                    yield f"http://{at[1]}"
                    return
                said.append(line.strip())
            raise NotReady(f"service/{service} is ready, and cannot be reached by port-forward: {' '.join(said)}")
        finally:
            process.terminate()


def predict(cluster: Cluster, name: str) -> None:
    """A real prediction of every model that the service lists; raises NotReady."""
    with (
        forwarded(cluster, *serving.service_of(name)) as address,
        httpx.Client(base_url=address, timeout=PREDICTION_S, trust_env=False) as client,
    ):
        listed = asked(client, "GET", "/v1/models")["models"]
        if not listed:
            raise NotReady("the service is ready, and has no model")
        for model in listed:
            answer = asked(client, "POST", f"/v1/models/{model['name']}/predict", {"instances": [{"text": TEXT}]})
            if len(answer.get("predictions", [])) != 1:
                raise NotReady(f"model {model['name']} answers one text with {json.dumps(answer)[:300]}")
            marks = f", without {', '.join(answer['degraded'])}" if answer.get("degraded") else ""
            say(f"model {model['name']} in revision {answer['revision']} predicts{marks}")


def asked(client: httpx.Client, method: str, path: str, body: Any = None) -> Any:
    """The JSON of an answer; raises NotReady."""
    try:
        answer = client.request(method, path, json=body)
        if answer.status_code == httpx.codes.OK:
            return answer.json()
        said = f"status {answer.status_code}, {answer.text[:300].strip()}"
    except (httpx.HTTPError, ValueError) as error:
        said = f"{type(error).__name__}: {error}"
    raise NotReady(f"the service is ready, and does not answer {method} {path}: {said}")


# ---- The two commands ----------------------------------------------------------------------------------------------


def commit() -> str:
    """The commit that this repository is at; empty outside of git."""
    try:
        found = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--exclude=*"], check=False, capture_output=True, text=True
        )
    except OSError:
        return ""
    return found.stdout.strip()


@contextmanager
def untouched() -> Iterator[None]:
    """What fails inside is a refusal: nothing has been changed yet."""
    try:
        yield
    except ClusterError as error:
        raise Refused(str(error)) from None


def run(options: argparse.Namespace) -> int:
    """Deploy or roll back; 0 when it serves, 1 when what was applied does not. Raises Refused, with nothing changed."""
    environment = options.environment
    check_gitops(environment)
    manifest, made_at = built(environment), commit()
    name, namespace = served(environment, objects_of(manifest))
    if not options.rollback:
        check_images(environment, objects_of(manifest))
    context = chosen_context(environment, options.context, "rollback" if options.rollback else "deploy")
    say(f"context {context}, namespace {namespace}")
    with untouched():
        cluster = Cluster(context, namespace)
        record = Record(cluster.config_map(f"{name}-deployed"), name)
        before = {mark(each) for each in cluster.events()}
    had = record.newest()
    if options.rollback:
        target = record.back()
        say(f"back to {target}")
        manifest, made_at = record.manifest(target), target.commit
    more = ["--force-conflicts"] if options.force_conflicts else []
    if wrong := apply(manifest, context, "--dry-run=server", *more):
        raise Refused(f"the API server does not take these objects, and none is changed:\n  {wrong}")
    record.running = None
    with untouched():
        record.take(cluster.write_config_map(record.content()))
    try:
        if wrong := apply(manifest, context, *more):
            raise NotReady(f"not all objects are applied:\n  {wrong}")
        say(f"applied {len(objects_of(manifest))} objects")
        wait(cluster, name, before, options.timeout_s, options.poll_s)
        predict(cluster, name)
        deployed = record.add(manifest, f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC", made_at)
        cluster.write_config_map(record.content())
    except (NotReady, ClusterError) as failed:
        print(failed, file=sys.stderr)
        where = f"ENV={environment} CONTEXT={context}"
        back = f"; back to what ran before: make rollback {where}" if had and not options.rollback else ""
        print(f"what was applied stays, and is no deploy to go back to{back}", file=sys.stderr)
        return 1
    say(f"{name} serves in {namespace}: {deployed}")
    if left := sorted(set(map(name_of, had)) - set(map(name_of, objects_of(manifest)))):
        say(f"no longer in the manifest, and still in the cluster: {' '.join(left)}")
        say(f"  kubectl delete --context {context} --namespace {namespace} NAME removes what nothing needs")
    return 0


def main() -> int:
    """Exit status 0: it serves. 1: it was applied, and does not serve. 2: refused, and nothing was touched."""
    parser = argparse.ArgumentParser(prog="python -m deploy.deploy", description=main.__doc__)
    parser.add_argument("--environment", default="local", help="a folder of deploy/overlays/ (default: local)")
    parser.add_argument("--context", help="of kubectl's configuration; must be named for all but local")
    parser.add_argument("--rollback", action="store_true", help="to the last deploy that became ready")
    parser.add_argument("--force-conflicts", action="store_true", help="take over fields that others have set")
    parser.add_argument("--timeout-s", type=float, default=900, help="seconds to wait (default: 900)")
    parser.add_argument("--poll-s", type=float, default=2, help="seconds between two looks (default: 2)")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that what runs beside this ends with it
    try:
        return run(options)
    except Refused as refused:
        print(f"refused: {refused}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\ninterrupted: what was applied stays, and is no deploy to go back to", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
