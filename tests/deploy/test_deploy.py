"""`deploy.deploy` as a team runs it: what it applies, what it waits for, what it keeps, and how it goes back."""

from __future__ import annotations

import base64
import gzip
import select
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.deploy.api import Object
from tests.deploy.conftest import (
    IMAGE,
    NAME,
    Desk,
    app,
    prediction,
    ray_status,
    rolled,
    serves,
    starting,
    upgrading,
)

OTHER_IMAGE = IMAGE.replace("1" * 64, "2" * 64)
PRODUCTION = ("--environment", "production", "--context", "cloud-production")


def image_of(service: Object) -> str:
    spec = service["spec"]
    template = spec["rayClusterConfig"]["headGroupSpec"]["template"] if "rayClusterConfig" in spec else spec["template"]
    image: str = template["spec"]["containers"][0]["image"]
    return image


def deployed(desk: Desk, image: str = IMAGE, **spec: Any) -> str:
    """What a deploy that becomes ready prints."""
    desk.overlay("local", image, **spec)
    desk.api.turns = [serves] if desk.serving == "ray" else [rolled(2, 2)]
    done = desk()
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def failed(desk: Desk, image: str) -> None:
    """A deploy that is applied and does not become ready."""
    desk.overlay("local", image)
    desk.api.turns = [upgrading] if desk.serving == "ray" else [rolled(1, 1, replicas=3)]
    done = desk(timeout_s=0.3)
    assert done.returncode == 1, done.stdout + done.stderr


# ---- It serves -----------------------------------------------------------------------------------------------------


def test_a_service_on_ray_is_deployed_when_its_cluster_is_ready_and_a_prediction_comes_back(ray: Desk) -> None:
    ray.overlay("local")
    ray.api.turns = [starting, starting, serves]
    done = ray()
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "context kind-laptop, namespace text"
    assert "Ready=False (Initializing), cluster text-service-2: no applications yet" in done.stdout
    assert "Ready=True (NonZeroServeEndpoints), cluster text-service-1: minilm RUNNING" in done.stdout
    assert "model minilm in revision v1 predicts" in lines
    assert lines[-1].startswith("text-service serves in text: deploy 1 of ")
    assert ray.asked == [
        ("/v1/models", None),
        ("/v1/models/minilm/predict", {"instances": [{"text": "The delivery was late again."}]}),
    ]
    arguments = (ray.scratch / "forward.arguments").read_text()
    assert "--context kind-laptop --namespace text port-forward" in arguments
    assert f"service/{NAME}-serve-svc :8000" in arguments
    assert not ray.tunnel_is_open()


def test_a_service_in_containers_is_deployed_when_no_old_pod_is_left_and_a_prediction_comes_back(plain: Desk) -> None:
    plain.overlay("local")
    plain.api.turns = [rolled(2, 2, behind=1), rolled(1, 1, replicas=3), rolled(2, 2, replicas=3), rolled(2, 2)]
    done = plain()
    assert done.returncode == 0, done.stderr
    assert "deployment/text-service: 1 of 2 pods are new, 1 answer, 2 old ones left" in done.stdout
    assert "deployment/text-service: 2 of 2 pods are new, 2 answer, 1 old ones left" in done.stdout
    assert "deployment/text-service: 2 of 2 pods are new, 2 answer, 0 old ones left" in done.stdout
    assert f"service/{NAME} :8000" in (plain.scratch / "forward.arguments").read_text()
    assert not plain.api.turns[1:]


def test_every_object_is_tried_before_the_first_is_applied_and_texts_stay_texts(ray: Desk) -> None:
    deployed(ray)
    tried = [(plural, name) for plural, name, dry in ray.api.applied if dry]
    assert ray.api.applied == [(*each, True) for each in tried] + [(*each, False) for each in tried]
    assert sorted(tried) == [("configmaps", "settings"), ("rayservices", NAME)]
    assert ray.api.get("configmaps", "settings")["data"]["at"] == "1e3"


def test_every_model_is_asked_and_what_was_missing_is_told(ray: Desk) -> None:
    ray.answers["/v1/models"] = (200, {"models": [{"name": "minilm"}, {"name": "toxicity"}]})
    ray.answers["/v1/models/toxicity/predict"] = prediction("toxicity", degraded=["features"])
    said = deployed(ray)
    assert "model minilm in revision v1 predicts\nmodel toxicity in revision v1 predicts, without features\n" in said
    assert [path for path, _ in ray.asked[1:]] == ["/v1/models/minilm/predict", "/v1/models/toxicity/predict"]


def test_a_new_cluster_is_waited_for_though_the_one_before_is_ready_all_the_while(ray: Desk) -> None:
    deployed(ray)
    ray.overlay("local", OTHER_IMAGE)
    ray.api.turns = [serves_nothing_new, *[upgrading] * 9, *[switching] * 9, serves]
    done = ray()
    assert done.returncode == 0, done.stderr
    assert "KubeRay has not taken it up" in done.stdout
    assert "cluster text-service-2 (new, traffic still goes to the one before): minilm DEPLOYING" in done.stdout
    assert not ray.api.turns[1:]


def switching(service: Object) -> None:
    """The new one is up, and the traffic still goes to the one before."""
    ray_status(service, active={"minilm": app("RUNNING")}, pending={"minilm": app("RUNNING")})


def serves_nothing_new(service: Object) -> None:
    """KubeRay has not looked at it since it was applied."""
    ray_status(service, active={"minilm": app("RUNNING")}, behind=1)


def test_a_status_that_is_one_turn_old_is_not_believed(ray: Desk) -> None:
    """KubeRay reads Serve's status before it hands a changed config over: all is well, and then it is not."""
    deployed(ray)
    ray.overlay("local", serveConfigV2="applications: [changed]")

    def updating(service: Object) -> None:
        ray_status(service, active={"minilm": app("DEPLOYING")})

    ray.api.turns = [serves, *[updating] * 9, serves]
    done = ray()
    assert done.returncode == 0, done.stderr
    assert "minilm DEPLOYING" in done.stdout
    assert not ray.api.turns[1:]


def test_an_api_server_that_is_away_for_a_moment_is_asked_again(plain: Desk) -> None:
    plain.overlay("local")

    def away(each: Object) -> None:
        rolled(1, 1)(each)
        plain.api.away = 12

    plain.api.turns = [away, rolled(2, 2)]
    done = plain()
    assert done.returncode == 0, done.stderr
    assert "the API server does not answer" in done.stdout


def test_what_the_manifest_no_longer_has_is_listed_and_left(ray: Desk) -> None:
    more = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "old"}}
    ray.overlay("local", IMAGE, "text", more)
    ray.api.turns = [serves]
    assert ray().returncode == 0
    ray.overlay("local")
    done = ray()
    assert "still in the cluster: serviceaccount/old\n" in done.stdout
    assert "kubectl delete --context kind-laptop --namespace text NAME" in done.stdout
    assert ray.api.has("serviceaccounts", "old")


@pytest.mark.parametrize("mode", ["ray", "plain"])
@pytest.mark.parametrize("environment", ["local", "staging", "production"])
def test_the_overlays_that_a_service_comes_with_are_deployed(
    mode: str, environment: str, renders: Path, request: pytest.FixtureRequest
) -> None:
    desk: Desk = request.getfixturevalue(mode)
    shutil.copytree(renders / desk.serving / "deploy/overlays", desk.folder / "deploy/overlays")
    file = desk.folder / "deploy/overlays/production/kustomization.yaml"
    file.write_text(file.read_text().replace("0" * 64, "1" * 64))
    desk.namespace = f"{NAME}-{environment}"
    desk.api.namespaces = {desk.namespace}
    desk.api.turns = [serves] if desk.serving == "ray" else [rolled(2, 2)]
    context = "kind-laptop" if environment == "local" else f"cloud-{environment}"
    done = desk("--environment", environment, "--context", context)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{NAME} serves in {desk.namespace}: deploy 1" in done.stdout
    assert image_of(desk.main()).startswith("registry.example.com/")


# ---- Rollback ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["ray", "plain"])
def test_after_a_failed_deploy_a_rollback_goes_to_the_last_that_became_ready(
    mode: str, request: pytest.FixtureRequest
) -> None:
    desk: Desk = request.getfixturevalue(mode)
    deployed(desk)
    failed(desk, OTHER_IMAGE)
    assert image_of(desk.main()) == OTHER_IMAGE
    desk.api.turns = [serves] if desk.serving == "ray" else [rolled(2, 2)]
    done = desk("--rollback")
    assert done.returncode == 0, done.stderr
    assert "back to deploy 1 of " in done.stdout
    assert "model minilm in revision v1 predicts" in done.stdout
    assert image_of(desk.main()) == IMAGE
    assert desk.deployed()["running"] == "1"


def test_after_deploys_that_became_ready_each_rollback_goes_one_further_back(ray: Desk) -> None:
    images = [IMAGE.replace("1" * 64, digit * 64) for digit in "123"]
    for image in images:
        deployed(ray, image)
    for image in reversed(images[:2]):
        done = ray("--rollback")
        assert done.returncode == 0, done.stderr
        assert image_of(ray.main()) == image
    done = ray("--rollback")
    assert done.returncode == 2
    assert "there is no deploy to go back to: it runs deploy 1 of " in done.stderr


def test_a_rollback_that_fails_is_tried_again_and_does_not_go_forward(ray: Desk) -> None:
    deployed(ray)
    deployed(ray, OTHER_IMAGE)
    ray.api.turns = [upgrading]
    assert ray("--rollback", timeout_s=0.3).returncode == 1
    ray.api.turns = [serves]
    done = ray("--rollback")
    assert done.returncode == 0, done.stderr
    assert image_of(ray.main()) == IMAGE


def test_a_deploy_after_a_rollback_can_itself_be_rolled_back(ray: Desk) -> None:
    deployed(ray)
    deployed(ray, OTHER_IMAGE)
    assert ray("--rollback").returncode == 0
    deployed(ray, OTHER_IMAGE)
    assert ray("--rollback").returncode == 0
    assert image_of(ray.main()) == IMAGE


def test_without_a_deploy_there_is_nothing_to_go_back_to(ray: Desk) -> None:
    ray.overlay("local")
    done = ray("--rollback")
    assert done.returncode == 2
    assert "no deploy to go back to: none became ready, as configmap/text-service-deployed tells" in done.stderr
    assert not ray.api.applied


def test_deploying_the_same_again_makes_no_second_entry(ray: Desk) -> None:
    for image in (IMAGE, OTHER_IMAGE, OTHER_IMAGE):
        deployed(ray, image)
    assert ray("--rollback").returncode == 0
    assert image_of(ray.main()) == IMAGE


def test_a_deploy_is_told_by_its_commit(ray: Desk) -> None:
    for command in (["init", "--quiet"], ["add", "--all"], ["commit", "--quiet", "--message", "first"]):
        subprocess.run(["git", *command], cwd=ray.folder, check=True)
    head = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ray.folder, check=True, capture_output=True, text=True
    ).stdout.strip()
    deployed(ray)
    (ray.folder / "README.md").write_text("changed")
    ray.overlay("local", OTHER_IMAGE)
    assert "deploy 2 of 20" in (done := ray()).stdout
    assert f"(commit {head}-dirty)" in done.stdout
    assert f"UTC (commit {head})" in ray("--rollback").stdout


def test_a_secret_is_applied_and_never_printed_or_kept(ray: Desk) -> None:
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "key"}, "stringData": {"key": "open-sesame"}}
    ray.overlay("local", IMAGE, "text", secret)
    ray.api.turns = [serves]
    done = ray()
    assert done.returncode == 0, done.stderr
    assert ray.api.has("secrets", "key")
    for packed in ray.api.get("configmaps", f"{NAME}-deployed")["binaryData"].values():
        kept = gzip.decompress(base64.b64decode(packed)).decode()
        assert "kind: RayService" in kept
        assert "sesame" not in kept
    assert "sesame" not in done.stdout + done.stderr
    assert "the-token-of-a-user" not in done.stdout + done.stderr


def test_two_deploys_at_the_same_time_do_not_overwrite_each_other(ray: Desk) -> None:
    deployed(ray)
    ray.overlay("local", OTHER_IMAGE)

    def somebody_else(service: Object) -> None:
        ray.api.put("configmaps", dict(ray.api.get("configmaps", f"{NAME}-deployed")))
        serves(service)

    ray.api.turns = [somebody_else, serves]
    done = ray()
    assert done.returncode == 1
    assert "somebody else deploys at this moment" in done.stderr


# ---- Interrupted ---------------------------------------------------------------------------------------------------


def until(process: subprocess.Popen[str], text: str) -> None:
    """Read what it prints until `text` comes."""
    assert process.stdout is not None
    seen = ""
    while text not in seen:
        assert select.select([process.stdout], [], [], 60)[0], seen
        line = process.stdout.readline()
        assert line, seen + (process.stderr.read() if process.stderr else "")
        seen += line


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_wait_ends_and_is_no_deploy_to_go_back_to(ray: Desk, sent: signal.Signals) -> None:
    ray.overlay("local")
    ray.api.turns = [starting]
    with ray.started() as process:
        until(process, "Initializing")
        process.send_signal(sent)
        _, error = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "interrupted: what was applied stays, and is no deploy to go back to" in error
    assert ray.deployed() == {"deploys": "[]", "running": ""}


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_prediction_leaves_no_tunnel_behind(ray: Desk, sent: signal.Signals) -> None:
    ray.overlay("local")
    ray.api.turns = [serves]
    ray.answers["/v1/models"] = (200, {"models": [{"name": "minilm", "revision": "v1"}, {"name": "hangs"}]})
    with ray.started() as process:
        until(process, "model minilm in revision v1 predicts")
        assert ray.tunnel_is_open()
        process.send_signal(sent)
        _, error = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "interrupted" in error
    assert not ray.tunnel_is_open()
