"""Alerts fire when they should and only then, name what exists, and each has its runbook."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.manifests.schemas import schema_faults
from tests.observe.promql import (
    BY_MODEL,
    OF_DATABASE,
    OF_OBJECTIVE,
    OF_SERVICE,
    catalogue,
    metrics_of,
    recorded_by,
    unknown,
)
from tests.observe.variants import VARIANTS
from tests.rendering import recorded_answers
from tests.variants import ROOT

# Runbooks that no alert leads to.
PROCEDURES = {"restore-qdrant", "upgrade-qdrant"}
ALERTS = "monitoring/alerts"
# What the version before mends.
BEGUN_BY_A_DEPLOYMENT = {
    "AvailabilityBudgetBurningFast",
    "LatencyBudgetBurningFast",
    "NoReplicaReady",
    "ReplicasRestarting",
    "SearchHasNoIndex",
}
# Commands of kubectl about nodes, which are in no namespace.
OF_THE_CLUSTER = ("drain ", "debug node/", "top node")
# Cards and what Kubernetes counts are no service's own.
OF_NOBODY = ("DCGM_", "kube_", "kubelet_")


@pytest.fixture(params=VARIANTS)
def service(request: pytest.FixtureRequest, observed: dict[str, Path]) -> Path:
    return observed[request.param]


def promtool(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    program = shutil.which("promtool")
    assert program, "promtool is not on the PATH: install Prometheus (on Debian: apt-get install prometheus)"
    return subprocess.run([program, *arguments], cwd=folder, check=False, capture_output=True, text=True, timeout=300)


def rules(folder: Path) -> list[dict[str, Any]]:
    files = sorted((folder / ALERTS).glob("*.rules.yaml"))
    return [rule for file in files for group in yaml.safe_load(file.read_text())["groups"] for rule in group["rules"]]


def alerts(folder: Path) -> list[dict[str, Any]]:
    return [rule for rule in rules(folder) if "alert" in rule]


def serving(folder: Path) -> str:
    return str(recorded_answers(folder)["serving"])


def faults(folder: Path) -> list[str]:
    """What the expressions of all rules name that does not exist."""
    series, recorded = catalogue(serving(folder)), recorded_by(rules(folder))
    return [fault for rule in rules(folder) for fault in unknown(rule["expr"], series, recorded)]


def test_promtool_finds_no_fault_in_the_rules(service: Path) -> None:
    for file in (service / ALERTS).glob("*.rules.yaml"):
        done = promtool("check", "rules", "--lint=all", "--lint-fatal", file.name, folder=service / ALERTS)
        assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_fires_when_it_should_and_only_then(service: Path) -> None:
    done = promtool("test", "rules", "service.test.yaml", folder=service / ALERTS)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_is_seen_firing_by_a_test(service: Path) -> None:
    fired = set[str]()
    for file in (service / ALERTS).glob("*.test.yaml"):
        for test in yaml.safe_load(file.read_text())["tests"]:
            for question in test["promql_expr_test"]:
                for sample in question.get("exp_samples", []):
                    fired |= set(re.findall(r'alertname="(\w+)"', sample["labels"]))
    assert fired == {rule["alert"] for rule in alerts(service)}


@pytest.mark.parametrize("alert", ["LatencyBudgetBurningSlowly", "PaddingWaste"])
@pytest.mark.parametrize("expression", ["vector(1) > 2", "vector(1)"])
def test_a_rule_that_never_fires_or_always_does_is_noticed(
    observed: dict[str, Path], alert: str, expression: str, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(observed["container"] / ALERTS, tmp_path / "alerts"))
    content = yaml.safe_load((folder / "service.rules.yaml").read_text())
    (rule,) = (rule for group in content["groups"] for rule in group["rules"] if rule.get("alert") == alert)
    rule |= {"expr": expression, "for": "0m"}
    (folder / "service.rules.yaml").write_text(yaml.safe_dump(content))
    assert promtool("test", "rules", "service.test.yaml", folder=folder).returncode == 1


def test_every_metric_and_label_in_a_rule_exists(service: Path) -> None:
    assert not faults(service)


@pytest.mark.parametrize(
    ("right", "wrong", "said"),
    [
        ("ray_service_replica_ready{", "ray_service_replicas_ready{", "there is no metric ray_service_replicas_ready"),
        ("ray_service_queue_inputs{", "service_queue_inputs{", "there is no metric service_queue_inputs"),
        ("ray_service_request_seconds_count{", "ray_service_request_seconds_sum{", "no metric ray_service_request_sec"),
        ("slo:sli_error:increase6h{", "slo:sli_error:increase7h{", "there is no metric slo:sli_error:increase7h"),
        ('outcome="stale"', 'outcom="stale"', "has no label outcom"),
        ("by (namespace, model, view)", "by (namespace, model, views)", "has no label views"),
    ],
)
def test_a_name_that_does_not_exist_is_refused(
    observed: dict[str, Path], right: str, wrong: str, said: str, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(observed["ray-with-everything"], tmp_path / "service"))
    file = folder / ALERTS / "service.rules.yaml"
    assert right in file.read_text()
    # Where it is used, not where it is recorded.
    file.write_text(file.read_text().replace(right, wrong))
    assert any(said in fault for fault in faults(folder))


def test_labels_are_found_where_they_are_expected() -> None:
    for expression, found in {
        "sum by (m) (rate(a{x='1'}[5m]))": [("a", {"x", "m"})],
        "sum by (m) (a and on (n) b)": [("a", {"m", "n"}), ("b", {"n"})],
        "sum by (m, q) (a / on (n) group_left (q) b)": [("a", {"m", "n"}), ("b", {"n", "q"})],
        "sum by (m) (a * on (n) group_right (q) b)": [("a", {"n", "q"}), ("b", {"m", "n"})],
        "max by (new) (label_replace(a, 'new', '$1', 'old', '(.*)'))": [("a", {"old"})],
        "max_over_time(sum by (m) (a offset 1d)[1h:5m]) > 0.5 or vector(0)": [("a", {"m"})],
        "{__name__='a', x='1'}": [("a", {"x"})],
    }.items():
        assert metrics_of(expression) == found, expression


def test_recorded_series_have_the_labels_that_they_are_said_to_have(service: Path) -> None:
    for rule in rules(service):
        if "record" in rule:
            assert set(rule.get("labels", {})) <= OF_OBJECTIVE, rule["record"]
            more = set() if rule["record"].startswith("slo:") else {OF_SERVICE}
            for labels in re.findall(r"by \((.*?)\)", rule["expr"]):
                assert set(labels.split(", ")) == BY_MODEL | more, rule["record"]


def test_every_series_of_a_rule_is_asked_for_by_the_name_of_the_service(service: Path) -> None:
    """Another service in the same Prometheus may have the same models, and a Qdrant with the same names."""
    name = recorded_answers(service)["service_name"]
    own = [f'{label}="{name}"' for label in (OF_SERVICE, OF_DATABASE, "sloth_service")]
    for rule in rules(service):
        scraped = [metric for metric, _ in metrics_of(rule["expr"]) if not metric.startswith(OF_NOBODY)]
        assert sum(map(rule["expr"].count, own)) == len(scraped), rule


def test_all_that_is_scraped_carries_what_the_rules_ask_for(service: Path) -> None:
    name = recorded_answers(service)["service_name"]
    monitors = list((service / "deploy/cloud").glob("podmonitor*.yaml"))
    assert monitors
    for path in monitors:
        spec = yaml.safe_load(path.read_text())["spec"]
        assert spec["podTargetLabels"] == ["app.kubernetes.io/name"], path.name
        # Else a pod without the label, or with another name in it, would be scraped and not be seen.
        assert spec["selector"]["matchLabels"]["app.kubernetes.io/name"] == name, path.name
    for scrape in yaml.safe_load((service / "monitoring/prometheus.yml").read_text())["scrape_configs"]:
        assert all(each["labels"][OF_SERVICE] == name for each in scrape["static_configs"])
    if (database := service / "deploy/qdrant").exists():
        spec = yaml.safe_load((database / "servicemonitor.yaml").read_text())["spec"]
        assert spec["targetLabels"] == ["app.kubernetes.io/part-of"]
        scraped = yaml.safe_load((database / "service-headless.yaml").read_text())["metadata"]["labels"]
        assert scraped.items() >= {**spec["selector"]["matchLabels"], "app.kubernetes.io/part-of": name}.items()


def test_no_rule_reads_the_sum_of_a_histogram(service: Path) -> None:
    histograms = {
        metric["name"]
        for metric in yaml.safe_load((ROOT / "extensions" / "metrics.yml").read_text())
        if metric["kind"] == "histogram"
    }
    for rule in rules(service):
        for name, _ in metrics_of(rule["expr"]):
            assert name.removeprefix("ray_").removesuffix("_sum") not in histograms


def test_every_alert_says_in_words_what_is_wrong_and_whom_it_calls(service: Path) -> None:
    for rule in alerts(service):
        assert rule["labels"]["severity"] in ("page", "ticket"), rule["alert"]
        assert rule["labels"].keys() - {"severity"} in ({"owner"}, {"on_call"}), rule["alert"]
        assert len(rule["annotations"]["summary"].split()) > 3, rule["alert"]
        assert len(rule["annotations"]["description"].split()) > 8, rule["alert"]
        assert rule["annotations"]["runbook"] == f"runbooks/{rule['alert']}.md"


def test_alerts_and_runbooks_are_the_same(service: Path) -> None:
    named = [rule["alert"] for rule in alerts(service)]
    assert len(set(named)) == len(named)
    assert {path.stem for path in (service / "runbooks").iterdir()} - PROCEDURES == set(named)


def test_a_runbook_is_short_and_says_what_it_means_how_to_confirm_and_what_to_do(service: Path) -> None:
    for rule in alerts(service):
        text = (service / f"runbooks/{rule['alert']}.md").read_text()
        assert text.startswith(f"# {rule['alert']}\n\n")
        assert "\n## Confirm\n" in text
        assert "\n## Do\n" in text
        assert len(text.splitlines()) <= 40, rule["alert"]
        assert "\n\n\n" not in text, rule["alert"]


def test_a_runbook_leads_only_to_what_is_there(service: Path) -> None:
    for path in (service / "runbooks").iterdir():
        text = path.read_text()
        for name in re.findall(r"`([\w-]+\.md)`", text):
            assert (service / "runbooks" / name).exists(), f"{path.name}: {name}"
        for name in re.findall(r"[ `]((?:config|deploy|jobs|service)/[\w./-]+)", text):
            assert (service / name.rstrip(".")).exists(), f"{path.name}: {name}"
        targets = re.findall(r"^(\w+):", (service / "Makefile").read_text(), re.MULTILINE)
        for target in re.findall(r"(?:`|^ +)make ([a-z]+)", text, re.MULTILINE):
            assert target in targets, f"{path.name}: make {target}"


def test_every_query_of_a_runbook_names_what_exists(service: Path) -> None:
    series, recorded = catalogue(serving(service)), recorded_by(rules(service))
    asked = 0
    for path in (service / "runbooks").iterdir():
        for query in re.findall(r"promtool query instant \$PROMETHEUS '(.*)'$", path.read_text(), re.MULTILINE):
            asked += 1
            assert not unknown(query, series, recorded), f"{path.name}: {query}"
    assert asked > 10


def test_every_answer_that_a_runbook_changes_is_a_question(service: Path) -> None:
    questions = yaml.safe_load((ROOT / "copier.yml").read_text())
    for path in (service / "runbooks").iterdir():
        text = path.read_text()
        for key in re.findall(r"--data (\w+)=", text):
            assert key in questions, f"{path.name}: {key}"
        # Else every question is asked again.
        assert text.count("copier update") == text.count("copier update --defaults --data"), path.name


def test_every_command_of_a_runbook_says_where_it_looks(service: Path) -> None:
    name = recorded_answers(service)["service_name"]
    exposed = {"qdrant", name if serving(service) == "container" else f"{name}-serve-svc"}
    for path in (service / "runbooks").iterdir():
        text = path.read_text()
        commands = [each for each in re.findall(r"\bkubectl (\S+ \S+)", text) if not each.startswith(OF_THE_CLUSTER)]
        assert [each for each in commands if not each.startswith("-n $NAMESPACE")] == [], path.name
        if commands:
            first = text.index("kubectl -n $NAMESPACE")
            assert f"    NAMESPACE={name}-production\n" in text[:first], path.name
        assert set(re.findall(r"port-forward svc/(\S+)", text)) <= exposed, path.name
        assert set(re.findall(r"\$([A-Z]+)", text)) <= {"CONTEXT", "KEY", "NAMESPACE", "PROMETHEUS"}, path.name
        if ":8000/" in text:
            assert text.index("port-forward svc/") < text.index(":8000/"), path.name


def test_a_runbook_goes_back_first_where_a_deployment_may_have_begun_it(service: Path) -> None:
    by_hand = recorded_answers(service)["gitops"] == "none"
    command = "`make rollback ENV=production CONTEXT=...`" if by_hand else "`git revert` it and push"
    for path in (service / "runbooks").iterdir():
        text = " ".join(path.read_text().split())
        assert ("It began with a deployment" in text) == (path.stem in BEGUN_BY_A_DEPLOYMENT), path.name
        assert (f"go back first, {command}" in text) == (path.stem in BEGUN_BY_A_DEPLOYMENT), path.name
        assert "go back to" not in text, path.name


def test_the_page_of_alerts_lists_each_with_its_severity_and_each_recorded_series(observed: dict[str, Path]) -> None:
    text = (ROOT / "docs" / "reference" / "alerts.md").read_text()
    all_rules = [rule for folder in observed.values() for rule in rules(folder)]
    listed = re.findall(r"^\| `(\w+)` \| (page|ticket) \|", text, re.MULTILINE)
    assert set(listed) == {(rule["alert"], rule["labels"]["severity"]) for rule in all_rules if "alert" in rule}
    assert len(set(listed)) == len(listed)
    series = set[str]()
    for cell in re.findall(r"^\| (`\w+:.*?`) \|", text, re.MULTILINE):
        first, *windows = re.findall(r"`(.*?)`", cell)
        series |= {first} | {re.sub(r"\d+[mhd]$", window, first) for window in windows}
    assert series == recorded_by(all_rules).keys()


def test_the_alerts_that_show_a_failure_are_there(service: Path) -> None:
    rows = [line.split(" | ") for line in (service / "ARCHITECTURE.md").read_text().splitlines() if " | " in line]
    named = {name for row in rows for name in re.findall(r"`((?:[A-Z][a-z]+){2,})`", row[2])}
    assert named
    assert named <= {rule["alert"] for rule in alerts(service)}


def test_the_operator_of_prometheus_gets_the_same_rules(service: Path) -> None:
    found = yaml.safe_load((service / "monitoring/prometheusrule.yaml").read_text())
    assert schema_faults("prometheusrule.yaml", found) == []
    assert found["spec"] == yaml.safe_load((service / "monitoring/alerts/service.rules.yaml").read_text())
