"""What must hold for every generated repository. A check takes its folder and returns faults: where, and what."""

from __future__ import annotations

import ast
import fcntl
import functools
import hashlib
import importlib.metadata
import importlib.util
import io
import json
import math
import os
import platform
import re
import shlex
import subprocess
import sys
import sysconfig
import tomllib
import types
import typing
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import chdir, redirect_stdout
from fnmatch import fnmatch
from pathlib import Path
from typing import Any
from unittest.mock import patch

import yaml
from huggingface_hub.cli import hf
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from pydantic import BaseModel

from tests.rendering import files_of
from tests.variants import ROOT

Faults = list[str]
Check = Callable[[Path], Faults]
BIN = Path(sysconfig.get_path("scripts"))
TOOL_S = 120


def distinct(renders: dict[str, Path], *patterns: str) -> dict[str, Path]:
    """One variant for each different content of the files that a pattern matches: the others would tell the same."""
    kept: dict[str, tuple[str, Path]] = {}
    for name, folder in renders.items():
        total = hashlib.sha256()
        for path, file in files_of(folder).items():
            if any(fnmatch(path, pattern) for pattern in patterns):
                total.update(f"{path}\0".encode() + file.read_bytes() + b"\0")
        kept.setdefault(total.hexdigest(), (name, folder))
    return dict(kept.values())


def texts_of(folder: Path, *patterns: str) -> Iterator[tuple[str, str]]:
    for path, file in files_of(folder).items():
        if any(fnmatch(path, pattern) for pattern in patterns or ("*",)):
            yield path, file.read_text()


def run(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=folder, check=False, capture_output=True, text=True, timeout=TOOL_S)


def tool(folder: Path, *command: str) -> Faults:
    """Lines that a command-line tool of this environment prints when it fails in `folder`."""
    done = run(folder, str(BIN / command[0]), *command[1:])
    return (done.stdout + done.stderr).splitlines() if done.returncode else []


# ---- text ----------------------------------------------------------------------------------------------------------

# `${{ }}` is GitHub's, `{{ $` Prometheus', `{{label}}` in JSON Grafana's, and `{{` a brace in an f-string of Python.
JINJA = re.compile(r"(?<!\$)\{\{(?! \$)|\{%|\{#")
JINJA_IN_JSON = re.compile(r"\{\{(?!\w+\}\})|\{%|\{#")
JINJA_IN_PYTHON = re.compile(r"\{\{[-\s]|\{%|\{#")


def unrendered(folder: Path) -> Faults:
    patterns = {".py": JINJA_IN_PYTHON, ".json": JINJA_IN_JSON}
    return [
        f"{path}: Jinja is left over: {found.group()} in {line.strip()!r}"
        for path, text in texts_of(folder)
        for line in [path, *text.splitlines()]
        if (found := patterns.get(Path(path).suffix, JINJA).search(line))
    ]


def empty(folder: Path) -> Faults:
    return [
        f"{path.relative_to(folder)}: is empty"
        for path in sorted(folder.rglob("*"))
        if (path.is_dir() and not any(path.iterdir())) or (path.is_file() and not path.read_text().strip())
    ]


DEVICES = {"con", "prn", "aux", "nul", *(f"{name}{digit}" for name in ("com", "lpt") for digit in range(10))}


def names_illegal_on_windows(folder: Path) -> Faults:
    faults = []
    for path in files_of(folder):
        for part in path.split("/"):
            if re.search(r'[<>:"\\|?*\x00-\x1f]|[ .]$', part) or part.split(".")[0].lower() in DEVICES:
                faults.append(f"{path}: Windows has no file of that name")
    twice = Counter(path.lower() for path in files_of(folder))
    return faults + [f"{path}: differs from another only in case" for path, times in twice.items() if times > 1]


BANNED = {
    "a registry's host": r"pypi\.org|python[h]osted|(?<![\w.])(docker|ghcr|gcr|quay)\.io|public\.ecr|huggingface\.co",
    "an index of packages": r"--(extra-)?index-url|--find-links|--trusted-host",
    "latest": r"\blatest\b",
    "code from the hub": r"trust_remote_code\s*=\s*True",
    "a secret": r"AKIA[0-9A-Z]{16}|gh[pousr]_\w{20}|\bhf_[A-Za-z0-9]{20}|xox[bp]-|-----BEGIN [A-Z ]*PRIVATE KEY"
    r"|(?i:\b(password|passwd|api_?key|secret_?key|access_?token)\b[\"']?\s*[=:]\s*[\"']?(?!SecretStr|settings\.)[^\s\"'$<{(]{6})",
}


def banned(folder: Path) -> Faults:
    return [
        f"{path}:{number}: holds {what}: {line.strip()!r}"
        for path, text in texts_of(folder)
        for number, line in enumerate(text.splitlines(), 1)
        for what, pattern in BANNED.items()
        if re.search(pattern, line)
    ]


def paths_that_documents_name(folder: Path) -> Faults:
    """A path in back-ticks in a Markdown file is there, or is the name of a file that is."""
    files = files_of(folder)
    known = set(files) | {path.rsplit("/", 1)[-1] for path in files}
    known |= {"/".join(path.split("/")[:depth]) + "/" for path in files for depth in range(1, path.count("/") + 1)}
    return [
        f"{path}: names {word}, which is not there"
        for path, text in texts_of(folder, "*.md")
        for word in re.findall(r"`([\w.-][\w./-]*)`", text)
        if (word.endswith("/") or re.search(r"\.(py|md|ya?ml|toml|txt|env|json)$", word)) and word not in known
    ]


# ---- Python --------------------------------------------------------------------------------------------------------


def ruff(folder: Path) -> Faults:
    """ruff takes each file's configuration from the nearest pyproject.toml: `folder` may hold many renders."""
    return [
        *tool(folder, "ruff", "check", "--no-cache", "--quiet", "--output-format=concise", "."),
        *tool(folder, "ruff", "format", "--no-cache", "--quiet", "--diff", "."),
    ]


def join(renders: dict[str, Path], target: Path) -> Path:
    """Put the packages of many renders in one folder, as reading its libraries is what takes mypy long.

    A file that differs between renders stands there once per content, under further names. The settings are those of
    the render that has most of them.
    """
    seen: dict[str, list[str]] = {}
    for folder in renders.values():
        for path, text in texts_of(folder, "service/*.py", "jobs/*.py", "deploy/*.py", "monitoring/*.py"):
            contents = seen.setdefault(path, [])
            if text not in contents:
                contents.append(text)
                other = path if len(contents) == 1 else f"{path.removesuffix('.py')}_{len(contents)}.py"
                (target / other).parent.mkdir(parents=True, exist_ok=True)
                (target / other).write_text(text)
    settings = [(folder / "pyproject.toml").read_text() for folder in renders.values()]
    most = max(settings, key=lambda text: len(text.partition("[[tool.mypy.overrides]]")[2]))
    (target / "pyproject.toml").write_text(most)
    return target


def mypy(folder: Path) -> Faults:
    """One at a time, so that the libraries are read once: that takes 18 s, and what follows 1 s."""
    cache = ROOT / ".mypy_cache" / "renders"
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        packages = [name for name in ("service", "jobs", "deploy", "monitoring") if (folder / name).exists()]
        return tool(folder, "mypy", "--cache-dir", str(cache), "--no-error-summary", *packages)


# Packages of a render that others import from.
OURS = ("service", "jobs", "deploy", "tests")


def imports_of(folder: Path, *patterns: str) -> Iterator[tuple[str, str]]:
    """(path, dotted name) of every import; `from a.b import c` is a.b.c."""
    for path, text in texts_of(folder, *patterns):
        yield from ((path, name) for name in imports_in(text))


@functools.cache
def imports_in(text: str) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found += [f"{node.module}.{alias.name}" for alias in node.names]
    return found


@functools.cache
def defined_in(text: str) -> set[str]:
    """The names that a module has at its top level, and some more."""
    found = set()
    for node in ast.parse(text).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            found.add(node.name)
        else:
            found |= {sub.id for sub in ast.walk(node) if isinstance(sub, ast.Name)}
            found |= {sub.asname or sub.name for sub in ast.walk(node) if isinstance(sub, ast.alias)}
    return found


def resolves(folder: Path, dotted: str) -> bool:
    """Whether a.b.c is a module, a package, or a name in module a.b."""
    path = folder / dotted.replace(".", "/")
    if path.with_suffix(".py").exists() or (path / "__init__.py").exists():
        return True
    module = path.parent.with_suffix(".py") if path.parent != folder else path
    return module.exists() and path.name in defined_in(module.read_text())


def modules_that_are_not_there(folder: Path) -> Faults:
    """Imports, `python -m`, and Serve's import_path must lead to a module of this render."""
    named = [(path, name) for path, name in imports_of(folder, "*.py") if name.split(".")[0] in OURS]
    for path, text in texts_of(folder):
        named += [(path, name) for name in re.findall(r"-m[\s\",]+((?:service|deploy)[\w.]+)", text)]
        named += [(path, name.replace(":", ".")) for name in re.findall(r"import_path: ([\w.:]+)", text)]
    return [f"{path}: leads to {name}, which is not there" for path, name in named if not resolves(folder, name)]


# ---- dependencies --------------------------------------------------------------------------------------------------


@functools.cache
def installed_in(prefix: Path) -> dict[str, importlib.metadata.Distribution]:
    """What is installed in an environment, by canonical name."""
    found = importlib.metadata.distributions(path=[str(path) for path in prefix.glob("lib/python*/site-packages")])
    return {str(canonicalize_name(each.name)): each for each in found}


@functools.cache
def providers_in(prefix: Path) -> dict[str, set[str]]:
    """Importable name -> the distributions of an environment that provide it."""
    found: dict[str, set[str]] = {}
    for name, distribution in installed_in(prefix).items():
        for file in distribution.files or []:
            if file.suffix == ".py" or ".so" in file.suffixes:
                found.setdefault(file.parts[0].split(".")[0], set()).add(name)
    return found


def prefix_of(folder: Path) -> Path:
    """The environment where the render in `folder` is run: with Feast one of its own (see the Makefile)."""
    return Path(sys.prefix, "feast") if (folder / "service/runtime/features_feast.py").exists() else Path(sys.prefix)


def declared(folder: Path) -> tuple[list[Requirement], list[Requirement]]:
    """The dependencies to run, and those to develop."""
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    extras = project.get("optional-dependencies", {})
    return [Requirement(text) for text in project["dependencies"]], [Requirement(text) for text in extras["dev"]]


def commands_of(distribution: importlib.metadata.Distribution) -> set[str]:
    """The commands that a distribution installs: scripts, and programs such as ruff's."""
    points = distribution.entry_points.select(group="console_scripts")
    return {point.name for point in points} | {
        path.name for path in distribution.files or [] if path.parent.name == "bin"
    }


def name_of(requirement: Requirement) -> str:
    return str(canonicalize_name(requirement.name))


def imported(folder: Path, pattern: str) -> dict[str, str]:
    """Imported package that is neither ours nor Python's -> a file that imports it."""
    names = {name.split(".")[0]: path for path, name in imports_of(folder, pattern)}
    return {name: path for name, path in names.items() if name not in {*sys.stdlib_module_names, *OURS}}


def undeclared_or_unused(folder: Path) -> Faults:
    run, dev = ({name_of(requirement) for requirement in part} for part in declared(folder))
    faults = []
    used: dict[str, set[str]] = {}
    development = ("deploy/*.py", "tests/*.py")
    for pattern, allowed in (("service/*.py", run), ("jobs/*.py", run), *((each, run | dev) for each in development)):
        used[pattern] = set()
        for name, path in imported(folder, pattern).items():
            providers = providers_in(prefix_of(folder)).get(name, set())
            used[pattern] |= providers
            if not providers & allowed:
                faults.append(f"{path}: imports {name}, which pyproject.toml does not declare")
    faults += [
        f"pyproject.toml: {name} is declared, and nothing in service/ or jobs/ imports it"
        for name in run - used["service/*.py"] - used["jobs/*.py"]
    ]
    commands = "\n".join(text for _, text in texts_of(folder, "Makefile", ".pre-commit-config.yaml", ".github/*"))
    for name in dev.difference(*(used[pattern] for pattern in development)):
        if name.startswith("types-"):
            is_used = name.removeprefix("types-") in run | dev
        else:
            words = commands_of(installed_in(prefix_of(folder))[name])
            is_used = any(re.search(rf"(?<![\w-]){re.escape(word)}(?![\w-])", commands) for word in words)
        if not is_used:
            faults.append(f"pyproject.toml: {name} is a development dependency, and no test or command uses it")
    return faults


# The oldest Python that a service may run on, and ours: Debian 12 has 3.11.2, which needs a package more.
PYTHONS = ("3.11.0", platform.python_version())


def closure(requirements: Iterable[Requirement], prefix: Path) -> set[str]:
    """The distributions that pip installs for these requirements, by the metadata of the environment `prefix`."""
    todo = [(name_of(requirement), frozenset(requirement.extras)) for requirement in requirements]
    seen: set[tuple[str, frozenset[str]]] = set()
    while todo:
        name, extras = todo.pop()
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        for text in installed_in(prefix)[name].requires or []:
            needed = Requirement(text)
            sites = [{"extra": extra, "python_full_version": python} for extra in {"", *extras} for python in PYTHONS]
            if needed.marker is None or any(map(needed.marker.evaluate, sites)):
                todo.append((name_of(needed), frozenset(needed.extras)))
    return {name for name, _ in seen}


def pins_of(folder: Path) -> dict[str, str]:
    lines = (folder / "constraints.txt").read_text().splitlines()
    pairs = [line.split(";")[0].split("==") for line in lines if line.strip() and not line.startswith("#")]
    return {str(canonicalize_name(name)): version for name, version in pairs}


def constraints(folder: Path) -> Faults:
    """constraints.txt pins what the dependencies need, in the versions these tests run with, and nothing else."""
    pins = pins_of(folder)
    prefix = prefix_of(folder)
    needed = closure((requirement for part in declared(folder) for requirement in part), prefix)
    installed = {name: installed_in(prefix)[name].version.split("+")[0] for name in needed}
    return [
        *(f"constraints.txt: {name} is not pinned" for name in sorted(needed - pins.keys())),
        *(f"constraints.txt: nothing needs {name}" for name in sorted(pins.keys() - needed)),
        *(
            f"constraints.txt: {name}=={pins[name]}, but the tests run with {version}"
            for name, version in installed.items()
            if name in pins and pins[name] != version
        ),
    ]


def one_version_of_ray(folder: Path) -> Faults:
    """pyproject.toml, constraints.txt and so the image hold one value, and a container holds none."""
    found = {
        **{f"pyproject.toml {r}": str(r.specifier) for r in declared(folder)[0] if r.name == "ray"},
        **{f"constraints.txt {name}": f"=={version}" for name, version in pins_of(folder).items() if name == "ray"},
        **{
            f"deploy/Dockerfile {version}": f"=={version}"
            for version in re.findall(r"\bray\S*(?:==|:)([\d.]+)", (folder / "deploy/Dockerfile").read_text())
        },
    }
    expected = 2 if (folder / "config/serve.yaml").exists() else 0
    return [] if len(found) == expected and len(set(found.values())) <= 1 else [f"Ray's version: {found}"]


# ---- data files ----------------------------------------------------------------------------------------------------


class StrictLoader(yaml.SafeLoader):
    """YAML in which a key that stands twice is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = Counter(self.construct_object(key) for key, _ in node.value)
        if twice := [key for key, times in keys.items() if times > 1]:
            raise yaml.constructor.ConstructorError(None, None, f"key {twice[0]!r} stands twice", node.start_mark)
        return super().construct_mapping(node, deep)


def load_yaml(text: str) -> Any:
    return yaml.load(text, StrictLoader)  # noqa: S506 a SafeLoader


def data_files(folder: Path) -> Faults:
    parsers: dict[tuple[str, ...], Callable[[str], Any]] = {
        (".yml", ".yaml"): load_yaml,
        (".toml",): tomllib.loads,
        (".json",): json.loads,
    }
    faults = []
    for path, text in texts_of(folder):
        for suffixes, parse in parsers.items():
            if path.endswith(suffixes):
                try:
                    parse(text)
                except (yaml.YAMLError, ValueError) as error:
                    faults.append(f"{path}: {error}")
    return faults


def yaml_style(folder: Path) -> Faults:
    """yamllint, in process, with the configuration of the render."""
    from yamllint import linter  # type: ignore[import-untyped]
    from yamllint.config import YamlLintConfig  # type: ignore[import-untyped]

    with chdir(folder):
        config = YamlLintConfig(file=".yamllint.yaml")
        return [
            f"{path}:{problem.line}: {problem.message}"
            for path, text in texts_of(folder, "*.yml", "*.yaml")
            if not config.is_file_ignored(path)
            for problem in linter.run(text, config, path)
        ]


def dockerfile(folder: Path) -> Faults:
    """hadolint, and what it does not know: what is copied is there, and is not left out of the build context."""
    text = (folder / "deploy/Dockerfile").read_text()
    sent = {line[1:] for line in (folder / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    answers = load_yaml((folder / ".copier-answers.yml").read_text())
    weights = {
        answers["model_source"],
        *(model["source"] for model in answers["more_models"]),
    }  # the team puts them there
    faults = [
        f"deploy/Dockerfile: copies {source}, which is not sent to the build"
        for line in re.findall(r"^COPY (?!--from)(.*) \S+$", text, re.M)
        for source in re.sub(r"--\S+ ", "", line).split()
        if source not in sent or not ((folder / source).exists() or f"./{source}" in weights)
    ]
    if not re.search(r"^USER (?!root|0)\S+", text.rsplit("\nFROM ", 1)[-1], re.M):
        faults.append("deploy/Dockerfile: runs as root")
    return faults + tool(folder, "hadolint", "deploy/Dockerfile")


def weights_in_image(folder: Path) -> Faults:
    """What the image takes from the hub, as the pinned `hf` understands its command: weights and tokenizer."""
    faults = []
    text = (folder / "deploy/Dockerfile").read_text().replace("\\\n", " ")
    for command in re.findall(r"\bhf (download .*)", text):
        module = "huggingface_hub.cli.download"
        with (
            patch(f"{module}.snapshot_download", return_value="") as many,
            patch(f"{module}.hf_hub_download", return_value=""),
            redirect_stdout(io.StringIO()),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")
            hf.app(shlex.split(command), standalone_mode=False)
        fetched = many.call_args.kwargs["allow_patterns"] if many.called else []
        missing = sorted({"*.safetensors", "*.json", "*.txt", "*.model"} - set(fetched))
        if missing:
            faults.append(f"deploy/Dockerfile: hf {command} leaves out {', '.join(missing)}")
    return faults


def makefile(folder: Path) -> Faults:
    """Every target is phony and listed by `make help`, which `make` alone runs too."""
    targets = set(re.findall(r"^([a-z][\w-]*):(?!=)", (folder / "Makefile").read_text(), re.M))
    phony = set(re.findall(r"[\w-]+", "".join(re.findall(r"^\.PHONY:(.*)", (folder / "Makefile").read_text(), re.M))))
    shown, default = (run(folder, "make", "-s", *goal).stdout for goal in (["help"], []))
    listed = set(re.findall(r"^\s+([\w-]+)\s+\S", shown, re.M))
    return [
        *(f"Makefile: {target} is not in `make help`" for target in sorted(targets - listed)),
        *(f"Makefile: {target} is not phony" for target in sorted(targets - phony)),
        *(["Makefile: `make` alone does not show the help"] if shown != default else []),
    ]


# ---- continuous integration ----------------------------------------------------------------------------------------

# Commits of releases, each read in the workflows of two trusted repositories.
PINS = {
    "actions/checkout": ("v7.0.1", "3d3c42e5aac5ba805825da76410c181273ba90b1"),
    "actions/setup-python": ("v7.0.0", "5fda3b95a4ea91299a34e894583c3862153e4b97"),
}
LONGEST_JOB_MINUTES = 60


def workflows(folder: Path) -> Faults:
    targets = set(re.findall(r"^([a-z][\w-]*):", (folder / "Makefile").read_text(), re.M))
    faults = []
    for path, text in texts_of(folder, ".github/workflows/*"):
        workflow = load_yaml(text)
        events = workflow[True]  # YAML reads `on` as true
        if "pull_request_target" in events:
            faults.append(f"{path}: pull_request_target hands secrets to strangers")
        if workflow.get("permissions") != {"contents": "read"}:
            faults.append(f"{path}: permissions are not `contents: read`")
        if not workflow.get("concurrency"):
            faults.append(f"{path}: has no concurrency")
        for name, job in workflow["jobs"].items():
            where = f"{path}, job {name}"
            if "permissions" in job:
                faults.append(f"{where}: widens the permissions")
            if not 0 < job.get("timeout-minutes", 0) <= LONGEST_JOB_MINUTES:
                faults.append(f"{where}: has no timeout-minutes up to {LONGEST_JOB_MINUTES}")
            for step in job["steps"]:
                action = step.get("uses", "").split("@")[0]
                if action == "actions/checkout" and step.get("with", {}).get("persist-credentials") is not False:
                    faults.append(f"{where}: checkout leaves its credentials behind")
                for target in re.findall(r"\bmake ([\w-]+)", step.get("run", "")):
                    if target not in targets:
                        faults.append(f"{where}: make {target} is no target")
        for uses in re.findall(r"uses: *(.*)", text):
            action = uses.split("@")[0]
            version, commit = PINS.get(action, ("", ""))
            if uses != f"{action}@{commit}  # {version}":
                faults.append(f"{path}: {uses} is not a commit that we know, with its version: see PINS in {__name__}")
    return faults


def pre_commit(folder: Path) -> Faults:
    """Hooks run from the development environment: nothing is fetched, and each command is a declared dependency's."""
    config = load_yaml((folder / ".pre-commit-config.yaml").read_text())
    installed = installed_in(prefix_of(folder))
    commands = set[str]().union(*(commands_of(installed[name_of(each)]) for each in declared(folder)[1]))
    return [
        *(f".pre-commit-config.yaml: {repo['repo']} is fetched" for repo in config["repos"] if repo["repo"] != "local"),
        *(
            f".pre-commit-config.yaml: {hook['entry'].split()[0]} is no command of a development dependency"
            for repo in config["repos"]
            for hook in repo["hooks"]
            if hook.get("language") == "system"
            and hook["entry"].split()[0] not in {f".venv/bin/{command}" for command in commands}
        ),
        *tool(folder, "pre-commit", "validate-config"),
    ]


def hooks(folder: Path) -> Faults:
    """What `make lint` finds in a service that was just generated, of which `folder` is a copy to spoil: nothing."""
    run(folder, "git", "init", "--quiet")
    (folder / ".venv").mkdir()
    (folder / ".venv/bin").symlink_to(BIN)
    (folder / ".venv/.installed").touch()
    with patch.dict(os.environ, PRE_COMMIT_HOME=f"{folder}-hooks"):
        done = run(folder, "make", "-s", "lint")
    staged = run(folder, "git", "ls-files").stdout.splitlines()
    return [
        *((done.stdout + done.stderr).splitlines() if done.returncode else []),
        *(f"make lint has put {name} into the index" for name in staged),
    ]


def ownership(folder: Path) -> Faults:
    """ownership.yml names files and folders that are there."""
    team = load_yaml((folder / "ownership.yml").read_text())["team"]
    return [
        f"ownership.yml: {entry} matches no file"
        for entry in team
        if not any(path == entry or (entry.endswith("/") and path.startswith(entry)) for path in files_of(folder))
    ]


# ---- settings ------------------------------------------------------------------------------------------------------


@functools.cache
def settings_of_text(text: str) -> types.ModuleType:
    name = f"rendered_settings_{hashlib.sha256(text.encode()).hexdigest()[:12]}"
    module = types.ModuleType(name)
    sys.modules[name] = module  # pydantic looks annotations up there
    exec(compile(text, name, "exec"), module.__dict__)  # noqa: S102 our own file
    return module


def settings_of(folder: Path) -> types.ModuleType:
    """The rendered module service.runtime.settings, which needs neither torch nor Ray."""
    return settings_of_text((folder / "service/runtime/settings.py").read_text())


def limits(where: str, model: dict[str, Any], batch: dict[str, Any], objective_ms: float) -> Faults:
    """What holds between the settings of one model in both serving modes."""
    rules = {
        "a batch waits as long as the objective, or longer": batch["batch_wait_ms"] >= objective_ms,
        "a batch of short texts cannot fill": batch["max_batch_tokens"] < 8 * batch["max_batch_size"],
        "the queue holds no two batches": batch["max_queue_length"] < 2 * batch["max_batch_size"],
        "the timeout is below the objective": model["request_timeout_s"] * 1000 < objective_ms,
    }
    return [f"{where}: {rule}" for rule, broken in rules.items() if broken]


def container_settings(folder: Path) -> Faults:
    path = folder / "config/service.yaml"
    if not path.exists():
        return []
    settings = settings_of(folder)
    try:
        loaded = settings.load_service_settings(path)
    except settings.SettingsError as error:
        return [f"config/service.yaml: {error}"]
    answers = load_yaml((folder / ".copier-answers.yml").read_text())
    return [
        fault
        for model in loaded.models
        for fault in limits(
            f"config/service.yaml, {model.name}",
            model.model_dump(),
            model.batch.model_dump(),
            answers["latency_objective_ms"],
        )
    ]


def unknown_keys(value: Any, annotation: Any, where: str) -> Faults:
    """Keys that Ray's schema does not have: Serve would ignore them in silence."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel) and isinstance(value, dict):
        fields = {field.alias or name: field.annotation for name, field in annotation.model_fields.items()}
        return [
            fault
            for key, item in value.items()
            for fault in (
                unknown_keys(item, fields[key], f"{where}.{key}")
                if key in fields
                else [f"{where}.{key}: Serve has no such key"]
            )
        ]
    arguments = typing.get_args(annotation)
    if isinstance(value, list) and arguments:
        return [
            fault for index, item in enumerate(value) for fault in unknown_keys(item, arguments[0], f"{where}[{index}]")
        ]
    for argument in arguments:  # of a union, the model is the strict one
        if isinstance(argument, type) and issubclass(argument, BaseModel):
            return unknown_keys(value, argument, where)
    return []


def retrieval_config(folder: Path) -> Faults:
    """config/retrieval.yaml names a model of the service, in the revision that is served."""
    path = folder / "config/retrieval.yaml"
    if not path.exists():
        return []
    config = load_yaml(path.read_text())
    served = folder / "config/service.yaml"
    if served.exists():
        revisions = {model["name"]: model["revision"] for model in load_yaml(served.read_text())["models"]}
    else:
        applications = load_yaml((folder / "config/serve.yaml").read_text())["applications"]
        revisions = {app["name"]: app["args"].get("revision") for app in applications}
    answers = load_yaml((folder / ".copier-answers.yml").read_text())
    rules = {
        f"embeds with {config['embedder']}, which is no model": config["embedder"] not in revisions,
        "names another revision of the embedding model": revisions.get(config["embedder"]) != config["revision"],
        "waits as long as the objective": config["deadline_ms"] >= max(21, answers["latency_objective_ms"]),
    }
    return [f"config/retrieval.yaml: {rule}" for rule, broken in rules.items() if broken]


@functools.cache
def switches_of_ray() -> str:
    """The sources in which Ray and Ray Serve name the environment variables that they read."""
    ray = importlib.util.find_spec("ray")
    assert ray is not None
    assert ray.submodule_search_locations is not None
    (folder,) = ray.submodule_search_locations
    return "\n".join(
        (Path(folder) / name).read_text() for name in ("_private/ray_constants.py", "serve/_private/constants.py")
    )


def serve_config(folder: Path) -> Faults:
    """The Serve config passes Ray's own schema, has no key that Serve would ignore, and keeps the design's rules."""
    path = folder / "config/serve.yaml"
    if not path.exists():
        return []
    from pydantic import ValidationError
    from ray.serve.schema import ServeDeploySchema

    config = load_yaml(path.read_text())
    settings = settings_of(folder)
    answers = load_yaml((folder / ".copier-answers.yml").read_text())
    faults = unknown_keys(config, ServeDeploySchema, "config/serve.yaml")
    try:
        ServeDeploySchema.model_validate(config)
        models = [app for app in config["applications"] if app["name"] != "front"]
        for app in models:
            args = dict(app["args"])
            if args.pop("alone") != (len(models) == 1):
                faults.append(
                    f"config/serve.yaml, {app['name']}: alone is {app['args']['alone']} of {len(models)} models"
                )
            if args.pop("latency_objective_ms") != answers["latency_objective_ms"]:
                faults.append(f"config/serve.yaml, {app['name']}: promises another latency than the answers")
            settings.ModelSettings.model_validate(args)
            for deployment in app["deployments"]:
                settings.BatchLimits.model_validate(deployment["user_config"])
    except (ValidationError, KeyError) as error:
        return [*faults, f"config/serve.yaml: {error}"]
    for key in ("name", "route_prefix"):
        values = [app[key] for app in config["applications"]]
        if len(set(values)) < len(values):
            faults.append(f"config/serve.yaml: a {key} stands twice in {values}")
    fronts = [app for app in config["applications"] if app not in models]
    if [front["args"]["models"] for front in fronts] != ([[app["name"] for app in models]] if len(models) > 1 else []):
        faults.append("config/serve.yaml: the front does not list the models")
    for app in models:
        for deployment in app["deployments"]:
            try:
                faults += model_deployment(config, app["args"], deployment, answers)
            except KeyError as error:
                faults.append(f"config/serve.yaml, {app['name']}: has no {error}")
    for name in re.findall(r"^(\w+)=", (folder / "config/ray.env").read_text(), re.M):
        if f'"{name}"' not in switches_of_ray():
            faults.append(f"config/ray.env: Ray of this version reads no {name}")
    return faults


def model_deployment(config: dict[str, Any], args: dict[str, Any], deployment: dict[str, Any], answers: Any) -> Faults:
    """The rules between the numbers of one model's deployment."""
    batch, scaling = deployment["user_config"], deployment["autoscaling_config"]
    ongoing, share = deployment["max_ongoing_requests"], deployment["ray_actor_options"]["num_gpus"]
    per_card = math.floor(1 / share) if share else 0
    fraction = args["gpu_memory_fraction"]
    rules = {
        f"max_ongoing_requests {ongoing} leaves no room for two batches": ongoing < 2 * batch["max_batch_size"],
        f"max_ongoing_requests {ongoing} hides the queue's own 429": ongoing <= batch["max_queue_length"],
        "the target is not below max_ongoing_requests": scaling["target_ongoing_requests"] >= ongoing,
        "min_replicas is above max_replicas": scaling["min_replicas"] > scaling["max_replicas"],
        "Ray gives a request up before the service does": config["http_options"]["request_timeout_s"]
        <= args["request_timeout_s"],
        "a replica is stopped before its last request can end": deployment["graceful_shutdown_timeout_s"]
        <= args["request_timeout_s"],
        f"a share of {share} is more than a card": not 0 <= share <= 1,
        f"a share of {share} is finer than Ray's 0.0001": round(share, 4) != share,
        f"{per_card} replicas of {share} are more than a card": per_card * share > 1,
        "a memory limit without a share, or a share without one": (fraction is None) != (share == 0),
        "the replicas of one card may take more than 0.9 of its memory": per_card * (fraction or 0) > 0.9,
    }
    where = f"config/serve.yaml, {args['name']}"
    faults = [f"{where}: {rule}" for rule, broken in rules.items() if broken]
    return faults + limits(where, args, batch, answers["latency_objective_ms"])


# Check -> the files that it reads. Renders that agree in those are checked once.
CHECKS: dict[Check, tuple[str, ...]] = {
    unrendered: ("*",),
    empty: ("*",),
    names_illegal_on_windows: ("*",),
    banned: ("*",),
    paths_that_documents_name: ("*",),
    modules_that_are_not_there: ("*.py", "Makefile", "deploy/*", "config/*"),
    undeclared_or_unused: ("*.py", "pyproject.toml", "Makefile", ".pre-commit-config.yaml", ".github/*"),
    constraints: ("pyproject.toml", "constraints.txt"),
    one_version_of_ray: ("pyproject.toml", "constraints.txt", "deploy/Dockerfile"),
    data_files: ("*",),
    yaml_style: ("*.yml", "*.yaml"),
    dockerfile: ("deploy/*", ".dockerignore"),
    weights_in_image: ("deploy/Dockerfile",),
    makefile: ("Makefile",),
    workflows: (".github/*", "Makefile"),
    pre_commit: (".pre-commit-config.yaml", "pyproject.toml"),
    ownership: ("*",),
    container_settings: ("*.yml", "*.yaml", "service/runtime/settings.py"),
    retrieval_config: ("*.yml", "config/*"),
    serve_config: ("*.yml", "*.yaml", "config/*", "service/runtime/settings.py"),
}
