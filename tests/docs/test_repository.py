"""Our own house: pins that agree, a workflow with least privilege, no address in a file that is not meant."""

import re
import subprocess

import pytest
import yaml

from tests.docs.documents import ROOT
from tests.variants import choices_of

PINS = {
    "actions/checkout": "3d3c42e5aac5ba805825da76410c181273ba90b1",
    "actions/setup-python": "5fda3b95a4ea91299a34e894583c3862153e4b97",
}
# Hosts that a file may name; what is installed comes from wherever the reader's tools are set to.
HOSTS = re.compile(
    r"(127\.0\.0\.1|localhost|(\w+\.)?example\.com|hub|qdrant[\w.-]*|copier\.readthedocs\.io|github\.com|"
    r"kubernetes\.default\.svc)"
)


def pins_of(path: str) -> dict[str, str]:
    lines = (ROOT / path).read_text().splitlines()
    return dict(line.split(";")[0].split("==") for line in lines if line and not line.startswith("#"))


def tracked() -> list[str]:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    return [name for name in listed.stdout.splitlines() if (ROOT / name).is_file()]


def test_requirements_are_names_and_versions_only() -> None:
    for line in (ROOT / "requirements.txt").read_text().splitlines():
        assert re.fullmatch(r"[a-z0-9-]+==[0-9][0-9a-z.]*", line), line


@pytest.mark.parametrize("serving", choices_of("serving"))
def test_we_test_with_the_versions_that_a_service_ships(serving: str) -> None:
    ours, theirs = pins_of("requirements.txt"), pins_of(f"extensions/constraints/{serving}.txt")
    differing = {name: (version, ours.get(name)) for name, version in theirs.items() if ours.get(name) != version}
    assert not differing, "run `make lock`"


def test_what_we_ask_for_is_pinned() -> None:
    asked = [
        re.split(r"[\[>=<]", line)[0]
        for line in (ROOT / "requirements.in").read_text().splitlines()
        if line[:1].isalpha()
    ]
    assert set(asked) <= pins_of("requirements.txt").keys(), "run `make lock`"


def test_the_installer_is_the_one_that_is_pinned() -> None:
    version = re.search(r"UV_VERSION := (\S+)", (ROOT / "Makefile").read_text())
    assert version is not None
    theirs = yaml.safe_load((ROOT / "extensions/versions.yml").read_text())["uv"]
    assert version[1] == theirs == pins_of("requirements.txt")["uv"]


def test_no_file_names_a_host_but_those_that_are_meant() -> None:
    for name in tracked():
        for host in re.findall(r"https?://([\w.-]+)", (ROOT / name).read_text(errors="replace")):
            assert HOSTS.fullmatch(host), f"{name}: {host}"


def test_every_make_target_is_listed_by_help() -> None:
    makefile = (ROOT / "Makefile").read_text()
    phony = re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    assert phony is not None
    listed = subprocess.run(
        ["make", "--no-print-directory", "help"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout
    assert set(phony[1].split()) == {line.split()[0] for line in listed.splitlines()}


def test_ci_runs_the_command_that_a_person_runs() -> None:
    assert "make test" in (ROOT / ".ci" / "run").read_text()


def test_the_workflow_brings_the_schemas_that_the_tests_of_the_manifests_read() -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    steps = workflow["jobs"]["template"]["steps"]
    runs = [step.get("run", "") for step in steps]
    assert runs.index("make crds") < next(index for index, run in enumerate(runs) if "make test" in run)
    assert steps[-1]["env"] == {"RAYPATH_CRDS": "work/crds"}


def test_the_workflow_is_pinned_bounded_and_may_only_read() -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    assert workflow["permissions"] == {"contents": "read"}
    assert workflow["concurrency"]
    for job in workflow["jobs"].values():
        assert "permissions" not in job
        assert job["timeout-minutes"] <= 60
        for step in job["steps"]:
            if "uses" in step:
                action, commit = step["uses"].split("@")
                assert PINS[action] == commit
                if action == "actions/checkout":
                    assert step["with"]["persist-credentials"] is False
            else:
                assert "${{" not in step["run"], "hand values over by env, not by text in a script"
