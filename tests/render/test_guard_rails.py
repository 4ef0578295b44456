"""Each check is seen to fail on a planted fault: a guard rail that never bites guards nothing."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.render import checks
from tests.rendering import compiled_once, digest, refused, render

CONTAINER, RAY, SEARCH = "container-two-models", "ray-shared-gpu", "ray-with-context"
PIN = "3d3c42e5aac5ba805825da76410c181273ba90b1"
END = ""  # a plant without a text to replace goes to the end of its file

# (check, variant, file, text to replace, planted text, words of the fault)
PLANTED: list[tuple[checks.Check, str, str, str, str, str]] = [
    (checks.unrendered, RAY, "README.md", END, "{{ service_name }}", "README.md: Jinja is left over: {{"),
    (checks.unrendered, RAY, "service/runtime/logs.py", END, "# {% endif %}", "logs.py: Jinja is left over: {%"),
    (checks.unrendered, RAY, ".github/workflows/ci.yml", "${{ vars.TORCH", "{{ vars.TORCH", "ci.yml: Jinja is left"),
    (checks.unrendered, RAY, "monitoring/dashboards/ray.json", "{{ip}}", "{{ ip }}", "ray.json: Jinja is left over"),
    (checks.unrendered, RAY, "service/{{ name }}.py", END, "1", "is left over"),
    (checks.empty, RAY, "config/new.yaml", END, "", "config/new.yaml: is empty"),
    (checks.names_illegal_on_windows, RAY, "service/models/aux.py", END, "1", "aux.py: Windows has no file"),
    (checks.names_illegal_on_windows, RAY, "service/a:b.py", END, "1", "a:b.py: Windows has no file"),
    (checks.names_illegal_on_windows, RAY, "readme.md", END, "1", "differs from another only in case"),
    (checks.banned, RAY, "deploy/Dockerfile", "FROM python:", "FROM docker.io/python:", "a registry's host"),
    (checks.banned, RAY, "deploy/Dockerfile", "FROM python:", "FROM python:latest AS ", "holds latest"),
    (checks.banned, RAY, "Makefile", "pip install", "pip install --index-url x", "an index of packages"),
    (checks.banned, RAY, "service/runtime/transformer.py", END, "f(trust_remote_code=True)", "code from the hub"),
    (checks.banned, RAY, "config/ray.env", END, "API_KEY=0123456789", "a secret"),
    (checks.paths_that_documents_name, CONTAINER, "README.md", END, "see `config/ray.env`", "config/ray.env, which is"),
    (checks.ruff, RAY, "service/runtime/logs.py", END, "import sys", "F401"),
    (checks.ruff, RAY, "service/runtime/logs.py", END, "x  =  1", "-x  =  1"),
    (
        checks.modules_that_are_not_there,
        RAY,
        "Makefile",
        ".ray_local",
        ".container",
        "service.runtime.container, which",
    ),
    (checks.modules_that_are_not_there, RAY, "Makefile", "-m deploy.deploy", "-m deploy.roll", "deploy.roll, which is"),
    (checks.modules_that_are_not_there, RAY, "config/serve.yaml", ":front", ":back", "ray_app.back, which is not"),
    (
        checks.modules_that_are_not_there,
        CONTAINER,
        "service/runtime/served.py",
        END,
        "from service.runtime import metrics_ray",
        "service.runtime.metrics_ray, which is not there",
    ),
    (
        checks.modules_that_are_not_there,
        CONTAINER,
        "service/runtime/served.py",
        END,
        "from service.runtime.logs import no_logs",
        "service.runtime.logs.no_logs, which is not there",
    ),
    (checks.undeclared_or_unused, RAY, "service/runtime/logs.py", END, "import yamllint", "imports yamllint, which"),
    (checks.undeclared_or_unused, RAY, "tests/tiny.py", END, "import nowhere", "imports nowhere, which"),
    (checks.undeclared_or_unused, RAY, "pyproject.toml", '"kubernetes", ', "", "cluster.py: imports kubernetes, which"),
    (
        checks.undeclared_or_unused,
        RAY,
        "pyproject.toml",
        '"torch",',
        '"torch", "requests",',
        "requests is declared, and",
    ),
    (checks.undeclared_or_unused, RAY, "pyproject.toml", '"mypy",', '"mypy", "rich",', "rich is a development"),
    (
        checks.undeclared_or_unused,
        RAY,
        "pyproject.toml",
        '"mypy",',
        '"mypy", "types-six",',
        "types-six is a development",
    ),
    (checks.constraints, CONTAINER, "constraints.txt", END, "ray==2.60.0", "nothing needs ray"),
    (checks.constraints, RAY, "constraints.txt", "\naiohttp==", "\n# aiohttp==", "aiohttp is not pinned"),
    (checks.constraints, RAY, "constraints.txt", "\nfastapi==", "\nfastapi==0.0.", "but the tests run with"),
    (checks.one_version_of_ray, RAY, "deploy/Dockerfile", END, "RUN pip install ray[serve]==2.1.0", "Ray's version"),
    (checks.one_version_of_ray, RAY, "constraints.txt", "\nray==", "\nray==1", "Ray's version"),
    (checks.one_version_of_ray, CONTAINER, "pyproject.toml", '"torch"', '"torch", "ray==1"', "Ray's version"),
    (checks.data_files, RAY, "config/serve.yaml", END, "applications: []", "key 'applications' stands twice"),
    (checks.data_files, RAY, "pyproject.toml", END, "[project]", "pyproject.toml: "),
    (checks.data_files, RAY, "monitoring/board.json", END, "{,}", "monitoring/board.json: "),
    (checks.yaml_style, RAY, "config/serve.yaml", END, "key:  {a: 1}", "too many spaces after colon"),
    (checks.dockerfile, RAY, "deploy/Dockerfile", "USER 10001", "USER root", "runs as root"),
    (checks.dockerfile, RAY, "deploy/Dockerfile", END, "RUN apt-get install curl", "DL3"),
    (checks.dockerfile, RAY, ".dockerignore", "!config\n", "", "copies config, which is not sent"),
    (checks.makefile, RAY, "Makefile", END, "new:\n\techo", "new is not in `make help`"),
    (checks.makefile, RAY, "Makefile", ".PHONY: help dev", ".PHONY: help", "dev is not phony"),
    (checks.workflows, RAY, ".github/workflows/ci.yml", f"@{PIN}", "@v7", "is not a commit that we know"),
    (checks.workflows, RAY, ".github/workflows/ci.yml", f"@{PIN}", f"@{PIN[::-1]}", "is not a commit that we know"),
    (checks.workflows, RAY, ".github/workflows/ci.yml", "contents: read", "contents: write", "permissions are not"),
    (checks.workflows, RAY, ".github/workflows/ci.yml", "    timeout-minutes: 30\n", "", "has no timeout-minutes"),
    (checks.workflows, RAY, ".github/workflows/ci.yml", "persist-credentials: false", "fetch-depth: 0", "credentials"),
    (checks.workflows, RAY, ".github/workflows/ci.yml", "make lint", "make tidy", "make tidy is no target"),
    (checks.pre_commit, RAY, ".pre-commit-config.yaml", "repo: local", "repo: https://example.com/x", "is fetched"),
    (
        checks.pre_commit,
        RAY,
        ".pre-commit-config.yaml",
        "entry: .venv/bin/mypy",
        "entry: .venv/bin/pyright",
        "pyright is no command",
    ),
    (checks.ownership, RAY, "ownership.yml", END, "  - feature_repo/", "feature_repo/ matches no file"),
    (checks.container_settings, CONTAINER, "config/service.yaml", "dtype:", "dtpye:", "dtpye"),
    (checks.container_settings, CONTAINER, "config/service.yaml", "batch_wait_ms: 0", "batch_wait_ms: 900", "waits as"),
    (checks.retrieval_config, SEARCH, "config/retrieval.yaml", "embedder: minilm", "embedder: mini", "is no model"),
    (checks.retrieval_config, SEARCH, "config/retrieval.yaml", 'revision: "', 'revision: "0', "another revision"),
    (
        checks.retrieval_config,
        SEARCH,
        "config/retrieval.yaml",
        "deadline_ms: 1000",
        "deadline_ms: 5000",
        "waits as long",
    ),
    (checks.serve_config, RAY, "config/serve.yaml", "proxy_location", "proxy_locations", "Serve has no such key"),
    (
        checks.serve_config,
        RAY,
        "config/serve.yaml",
        "num_gpus:",
        "gpus:",
        "ray_actor_options.gpus: Serve has no such key",
    ),
    (checks.serve_config, RAY, "config/serve.yaml", "min_replicas", "min_replica", "autoscaling_config.min_replica: "),
    (checks.serve_config, RAY, "config/serve.yaml", "batch_wait_ms: 0", "batch_wait: 0", "batch_wait"),
    (
        checks.serve_config,
        RAY,
        "config/serve.yaml",
        "max_ongoing_requests: 1",
        "max_ongoing_requests: -1",
        "serve.yaml: ",
    ),
    (
        checks.serve_config,
        RAY,
        "config/serve.yaml",
        "max_ongoing_requests: 192",
        "max_ongoing_requests: 63",
        "two batches",
    ),
    (
        checks.serve_config,
        RAY,
        "config/serve.yaml",
        "target_ongoing_requests: 32",
        "target_ongoing_requests: 500",
        "target",
    ),
    (checks.serve_config, RAY, "config/serve.yaml", "  request_timeout_s: 7", "  request_timeout_s: 5", "Ray gives a"),
    (checks.serve_config, RAY, "config/serve.yaml", "num_gpus: 0.5", "num_gpus: 1.5", "more than a card"),
    (
        checks.serve_config,
        RAY,
        "config/serve.yaml",
        "gpu_memory_fraction: 0.",
        "gpu_memory_fraction: 0.9",
        "0.9 of its memory",
    ),
    (checks.serve_config, RAY, "config/serve.yaml", '"second-model"]', "]", "the front does not list"),
    (checks.weights_in_image, CONTAINER, "deploy/Dockerfile", "--include '*.json'", "'*.json'", "leaves out *.json"),
    (checks.serve_config, RAY, "config/ray.env", END, "RAY_SERVE_GO_FASTER=1", "reads no RAY_SERVE_GO_FASTER"),
]


@pytest.mark.parametrize(
    ("check", "variant", "file", "old", "new", "words"),
    PLANTED,
    ids=[f"{row[0].__name__}-{row[4][:30]}" for row in PLANTED],
)
def test_a_planted_fault_is_found(
    check: checks.Check, variant: str, file: str, old: str, new: str, words: str, copy_of: Callable[[str], Path]
) -> None:
    folder = copy_of(variant)
    before = check(folder)
    path = folder / file
    path.parent.mkdir(exist_ok=True)
    text = path.read_text() if path.exists() else ""
    assert old in text
    path.write_text(text.replace(old, new) if old else f"{text}{new}\n")
    found = [fault for fault in check(folder) if fault not in before]
    assert any(words in fault for fault in found), found


def test_an_empty_folder_is_found(copy_of: Callable[[str], Path]) -> None:
    folder = copy_of(RAY)
    (folder / "feature_repo").mkdir()
    assert checks.empty(folder) == ["feature_repo: is empty"]


def test_a_wrong_type_is_found(copy_of: Callable[[str], Path], tmp_path: Path) -> None:
    folder = copy_of(RAY)
    with (folder / "service/models/minilm.py").open("a") as file:
        file.write("\n\nx: int = 'one'\n")
    assert any(
        "Incompatible types in assignment" in line for line in checks.mypy(checks.join({RAY: folder}, tmp_path / "j"))
    )


@pytest.mark.parametrize(
    ("file", "planted", "words"),
    [
        ("monitoring/observe.py", "x: int = 'one'", "Incompatible types in assignment"),
        ("config/service.yaml", "password: hunter2-is-known", "Secret Keyword"),
    ],
)
def test_what_the_hooks_of_a_service_refuse_is_found(
    file: str, planted: str, words: str, copy_of: Callable[[str], Path]
) -> None:
    folder = copy_of("default")
    with (folder / file).open("a") as spoiled:
        spoiled.write(f"{planted}\n")
    assert any(words in line for line in checks.hooks(folder))


def test_another_byte_another_name_and_another_mode_are_another_render(copy_of: Callable[[str], Path]) -> None:
    folder = copy_of(RAY)
    seen = {digest(folder)}
    (folder / "README.md").write_text("other")
    seen.add(digest(folder))
    (folder / "README.md").rename(folder / "README.txt")
    seen.add(digest(folder))
    (folder / "README.txt").chmod(0o755)
    seen.add(digest(folder))
    assert len(seen) == 4


def test_a_fault_of_the_template_is_not_taken_for_a_refusal(template: Path, tmp_path: Path) -> None:
    broken = Path(shutil.copytree(template, tmp_path / "broken"))
    (broken / "template" / "new.txt.jinja").write_text("{{ no_such_answer }}")
    with compiled_once(), pytest.raises(Exception, match="no_such_answer") as caught:
        render(broken, tmp_path / "out", {})
    assert not (isinstance(caught.value, ValueError) and refused(caught.value))
    with compiled_once(), pytest.raises(ValueError, match="quantum") as caught:
        render(template, tmp_path / "out2", {"serving": "quantum"})
    assert not refused(caught.value)
