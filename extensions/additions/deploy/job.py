"""Run a job of deploy/jobs/ once: `make job FILE=... ENV=... CONTEXT=... ARGS='...'`.

It runs the image and in the namespace of the environment's overlay: what an index holds must come from the code and the
weights that will search it. Each run has a name of its own, so that the runs before it stay to be read.
"""

import argparse
import json
import secrets
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

from deploy import serving
from deploy.deploy import apply, chosen_context, say, served
from deploy.manifests import Object, Refused, built, check_images, images_in, kubectl, name_of, objects_of


def read(file: Path) -> Object:
    """The one job of a file; raises Refused."""
    try:
        objects = objects_of(file.read_text())
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise Refused(f"{file} cannot be read: {error}; FILE is a file of deploy/jobs/") from None
    kinds = [each.get("kind") if isinstance(each, dict) else each for each in objects]
    if kinds not in (["Job"], ["RayJob"]):
        raise Refused(f"{file} must have one Job or RayJob: it has {kinds or 'none'}")
    return objects[0]


def image_of(objects: list[Object], what: str) -> str:
    """The image that all containers have; raises Refused."""
    images = {image for each in objects for image in images_in(each)}
    if len(images) != 1:
        raise Refused(f"{what} must name one image, to know which one is meant: it names {sorted(images) or 'none'}")
    return images.pop()


def named(image: str) -> tuple[str, dict[str, str]]:
    """Name of an image, and what kustomize calls the rest: newTag or digest."""
    name, _, digest = image.partition("@")
    folder, slash, last = name.rpartition("/")
    name, _, tag = last.partition(":")
    return f"{folder}{slash}{name}", {"digest": digest} if digest else {"newTag": tag} if tag else {}


def with_arguments(job: Object, arguments: list[str]) -> dict[str, Any]:
    """The change, as JSON Patch, that gives what the job runs more arguments."""
    if job["kind"] == "RayJob":
        return {
            "op": "replace",
            "path": "/spec/entrypoint",
            "value": f"{job['spec']['entrypoint']} {shlex.join(arguments)}",
        }
    container = job["spec"]["template"]["spec"]["containers"][0]
    path = "/spec/template/spec/containers/0/args"
    return {"op": "add", "path": path, "value": [*container.get("args", []), *arguments]}


def placed(file: Path, environment: str, objects: list[Object], arguments: list[str]) -> str:
    """The manifest of one run, as kustomize prints it; raises Refused."""
    job = read(file)
    name, placement = named(image_of([each for each in objects if each["kind"] == serving.KIND], environment))
    kustomization: dict[str, Any] = {
        "resources": ["job.yaml"],
        "namespace": served(environment, objects)[1],
        "nameSuffix": f"-{secrets.token_hex(3)}",
        "images": [{"name": named(image_of([job], str(file)))[0], "newName": name, **placement}],
    }
    if arguments:
        patch = json.dumps([with_arguments(job, arguments)])
        kustomization["patches"] = [{"target": {"kind": job["kind"]}, "patch": patch}]
    with tempfile.TemporaryDirectory() as folder:
        shutil.copyfile(file, Path(folder, "job.yaml"))
        Path(folder, "kustomization.yaml").write_text(json.dumps(kustomization))
        done = subprocess.run([kubectl(), "kustomize", folder], check=False, capture_output=True, text=True)
    if done.returncode:
        raise Refused(f"{file} does not build: {done.stderr.strip()}")
    return done.stdout


def run(options: argparse.Namespace) -> None:
    """Start the job, and say how to follow it; raises Refused."""
    objects = objects_of(built(options.environment))
    check_images(options.environment, objects)
    try:
        arguments = shlex.split(options.arguments)
    except ValueError as error:
        raise Refused(f"ARGS={options.arguments} cannot be read: {error}") from None
    manifest = placed(options.file, options.environment, objects, arguments)
    context = chosen_context(options.environment, options.context, f"job FILE={options.file}")
    if wrong := apply(manifest, context):
        raise Refused(f"the API server does not take this job:\n  {wrong}")
    (job,) = objects_of(manifest)
    name, namespace = job["metadata"]["name"], job["metadata"]["namespace"]
    say(f"{name_of(job)} is made in {namespace}, of {image_of([job], str(options.file))}; its log, once it runs:")
    say(f"  kubectl logs --follow job/{name} --context {context} --namespace {namespace}")


def main() -> int:
    """Exit status 0: it is made. 2: refused, and nothing was."""
    parser = argparse.ArgumentParser(prog="python -m deploy.job", description=main.__doc__)
    parser.add_argument("file", type=Path, help="a file of deploy/jobs/")
    parser.add_argument("--environment", default="local", help="a folder of deploy/overlays/ (default: local)")
    parser.add_argument("--context", help="of kubectl's configuration; must be named for all but local")
    parser.add_argument("--arguments", default="", help="more of them for what the job runs, as in a shell")
    options = parser.parse_args()
    try:
        run(options)
    except Refused as refused:
        print(f"refused: {refused}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
