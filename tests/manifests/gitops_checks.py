"""Checks of what a controller needs that brings the manifests from git: what it must keep, and what it waits for."""

from __future__ import annotations

import re
from collections.abc import Callable

import yaml

from tests.manifests.built import Faults, Overlay

# Answer to `gitops` -> annotations that keep an object which git no longer has.
KEPT = {
    "none": {},
    "argocd": {
        "argocd.argoproj.io/sync-options": "Prune=false",
        "argocd.argoproj.io/compare-options": "IgnoreExtraneous",
    },
    "flux": {"kustomize.toolkit.fluxcd.io/prune": "disabled"},
}


def kept_while_used(overlay: Overlay) -> Faults:
    """A change of the switches renames their ConfigMap, and the cluster that runs goes on to ask for the old name."""
    names = {
        source["configMapRef"]["name"]
        for pod in overlay.pods()
        for container in pod.containers
        for source in container.get("envFrom", [])
        if "configMapRef" in source
    }
    faults = []
    for key, thing in overlay.of_kind("ConfigMap"):
        given = thing["metadata"].get("annotations", {})
        if thing["metadata"]["name"] in names and given != KEPT[overlay.answers["gitops"]]:
            faults.append(f"{key}: has the annotations {given}, not {KEPT[overlay.answers['gitops']]}")
    return faults


def watched_by_gitops(overlay: Overlay) -> Faults:
    """Flux waits for the object that serves; Flux and Argo CD know each word with which KubeRay gives it up.

    What they make of their expressions, in CEL and Lua, is not run here.
    """
    gitops, ray = overlay.answers["gitops"], overlay.answers["serving"] == "ray"
    if gitops == "none" or overlay.environment == "local":
        return []
    faults = []
    file = "argocd-health.yaml" if gitops == "argocd" else f"flux-{overlay.environment}.yaml"
    path = overlay.folder / "deploy/gitops" / file
    if gitops == "flux":
        spec = yaml.safe_load(path.read_text())["spec"]
        thing = overlay.objects[f"{'RayService' if ray else 'Deployment'}/{overlay.answers['service_name']}"]
        wanted = {key: thing[key] for key in ("apiVersion", "kind")}
        wanted |= {key: thing["metadata"][key] for key in ("name", "namespace")}
        if spec.get("healthChecks") != [wanted] or spec.get("wait"):  # `wait` is for all objects, in place of these
            faults.append(f"{path.name}: waits for {spec.get('healthChecks')}, not {wanted}")
    if ray:
        terminal = re.findall(r'case "(\w+)":', (overlay.folder / "deploy/serving.py").read_text())
        words = [*terminal, "UpgradeInProgress", *(["observedGeneration"] if gitops == "argocd" else [])]
        faults += [f"{path.name}: does not look at {word}" for word in words if word not in path.read_text()]
    return faults


CHECKS: list[Callable[[Overlay], Faults]] = [kept_while_used, watched_by_gitops]
