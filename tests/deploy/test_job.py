"""`make job`: a job of deploy/jobs/ runs next to the service, with its image, under a name of its own."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.deploy.api import Object
from tests.deploy.conftest import IMAGE, NAME, Desk
from tests.manifests.built import pods_of

PRODUCTION = ("ENV=production", "CONTEXT=cloud-production")
INDEX = "deploy/jobs/index-documents.job.yaml"
RAY_INDEX = "deploy/jobs/index-documents.rayjob.yaml"
RESTORE = "deploy/jobs/restore-qdrant.job.yaml"


def made(desk: Desk, *words: str) -> Object:
    """The job that it makes."""
    before = set(desk.api.objects)
    done = desk.make("job", *words)
    assert done.returncode == 0, done.stderr
    (key,) = set(desk.api.objects) - before
    name = key[2]
    assert f"kubectl logs --follow job/{name} --context " in done.stdout
    return desk.api.objects[key]


def images(thing: Object) -> set[str]:
    return {container["image"] for pod in pods_of("job", thing) for container in pod.containers}


def refusal(desk: Desk, *words: str) -> str:
    done = desk.make("job", *words)
    assert done.returncode == 2, done.stdout
    assert done.stderr.startswith("refused: ")
    assert not desk.api.objects
    return done.stderr


@pytest.fixture(params=["ray", "plain"])
def desk(request: pytest.FixtureRequest) -> Desk:
    found: Desk = request.getfixturevalue(request.param)
    return found


def test_it_runs_the_image_of_the_service_in_its_namespace(desk: Desk) -> None:
    desk.overlay("production")
    index = made(desk, f"FILE={RAY_INDEX if desk.serving == 'ray' else INDEX}", *PRODUCTION)
    assert index["kind"] == ("RayJob" if desk.serving == "ray" else "Job")
    assert images(index) == {IMAGE}
    assert index["metadata"]["namespace"] == "text"
    (account,) = {pod.spec["serviceAccountName"] for pod in pods_of("job", index)}
    assert account == NAME


def test_an_image_of_another_registry_and_one_by_its_tag_are_taken_as_they_are(plain: Desk) -> None:
    image = "mirror.example.com:5000/team/texts:1.2.3"
    plain.overlay("staging", image)
    assert images(made(plain, f"FILE={INDEX}", "ENV=staging", "CONTEXT=cloud-staging")) == {image}


def test_each_run_has_a_name_of_its_own(plain: Desk) -> None:
    plain.overlay("local")
    names = {made(plain, f"FILE={INDEX}")["metadata"]["name"] for _ in range(2)}
    assert len(names) == 2
    assert all(re.fullmatch(rf"{NAME}-index-[0-9a-f]{{6}}", name) for name in names)


def test_arguments_are_added_to_what_the_job_runs(desk: Desk) -> None:
    desk.overlay("local")
    if desk.serving == "ray":
        index = made(desk, f"FILE={RAY_INDEX}", "ARGS=--prune --gpus 0.5")
        assert re.fullmatch(r"python -m jobs\.index_documents_ray .+ --prune --gpus 0\.5", index["spec"]["entrypoint"])
        return
    container: Any = made(desk, f"FILE={INDEX}", "ARGS=--prune")["spec"]["template"]["spec"]["containers"][0]
    assert container["command"][:3] == ["python", "-m", "jobs.index_documents"]
    assert container["args"] == ["--prune"]


def test_a_restore_lists_backups_until_it_is_told_which_one(plain: Desk) -> None:
    plain.overlay("production")

    def arguments(*words: str) -> list[str]:
        spec: Any = made(plain, f"FILE={RESTORE}", *PRODUCTION, *words)["spec"]["template"]["spec"]
        found: list[str] = spec["containers"][0]["args"]
        return found

    where = f"--bucket=s3://backups-of-search/{NAME}/$(NAMESPACE)"
    assert arguments() == [where]
    assert arguments("ARGS=--backup=newest --overwrite") == [where, "--backup=newest", "--overwrite"]


# ---- What is refused ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("", r"\. cannot be read: .+; FILE is a file of deploy/jobs/"),
        ("deploy/jobs/other.yaml", r"deploy/jobs/other\.yaml cannot be read: .+; FILE is a file of deploy/jobs/"),
        ("Makefile", r"Makefile cannot be read: .+; FILE is a file of deploy/jobs/"),
        (
            "deploy/qdrant/statefulset.yaml",
            r"deploy/qdrant/statefulset\.yaml must have one Job or RayJob: it has \['StatefulSet'\]",
        ),
        ("empty.yaml", r"empty\.yaml must have one Job or RayJob: it has none"),
        ("words.yaml", r"words\.yaml must have one Job or RayJob: it has \['words'\]"),
    ],
)
def test_a_file_that_is_no_job(plain: Desk, file: str, words: str) -> None:
    plain.overlay("local")
    (plain.folder / "empty.yaml").touch()
    (plain.folder / "words.yaml").write_text("words")
    assert re.search(words, refusal(plain, f"FILE={file}"), re.S)


def test_a_job_of_two_images(plain: Desk) -> None:
    plain.overlay("local")
    path = Path(plain.folder, INDEX)
    sidecar = "containers:\n        - {name: sidecar, image: other.example.com/sidecar}\n"
    path.write_text(path.read_text().replace("containers:\n", sidecar))
    said = refusal(plain, f"FILE={INDEX}")
    assert f"{INDEX} must name one image, to know which one is meant: it names ['other.example.com/sidecar', '" in said


def test_an_image_that_nobody_has_filled_in(plain: Desk) -> None:
    plain.overlay("production", f"registry.example.com/{NAME}@sha256:{'0' * 64}")
    assert "still has the digest of 64 zeros" in refusal(plain, f"FILE={INDEX}", *PRODUCTION)


def test_an_environment_whose_cluster_is_not_named(plain: Desk) -> None:
    plain.overlay("production")
    plain.context("cloud-production")
    said = refusal(plain, f"FILE={INDEX}", "ENV=production")
    assert f"say so: make job FILE={INDEX} ENV=production CONTEXT=cloud-production\n" in said


def test_arguments_that_no_shell_takes(plain: Desk) -> None:
    plain.overlay("local")
    assert "ARGS=--backup='newest cannot be read: No closing quotation" in refusal(
        plain, f"FILE={RESTORE}", "ARGS=--backup='newest"
    )


def test_a_namespace_that_is_not_there(plain: Desk) -> None:
    plain.overlay("local", namespace="other")
    said = refusal(plain, f"FILE={INDEX}")
    assert "the API server does not take this job:" in said
    assert "-> make the namespace: kubectl create namespace other --context kind-laptop\n" in said
