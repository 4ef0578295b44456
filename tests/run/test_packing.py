"""Plans of random model sets, put to Ray itself: replicas land where the plan says, or the answers are refused."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.rendering import compiled_once, refused, render
from tests.variants import ROOT, Answers

SEED = 5
SETS = 20
MOST_PODS = 4
SHARES = [0, 0.2, 0.25, 0.3, 0.3333, 0.4, 0.5, 0.6, 0.7, 1]
Case = dict[str, Any]


def drawn(pick: random.Random) -> Answers:
    """One to three models; now and then a share, or a number of replicas, that cannot hold."""
    rps = pick.choice([5, 5, 5, 20, 20, 1500])
    models = []
    for number in range(pick.choice([1, 2, 3, 3])):
        most = pick.randint(1, 3)
        share = pick.choice(SHARES) if pick.random() < 0.95 else 0.02
        models.append(
            {
                "name": f"model-{number}",
                "gpu_share": share,
                "dtype": "bfloat16",
                "min_replicas": pick.choice([1, 1, most]),
                "max_replicas": most,
            }
        )
    first, *others = models
    return {
        "serving": "ray",
        "gpu_type": "l4",
        "expected_rps": rps,
        **{f"model_{key}": value for key, value in first.items()},
        "more_models": [{**model, "source": "./weights", "revision": "v1"} for model in others],
        **({"gpu_sharing": "mps"} if {first["gpu_share"]} == {model["gpu_share"] for model in models} == {0.5} else {}),
    }


class Planner:
    """The template as it stands, with one file more: the plan."""

    def __init__(self, template: Path, folder: Path) -> None:
        self._template = Path(shutil.copytree(template, folder / "template"))
        (self._template / "template" / "plan.json.jinja").write_text("{{ plan | to_json }}\n")
        self._renders = folder

    def answer(self, answers: Answers) -> tuple[dict[str, Any], dict[str, Any]]:
        """The plan, and the Serve config. A ValueError holds the words of a refusal."""
        folder = Path(tempfile.mkdtemp(dir=self._renders))
        with compiled_once():
            render(self._template, folder, answers)
        config = yaml.safe_load((folder / "config/serve.yaml").read_text())
        return json.loads((folder / "plan.json").read_text()), config

    def refusal_or(self, answers: Answers) -> tuple[str, dict[str, Any] | None, dict[str, Any] | None]:
        try:
            return "", *self.answer(answers)
        except ValueError as error:
            if not refused(error):
                raise
            return str(error), None, None


def case_of(plan: dict[str, Any], config: dict[str, Any], pick: random.Random) -> Case:
    """The pods at most, all replicas at most in any order, and for each model one more than its places."""
    several = len(plan["models"]) > 1
    pods, replicas, extra = [], [], []
    for group in plan["groups"]:
        slots = {f"slot-{name}": number for name, number in group["slots"].items()} if several else {}
        pod = {"num_cpus": group["num_cpus"], "num_gpus": int(group["gpu"]), "resources": slots}
        pods += [pod] * group["max_pods"]
    for application in config["applications"]:
        (deployment,) = application["deployments"]
        name, asked = application["name"], deployment["ray_actor_options"]
        if name in plan["models"] and several:
            place = {f"slot-{name}": 1}
            assert asked.setdefault("resources", place) == place
        most = deployment["autoscaling_config"]["max_replicas"]
        replicas += [[name, asked]] * most
        for group in plan["groups"]:
            if name in group["slots"]:
                extra += [[name, asked]] * (group["max_pods"] * group["slots"][name] - most + 1)
    pick.shuffle(replicas)
    pick.shuffle(extra)
    return {"pods": pods, "replicas": replicas, "extra": extra, "wait_s": 60}


def faults(plan: dict[str, Any], case: Case, answer: dict[str, Any]) -> Iterator[str]:
    """What Ray did otherwise than the plan says."""
    places = {name: (group, slots) for group in plan["groups"] for name, slots in group["slots"].items()}
    groups = [group["name"] for group in plan["groups"] for _ in range(group["max_pods"])]
    for (name, pod), number in Counter(map(tuple, answer["placed"])).items():
        if name in places:  # the front has room on any pod
            group, slots = places[name]
            if groups[pod] != group["name"]:
                yield f"{name} is on a pod of {groups[pod]}"
            elif number > slots:
                yield f"{number} replicas of {name} are on one pod, planned were {slots}"
    placed = Counter(name for name, _ in answer["placed"])
    for name, (group, slots) in places.items():
        if placed[name] != group["max_pods"] * slots:
            yield f"{placed[name]} replicas of {name} found a place, planned were {group['max_pods']} x {slots}"
    if sorted(answer["pending"]) != sorted(places):
        yield f"{answer['pending']} wait, planned was one of each of {sorted(places)}"


@pytest.fixture(scope="module")
def planner(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Planner:
    return Planner(template, tmp_path_factory.mktemp("plans"))


def placed(cases: list[Case]) -> list[dict[str, Any]]:
    """What Ray did with each case; a failure shows what the cluster's GCS wrote."""
    folder = tempfile.mkdtemp(prefix="ray-")  # short: it holds sockets
    try:
        done = subprocess.run(
            [sys.executable, "-m", "tests.run.placement"],
            cwd=ROOT,
            env={**os.environ, "RAY_AUTH_MODE": "disabled", "RAY_TMPDIR": folder, "RAY_DEDUP_LOGS": "1"},
            input=json.dumps(cases),
            capture_output=True,
            check=False,
            text=True,
            timeout=600,
        )
        logs = [path.read_text()[-4000:] for path in Path(folder).glob("ray/session_latest/logs/gcs_server.*")]
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    assert done.returncode == 0, "\n".join([done.stderr[-4000:], *logs])
    return [json.loads(line) for line in done.stdout.splitlines()]


def remedied(answers: Answers, message: str) -> Answers:
    """The answers with the number that the refusal asks for."""
    share = re.search(r"raise (model_)?gpu_share to at least ([\d.]+)", message)
    most = re.search(r"give (--data model_max_replicas=|it max_replicas: )(\d+)", message)
    assert share or most, message
    key, number = ("gpu_share", float(share[2])) if share else ("max_replicas", int(most[2]))  # type: ignore[index]
    entry = re.search(r"more_models entry (\d)", message)
    if entry is None:
        return answers | {f"model_{key}": number}
    entries = [dict(each) for each in answers["more_models"]]
    entries[int(entry[1]) - 1][key] = number
    return answers | {"more_models": entries}


def test_replicas_land_as_planned_or_are_refused_with_the_number_that_does_not_fit(planner: Planner) -> None:
    pick = random.Random(SEED)
    print(f"\nseed {SEED}")
    plans: list[dict[str, Any]] = []
    cases: list[Case] = []
    refusals = 0
    while len(cases) + refusals < SETS:
        answers = drawn(pick)
        message, plan, config = planner.refusal_or(answers)
        if plan is None or config is None:
            refusals += 1
            given = re.search(r"(gpu_share|max_replicas) is ([\d.]+):", message)
            assert given, message
            assert float(given[2]) in [
                answers[f"model_{given[1]}"],
                *(entry[given[1]] for entry in answers["more_models"]),
            ], message
            for _ in range(6):  # one of three models after the other, its share and its replicas
                answers = remedied(answers, message)
                message, plan, _ = planner.refusal_or(answers)
                if plan:
                    break
            assert plan, message
        elif sum(group["max_pods"] for group in plan["groups"]) <= MOST_PODS:
            plans.append(plan)
            cases.append(case_of(plan, config, pick))
    found = [list(faults(*each)) for each in zip(plans, cases, placed(cases), strict=True)]
    pods = sum(len(case["pods"]) for case in cases)
    replicas = sum(len(case["replicas"]) for case in cases)
    print(f"{len(cases)} sets placed: {replicas} replicas on {pods} pods; {refusals} refused, with a number that works")
    assert not any(found), [(plan, faults) for plan, faults in zip(plans, found, strict=True) if faults]
    assert refusals >= 3
    assert len(cases) >= SETS / 2
    assert any(len(group["slots"]) > 1 for plan in plans for group in plan["groups"]), "no models shared a card"


def test_a_plan_that_ray_does_not_follow_is_noticed(planner: Planner) -> None:
    """A pod too few, and pods with a place more than planned."""
    plan, config = planner.answer(
        {
            "serving": "ray",
            "gpu_type": "l4",
            "model_gpu_share": 0.6,
            "model_max_replicas": 2,
            "more_models": [{"name": "b", "source": "./w", "revision": "v1", "gpu_share": 0.4, "max_replicas": 2}],
        }
    )
    good = case_of(plan, config, random.Random(SEED))
    short = {**good, "pods": good["pods"][1:], "wait_s": 10}
    roomy = {
        **good,
        "pods": [{**pod, "num_gpus": 2, "resources": {"slot-minilm": 2, "slot-b": 1}} for pod in good["pods"]],
    }
    few, many = (list(faults(plan, *each)) for each in zip([short, roomy], placed([short, roomy]), strict=True))
    assert "1 replicas of minilm found a place, planned were 2 x 1" in few
    assert "3 replicas of minilm found a place, planned were 2 x 1" in many
