"""What is refused before anything is touched: exit status 2, in words, and the cluster is as it was."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.deploy.conftest import IMAGE, NAME, Desk, deployment, rolled, serves

TAG = f"registry.example.com/{NAME}:1.2.3"
PRODUCTION = ("--environment", "production")


def refusal(desk: Desk, *options: str, path: str | None = None) -> str:
    """What it says. path: to look for programs in."""
    done = desk(*options, more={"PATH": path} if path else None)
    assert done.returncode == 2, done.stdout + done.stderr
    assert done.stderr.startswith("refused: ")
    assert not [each for each in desk.api.applied if not each[2]]
    assert not desk.api.objects
    return done.stderr


def test_an_overlay_that_is_not_there_and_those_that_are(ray: Desk) -> None:
    ray.overlay("local")
    ray.overlay("staging")
    said = refusal(ray, "--environment", "stagin")
    assert "deploy/overlays/stagin is no overlay: ENV is one of local, staging" in said


def test_an_overlay_that_does_not_build(ray: Desk) -> None:
    ray.overlay("local")
    (ray.folder / "deploy/overlays/local/objects.yaml").unlink()
    assert "deploy/overlays/local does not build: " in (said := refusal(ray))
    assert "objects.yaml" in said


def test_an_overlay_without_what_serves(ray: Desk) -> None:
    ray.serving = "container"
    ray.overlay("local")
    assert "deploy/overlays/local must have one RayService, in a namespace: it has none" in refusal(ray)


def test_an_overlay_without_a_namespace(plain: Desk) -> None:
    plain.overlay("local", namespace="")
    assert f"must have one Deployment, in a namespace: it has [('{NAME}', None)]" in refusal(plain)


def test_two_of_what_serves(plain: Desk) -> None:
    other = deployment(IMAGE)
    other["metadata"]["name"] = "other"
    plain.overlay("local", IMAGE, "text", other)
    assert "must have one Deployment, in a namespace: it has [" in refusal(plain)


@pytest.mark.parametrize("mode", ["ray", "plain"])
def test_an_image_of_production_that_is_named_by_its_tag(mode: str, request: pytest.FixtureRequest) -> None:
    desk: Desk = request.getfixturevalue(mode)
    desk.overlay("production", TAG)
    said = refusal(desk, *PRODUCTION, "--context", "cloud-production")
    assert f"{TAG} is no fixed image, as its tag may be pushed anew: production names images by digest" in said
    assert f"`docker buildx imagetools inspect {TAG}` prints it" in said


@pytest.mark.parametrize("environment", ["production", "staging"])
def test_the_digest_that_an_overlay_is_rendered_with(ray: Desk, environment: str) -> None:
    ray.overlay(environment, f"registry.example.com/{NAME}@sha256:{'0' * 64}")
    said = refusal(ray, "--environment", environment, "--context", f"cloud-{environment}")
    assert f"deploy/overlays/{environment}/kustomization.yaml still has the digest of 64 zeros" in said


@pytest.mark.parametrize("options", [(), ("--rollback",)])
def test_an_environment_that_a_controller_brings_from_git(ray: Desk, options: tuple[str, ...]) -> None:
    ray.overlay("production")
    (ray.folder / "deploy/gitops").mkdir()
    (ray.folder / "deploy/gitops/argocd-production.yaml").touch()
    said = refusal(ray, *PRODUCTION, "--context", "cloud-production", *options)
    assert "deploy/gitops/argocd-production.yaml has a controller bring production from git" in said
    assert "commit and push a change, and to go back `git revert` it" in said


def test_a_machine_without_kubectl(ray: Desk, tmp_path: Path) -> None:
    ray.overlay("local")
    assert "there is no `kubectl` on the path: install" in refusal(ray, path=str(tmp_path))


@pytest.mark.parametrize("environment", ["production", "staging"])
def test_an_environment_whose_cluster_is_not_named(ray: Desk, environment: str) -> None:
    ray.overlay(environment)
    ray.context("cloud-staging")
    said = refusal(ray, "--environment", environment)
    assert f"which cluster is {environment}? The current context is cloud-staging; if that is it, say so: " in said
    assert f"make deploy ENV={environment} CONTEXT=cloud-staging\n" in said
    said = refusal(ray, "--environment", environment, "--rollback")
    assert f"make rollback ENV={environment} CONTEXT=cloud-staging\n" in said


def test_a_context_that_kubectl_does_not_know_and_those_that_it_does(ray: Desk) -> None:
    ray.overlay("production")
    said = refusal(ray, *PRODUCTION, "--context", "cloud")
    assert "kubectl knows no context cloud: CONTEXT is one of cloud-production, cloud-staging, kind-laptop" in said


@pytest.mark.parametrize("given", [(), ("--context", "cloud-production")])
def test_a_local_deploy_to_a_cluster_that_is_not_kind(ray: Desk, given: tuple[str, ...]) -> None:
    ray.overlay("local")
    ray.context("cloud-production")
    assert "the context cloud-production is no cluster of kind, and `local` is for those: " in refusal(ray, *given)


def test_no_configuration_of_kubectl(ray: Desk) -> None:
    ray.overlay("local")
    (ray.scratch / "kubeconfig").unlink()
    assert "the context (none) is no cluster of kind" in refusal(ray)


def test_a_namespace_that_is_not_there(ray: Desk) -> None:
    ray.overlay("local", namespace="other")
    said = refusal(ray)
    assert "the API server does not take these objects, and none is changed:" in said
    assert "-> make the namespace: kubectl create namespace other --context kind-laptop\n" in said
    assert said.count("kubectl create namespace") == 1


def test_a_cluster_without_kuberay(ray: Desk) -> None:
    ray.overlay("local")
    ray.api.without = {"ray.io"}
    assert "-> the cluster does not know the kind RayService: install KubeRay's operator first" in refusal(ray)


def test_fields_that_somebody_else_has_set(plain: Desk) -> None:
    plain.overlay("local")
    plain.api.owners["deployments", "text", NAME] = {"replicas": "horizontal-pod-autoscaler"}
    said = refusal(plain)
    assert 'conflict with "horizontal-pod-autoscaler" using v1: .spec.replicas' in said
    assert "-> somebody else, named above, has set these fields, and would lose them" in said


def test_somebody_who_may_not_apply(ray: Desk) -> None:
    ray.overlay("local")
    said = 'rayservices.ray.io "text-service" is forbidden: User "me" cannot patch resource "rayservices"'
    ray.api.refusals["PATCH", "rayservices"] = (403, "Forbidden", said)
    text = refusal(ray)
    assert said in text
    assert "-> ask for a Role that allows this to the user of the context kind-laptop" in text


def test_somebody_who_may_not_read_or_keep_the_record(ray: Desk) -> None:
    ray.overlay("local")
    said = 'configmaps is forbidden: User "me" cannot list resource "configmaps"'
    ray.api.refusals["GET", "configmaps"] = (403, "Forbidden", said)
    assert f"cannot list config maps: {said}: ask for a Role that allows it in this namespace" in refusal(ray)
    ray.api.refusals = {("POST", "configmaps"): (403, "Forbidden", said)}
    assert f"cannot write configmap/{NAME}-deployed: {said}" in refusal(ray)


def test_somebody_who_is_not_logged_in(ray: Desk) -> None:
    ray.overlay("local")
    ray.api.refusals["GET", "configmaps"] = (401, "Unauthorized", "Unauthorized")
    assert "cannot list config maps: Unauthorized: log in to the cluster again" in refusal(ray)


def test_a_cluster_that_cannot_be_reached(ray: Desk) -> None:
    ray.overlay("local")
    ray.api.url = "http://127.0.0.1:1"
    ray.context("kind-laptop")
    assert "the API server does not answer" in refusal(ray)


def test_an_object_that_the_api_server_finds_faulty(ray: Desk) -> None:
    ray.overlay("local")
    said = 'strict decoding error: unknown field "spec.servConfig"'
    ray.api.refusals["PATCH", "rayservices"] = (400, "BadRequest", said)
    assert said in refusal(ray)


# ---- make: the variables -----------------------------------------------------------------------------------------


def test_make_deploy_and_make_rollback_take_environment_context_timeout_and_force(plain: Desk) -> None:
    plain.overlay("production")
    plain.api.turns = [rolled(2, 2)]
    plain.api.owners["deployments", "text", NAME] = {"replicas": "somebody"}
    done = plain.make("deploy", "ENV=production", "CONTEXT=cloud-production", "FORCE=1", options="--poll-s 0.02")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("context cloud-production, namespace text\n")
    plain.overlay("production", IMAGE.replace("1" * 64, "2" * 64))
    plain.api.turns = [rolled(1, 1)]
    done = plain.make("deploy", "ENV=production", "CONTEXT=cloud-production", "TIMEOUT_S=0.3", options="--poll-s 0.02")
    assert "not ready, after 0 s (TIMEOUT_S)" in done.stderr
    assert "back to what ran before: make rollback ENV=production CONTEXT=cloud-production\n" in done.stderr
    plain.api.turns = [rolled(2, 2)]
    done = plain.make("rollback", "ENV=production", "CONTEXT=cloud-production", options="--poll-s 0.02")
    assert done.returncode == 0, done.stderr
    assert "back to deploy 1 of " in done.stdout


def test_make_deploy_alone_is_for_the_laptop_whatever_the_shell_has(plain: Desk) -> None:
    plain.overlay("local")
    plain.context("cloud-production")
    done = plain.make("deploy")
    assert done.returncode == 2
    assert "the context cloud-production is no cluster of kind" in done.stderr


# ---- make manifests ------------------------------------------------------------------------------------------------


def manifests(desk: Desk, **environment: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [*desk.command()[:2], "deploy.manifests"],
        cwd=desk.folder,
        env={**desk.environment, **environment},
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done


def test_every_overlay_is_built_without_a_cluster_and_its_objects_are_listed(ray: Desk) -> None:
    ray.overlay("local")
    ray.overlay("production", TAG)
    done = manifests(ray, KUBECONFIG="/nowhere")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(
        "local: 2 objects\n  configmap/settings\n  rayservice/text-service\nproduction: 2 objects\n"
    )
    assert f"not yet to be deployed: {TAG} is no fixed image" in done.stdout


def test_an_overlay_that_does_not_build_fails_and_the_others_are_still_listed(ray: Desk) -> None:
    ray.overlay("local")
    ray.overlay("staging")
    (ray.folder / "deploy/overlays/local/objects.yaml").write_text("kind: [")
    done = manifests(ray)
    assert done.returncode == 1
    assert "deploy/overlays/local does not build: " in done.stderr
    assert "staging: 2 objects\n" in done.stdout


def test_a_digest_of_an_image_that_no_object_has_fails(ray: Desk) -> None:
    """Kustomize drops it without a word: after a new name of the service production would run an image by no digest."""
    ray.overlay("staging", TAG)
    path = ray.folder / "deploy/overlays/staging/kustomization.yaml"
    path.write_text(f"{path.read_text()}images: [{{name: old.example.com/{NAME}, newTag: 0.1.0}}]\n")
    done = manifests(ray)
    assert done.returncode == 1
    assert f"staging/kustomization.yaml fixes the image old.example.com/{NAME}, and no object has it" in done.stderr
    path.write_text(path.read_text().replace("old.example.com", TAG.rsplit("/", 1)[0]))
    assert manifests(ray).returncode == 0


def test_without_kubectl_nothing_is_listed(ray: Desk, tmp_path: Path) -> None:
    ray.overlay("local")
    done = manifests(ray, PATH=str(tmp_path))
    assert done.returncode == 2
    assert "there is no `kubectl` on the path" in done.stderr


def test_a_named_context_is_used_whatever_the_current_one_is(ray: Desk) -> None:
    ray.overlay("production")
    ray.context("kind-laptop")
    ray.api.turns = [serves]
    done = ray(*PRODUCTION, "--context", "cloud-production")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("context cloud-production, namespace text\n")
    assert "--context cloud-production" in (ray.scratch / "forward.arguments").read_text()
