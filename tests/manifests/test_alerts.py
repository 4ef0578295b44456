"""Alerts on Qdrant fire when they should and only then, and their runbooks name objects that are there.

What holds for all alerts is in tests/observe.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml


def promtool(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    program = shutil.which("promtool")
    assert program, "promtool is not on the PATH: install Prometheus (on Debian: apt-get install prometheus)"
    return subprocess.run([program, *arguments], cwd=folder, check=False, capture_output=True, text=True, timeout=60)


def rules(folder: Path) -> list[dict[str, object]]:
    groups = yaml.safe_load((folder / "monitoring/alerts/qdrant.rules.yaml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


@pytest.mark.parametrize("factor", ["2", "3"])
def test_promtool_finds_no_fault_in_the_rules(service: Path, factor: str) -> None:
    folder = service.parent / factor / "monitoring/alerts"
    done = promtool("check", "rules", "--lint=all", "--lint-fatal", "qdrant.rules.yaml", folder=folder)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("factor", ["2", "3"])
def test_every_alert_fires_when_it_should_and_only_then(service: Path, factor: str) -> None:
    done = promtool("test", "rules", "qdrant.test.yaml", folder=service.parent / factor / "monitoring/alerts")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("alert", range(9))
def test_the_tests_of_the_alerts_notice_one_that_never_fires_or_always_does(
    service: Path, alert: int, tmp_path: Path
) -> None:
    for expression in ("vector(1) > 2", "vector(1)"):
        folder = Path(shutil.copytree(service / "monitoring/alerts", tmp_path / expression.replace(" ", "")))
        content = yaml.safe_load((folder / "qdrant.rules.yaml").read_text())
        content["groups"][0]["rules"][alert]["expr"] = expression
        content["groups"][0]["rules"][alert]["for"] = "0m"
        (folder / "qdrant.rules.yaml").write_text(yaml.safe_dump(content))
        assert promtool("test", "rules", "qdrant.test.yaml", folder=folder).returncode == 1, expression


def test_there_are_as_many_alerts_as_are_tried(service: Path) -> None:
    assert len(rules(service)) == 9


def test_the_rule_file_and_the_object_of_the_operator_hold_the_same_alerts(service: Path) -> None:
    plain = yaml.safe_load((service / "monitoring/alerts/qdrant.rules.yaml").read_text())
    assert yaml.safe_load((service / "deploy/qdrant/prometheusrule.yaml").read_text())["spec"] == plain


def test_every_alert_says_in_words_what_is_wrong_and_whom_it_calls(service: Path) -> None:
    for rule in rules(service):
        assert rule["labels"]["severity"] in ("page", "ticket")  # type: ignore[index]
        assert rule["labels"]["on_call"] == "data-platform"  # type: ignore[index]
        annotations: dict[str, str] = rule["annotations"]  # type: ignore[assignment]
        assert len(annotations["summary"].split()) > 3
        assert len(annotations["description"].split()) > 8
        assert annotations["runbook"] == f"runbooks/{rule['alert']}.md"


def test_a_runbook_says_what_it_means_how_to_confirm_and_what_to_do(service: Path) -> None:
    for rule in rules(service):
        text = (service / f"runbooks/{rule['alert']}.md").read_text()
        assert text.startswith(f"# {rule['alert']}\n")
        assert "## Confirm" in text
        assert "## Do" in text


def test_a_runbook_names_only_labels_objects_and_jobs_that_are_there(service: Path) -> None:
    deployed = "\n".join(path.read_text() for path in (service / "deploy").rglob("*.yaml"))
    for path in (service / "runbooks").iterdir():
        text = path.read_text()
        for label, value in re.findall(r"(app\.kubernetes\.io/\w+)=([\w-]+)", text):
            assert f"{label}: {value}" in deployed, path.name
        for kind, name in re.findall(r"\b(cronjob|statefulset|svc)/([\w-]+)", text):
            kinds = {"cronjob": "CronJob", "statefulset": "StatefulSet", "svc": "Service"}
            assert re.search(rf"kind: {kinds[kind]}\nmetadata:\n  name: {name}\n", deployed), (
                f"{path.name}: {kind}/{name}"
            )
