"""The manifests of each environment, built by kustomize: `make manifests`, which needs no cluster."""

import argparse
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

Object = dict[str, Any]

OVERLAYS = Path(__file__).parent / "overlays"
DIGEST = re.compile(r"@sha256:[0-9a-f]{64}$")
PLACEHOLDER = f"@sha256:{'0' * 64}"


class Refused(Exception):
    """Nothing was touched; the text says why, and what to do."""


def kubectl() -> str:
    """Where the program is; raises Refused."""
    found = shutil.which("kubectl")
    if found is None:
        raise Refused("there is no `kubectl` on the path: install the release of your cluster, or one next to it")
    return found


def environments() -> list[str]:
    return sorted(path.parent.name for path in OVERLAYS.glob("*/kustomization.yaml"))


def built(environment: str) -> str:
    """The manifest of one overlay, as kustomize prints it; raises Refused."""
    if environment not in environments():
        raise Refused(
            f"deploy/overlays/{environment} is no overlay: ENV is one of {', '.join(environments()) or 'none'}"
        )
    folder = OVERLAYS / environment
    done = subprocess.run([kubectl(), "kustomize", str(folder)], check=False, capture_output=True, text=True)
    if done.returncode:
        raise Refused(f"deploy/overlays/{environment} does not build: {done.stderr.strip()}")
    return done.stdout


def objects_of(manifest: str) -> list[Object]:
    """To read, and never to write again: YAML 1.1, which is Python's, and Kubernetes' differ in `1e3` and the like."""
    return [each for each in yaml.safe_load_all(manifest) if each]


def name_of(each: Object) -> str:
    """Kind and name, as kubectl takes them."""
    return f"{each['kind'].lower()}/{each['metadata']['name']}"


def images_in(value: Any) -> Iterator[str]:
    """The image of every container, wherever in an object containers stand."""
    if isinstance(value, dict):
        if isinstance(value.get("image"), str):
            yield value["image"]
        value = list(value.values())
    for member in value if isinstance(value, list) else []:
        yield from images_in(member)


def kustomization(environment: str) -> str:
    return f"deploy/overlays/{environment}/kustomization.yaml"


def check_names(environment: str, objects: list[Object]) -> None:
    """Raises Refused for a tag or a digest of an image that no object has: kustomize drops it without a word."""
    here = {re.split(r"@|:(?!.*/)", image)[0] for image in images_in(objects)}
    overlay = yaml.safe_load((OVERLAYS / environment / "kustomization.yaml").read_text())
    for entry in overlay.get("images") or []:
        name = entry.get("newName") or entry["name"]
        if name not in here:
            raise Refused(
                f"{kustomization(environment)} fixes the image {name}, and no object has it: they have "
                f"{', '.join(sorted(here))}. Was the service or its registry renamed? Write the new name there"
            )


def check_images(environment: str, objects: list[Object]) -> None:
    """Raises Refused for an image that nobody has filled in, and in production for one named by its tag."""
    check_names(environment, objects)
    file = kustomization(environment)
    for image in sorted(set(images_in(objects))):
        name = image.partition("@")[0]
        if image.endswith(PLACEHOLDER):
            raise Refused(
                f"{file} still has the digest of 64 zeros for {name}: put that of the image that you pushed there, "
                f"which `docker buildx imagetools inspect {name}:TAG` prints"
            )
        if environment == "production" and not DIGEST.search(image):
            raise Refused(
                f"{image} is no fixed image, as its tag may be pushed anew: production names images by digest, in "
                f"`images:` of {file}; `docker buildx imagetools inspect {image}` prints it"
            )


def main() -> int:
    """Build every overlay and print its objects. Exit status 1: one is wrong, 2: there is no kubectl."""
    parser = argparse.ArgumentParser(prog="python -m deploy.manifests", description=main.__doc__)
    parser.parse_args()
    failed = False
    for environment in environments():
        try:
            kubectl()
        except Refused as refused:
            print(refused, file=sys.stderr)
            return 2
        try:
            objects = objects_of(built(environment))
            check_names(environment, objects)
        except Refused as refused:
            failed = True
            print(refused, file=sys.stderr)
            continue
        print(f"{environment}: {len(objects)} objects")
        print("".join(f"  {name}\n" for name in sorted(map(name_of, objects))), end="")
        try:
            check_images(environment, objects)
        except Refused as refused:
            print(f"  not yet to be deployed: {refused}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
