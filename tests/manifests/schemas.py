"""Strict schemas: those of Kubernetes from a package, those of custom resources from CustomResourceDefinition files.

The files are in the folder that RAYPATH_CRDS names, by default ../shared/crds beside this checkout. `make crds`
downloads them.
"""

from __future__ import annotations

import functools
import json
import os
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import yaml

from tests.manifests.built import Object, Overlay
from tests.variants import ROOT

# Kinds whose fields no schema is at hand for: clusters of Google bring them. reference_checks.py compares them whole.
WITHOUT_A_SCHEMA = {("networking.gke.io/v1", "HealthCheckPolicy"), ("cloud.google.com/v1", "BackendConfig")}


def crd_folder() -> Path:
    """Raises FileNotFoundError with the remedy: what is not checked must not look checked."""
    folder = Path(os.environ.get("RAYPATH_CRDS", ROOT.parent / "shared" / "crds"))
    if not list(folder.glob("*_*.yaml")):
        raise FileNotFoundError(
            f"{folder} holds no CustomResourceDefinitions: download them with `make crds`, and set RAYPATH_CRDS to "
            f"their folder, work/crds"
        )
    return folder


def strict(schema: Any) -> Any:
    """The schema of a CRD as the API server applies it, and unknown fields are errors."""
    if isinstance(schema, list):
        return [strict(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    found = {
        key: {name: strict(member) for name, member in value.items()} if key == "properties" else strict(value)
        for key, value in schema.items()
        if key != "default"
    }
    properties = schema.get("properties")
    if isinstance(properties, dict) and not schema.get("x-kubernetes-preserve-unknown-fields"):
        found.setdefault("additionalProperties", False)
        # What has a default is filled in before it is required.
        given = [name for name in schema.get("required", []) if "default" not in properties.get(name, {})]
        found.pop("required", None)
        if given:
            found["required"] = given
    if schema.get("x-kubernetes-int-or-string"):
        return {"anyOf": [{"type": "integer"}, {"type": "string"}]}
    return {"anyOf": [found, {"type": "null"}]} if schema.get("nullable") else found


@functools.cache
def crd_schema(api_version: str, kind: str) -> Any:
    """The strict schema of a custom resource, or None where no file defines it."""
    group, _, version = api_version.partition("/")
    for path in crd_folder().glob(f"{group}_{kind.lower()}*.yaml"):
        spec = yaml.load(path.read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))["spec"]  # noqa: S506
        if spec["names"]["kind"] == kind:
            for each in spec["versions"]:
                if each["name"] == version and each["served"]:
                    schema = strict(each["schema"]["openAPIV3Schema"])
                    schema["properties"]["metadata"] = {"type": "object"}
                    return schema
    return None


def schema_faults(where: str, thing: Object) -> list[str]:
    """What the API server would refuse, and what it would ignore."""
    if (thing["apiVersion"], thing["kind"]) in WITHOUT_A_SCHEMA:
        return []
    schema = crd_schema(thing["apiVersion"], thing["kind"])
    if schema is not None:
        errors = jsonschema.Draft202012Validator(schema).iter_errors(thing)
        return [f"{where}: schema: {error.json_path}: {error.message}" for error in errors]
    try:
        kubernetes_validate.validate(thing, kubernetes_validate.latest_version(), strict=True)
    except kubernetes_validate.ValidationError as error:
        return [f"{where}: schema: {'.'.join(map(str, error.path))}: {error.message}"]
    except kubernetes_validate.SchemaNotFoundError:
        return [f"{where}: schema: no CustomResourceDefinition of {thing['apiVersion']} {thing['kind']}"]
    return []


@functools.cache
def faults_of(text: str) -> list[str]:
    return schema_faults("", json.loads(text))


def schemas(overlay: Overlay) -> list[str]:
    """Kubernetes' own schemas and those of custom resources; fields that neither knows are faults."""
    return [
        f"{where}{fault}"
        for where, thing in overlay.objects.items()
        for fault in faults_of(json.dumps(thing, sort_keys=True))
    ]
