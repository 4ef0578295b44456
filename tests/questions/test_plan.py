"""The plan against the oracle: how models pack on cards, what a replica carries, what is refused, what it costs."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from oracle import ESTIMATES, GPUS, Model, Replicas, exact, floor4, least_cards, packed, pods_for
from questionnaire import TABLES, Questionnaire
from test_capacity import models as drawn_models

Render = Callable[..., str]
Answers = dict[str, Any]
VERDICT = "{{ checks.load_of_all() | trim }}"
MOST_REPLICAS = 1000
many = settings(
    max_examples=200, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, database=None
)
SMALL = {"dtype": "bfloat16", "parameters_millions": 23, "max_batch_size": 32, "max_batch_tokens": 2048}


def resolved(name: str, share: float, least: int, most: int, **more: Any) -> Answers:
    """A model as the question `models` gives it to the plan, as far as the plan reads it."""
    return {
        **SMALL,
        "name": name,
        "task": "embedding",
        "gpu_share": share,
        "replicas_per_gpu": math.floor(1 / exact(share)) if share else 0,
        "min_replicas": least,
        "max_replicas": most,
        **more,
    }


@st.composite
def model_sets(draw: st.DrawFn, least_share: int = 0) -> list[Answers]:
    """One to five models, those with a share of at least so many ten-thousandths on an L4."""
    common = st.sampled_from([0, 1250, 2000, 2500, 3000, 3333, 5000, 6000, 7500, 10_000])
    shares = st.one_of(common, common, st.integers(1, 10_000)).filter(lambda units: units >= least_share)
    found = []
    for number in range(draw(st.integers(1, 5))):
        most = draw(st.one_of(st.integers(1, 6), st.integers(1, 6), st.integers(1, 40)))
        least = draw(st.integers(1, min(most, 4)))
        found.append(resolved(f"model-{number}", draw(shares) / 10_000, least, most))
    return found


def planned(render_macro: Render, models: list[Answers], **context: Any) -> Any:
    """The plan of models that carry their load, which more_models has seen to."""
    site = {"gpu_type": "l4", "latency_objective_ms": 500, "model_name": models[0]["name"], "models": models}
    site |= {"expected_rps": 0.001}
    return json.loads(render_macro("{{ plans.planned() }}", **site | context))


def shares_of(models: list[Answers]) -> dict[str, Fraction]:
    return {model["name"]: exact(model["gpu_share"]) for model in models}


def members(models: list[Answers]) -> list[Replicas]:
    """Those on a card."""
    return [
        Replicas(model["name"], exact(model["gpu_share"]), model["min_replicas"], model["max_replicas"])
        for model in models
        if model["gpu_share"]
    ]


# ---- packing -------------------------------------------------------------------------------------------------------


@many
@given(model_sets(), st.sampled_from(["exclusive", "ray-fraction", "dra"]))
def test_no_card_is_oversubscribed_and_every_replica_has_a_place(
    render_macro: Render, models: list[Answers], sharing: str
) -> None:
    plan = planned(render_macro, models, gpu_sharing=sharing)
    shares = shares_of(models)
    for group in plan["groups"]:
        assert sum(slots * shares[name] for name, slots in group["slots"].items()) <= 1
        assert 1 <= group["min_pods"] <= group["expected_pods"] <= group["max_pods"]
    for model in models:
        (group,) = (group for group in plan["groups"] if model["name"] in group["slots"])
        slots = group["slots"][model["name"]]
        assert group["max_pods"] * slots >= model["max_replicas"]
        assert group["min_pods"] * slots >= model["min_replicas"]
        assert group["expected_pods"] * slots >= plan["models"][model["name"]]["needed_replicas"]
        assert group["min_pods"] >= min(2, model["min_replicas"]), "the loss of a node is the loss of the model"
        assert group["gpu"] == (model["gpu_share"] > 0)


@many
@given(model_sets(least_share=1))
def test_cards_are_packed_as_the_rules_say(render_macro: Render, models: list[Answers]) -> None:
    plan = planned(render_macro, models)
    least = {model["name"]: model["min_replicas"] for model in models}
    expected = [
        ({one.name for one in kind}, least_cards(kind), pods_for(kind, least_cards(kind) or 0, least))
        for kind in packed(members(models))
    ]
    assert [(set(each["slots"]), each["max_pods"], each["min_pods"]) for each in plan["groups"]] == expected
    assert plan["cards_max"] == sum(most or 0 for _, most, _ in expected)
    assert plan["cards_min"] == sum(fewest for _, _, fewest in expected)


@many
@given(model_sets(least_share=1))
def test_models_that_share_cards_never_take_more_of_them_than_apart(
    render_macro: Render, models: list[Answers]
) -> None:
    together = planned(render_macro, models)
    apart = [planned(render_macro, [model]) for model in models]
    for key in ("cards_min", "cards_max"):
        assert together[key] <= sum(each[key] for each in apart)


def test_models_share_cards_where_that_saves_some(render_macro: Render) -> None:
    models = [resolved("a", 0.6, 1, 3), resolved("b", 0.4, 1, 3), resolved("c", 0.7, 1, 1)]
    plan = planned(render_macro, models)
    shared, alone = plan["groups"]
    assert (shared["name"], shared["slots"], shared["max_pods"]) == ("cards-1", {"a": 1, "b": 1}, 3)
    assert (alone["name"], alone["slots"], alone["max_pods"]) == ("c", {"c": 1}, 1)
    assert (plan["cards_min"], plan["cards_max"]) == (2, 4)


def test_models_that_share_cards_need_fewer_always(render_macro: Render) -> None:
    """At most it is the same two cards, but one of them is not needed for one replica of each."""
    plan = planned(render_macro, [resolved("a", 0.5, 1, 2), resolved("b", 0.5, 1, 2)])
    assert [group["slots"] for group in plan["groups"]] == [{"a": 1, "b": 1}]
    assert (plan["cards_min"], plan["cards_max"]) == (1, 2)


def test_a_name_of_shared_cards_is_no_models_name(render_macro: Render) -> None:
    models = [
        resolved("cards-1", 1, 1, 1),
        *(resolved(name, 0.5, 1, 1) for name in ("a", "b")),
        *(resolved(name, 0.45, 1, 1) for name in ("cards-3", "d")),
    ]
    names = {group["name"]: set(group["slots"]) for group in planned(render_macro, models)["groups"]}
    assert names == {"cards-1": {"cards-1"}, "cards-2": {"a", "b"}, "cards-4": {"cards-3", "d"}}


def test_two_replicas_that_are_always_on_are_on_two_cards(render_macro: Render) -> None:
    (group,) = planned(render_macro, [resolved("a", 0.25, 2, 4)])["groups"]
    assert (group["slots"], group["min_pods"], group["max_pods"]) == ({"a": 2}, 2, 2)


@many
@given(model_sets())
def test_on_the_cpu_a_pod_holds_one_replica(render_macro: Render, models: list[Answers]) -> None:
    models = [model | {"gpu_share": 0.0} for model in models]
    plan = planned(render_macro, models, gpu_type="none", gpu_sharing="exclusive")
    assert [(each["name"], each["slots"], each["min_pods"], each["max_pods"]) for each in plan["groups"]] == [
        (model["name"], {model["name"]: 1}, model["min_replicas"], model["max_replicas"]) for model in models
    ]
    assert (plan["cards_min"], plan["cards_expected"], plan["cards_max"]) == (0, 0, 0)


@many
@given(model_sets())
def test_a_container_has_every_model_in_each_pod(render_macro: Render, models: list[Answers]) -> None:
    models[1:] = [model | {"gpu_share": 0.0} for model in models[1:]]
    (group,) = planned(render_macro, models, serving="container", gpu_sharing="exclusive")["groups"]
    assert (group["name"], group["gpu"]) == ("service", models[0]["gpu_share"] > 0)
    assert group["slots"] == {model["name"]: 1 for model in models}
    assert group["min_pods"] == max(model["min_replicas"] for model in models)
    assert group["max_pods"] == max(model["max_replicas"] for model in models)


@many
@given(model_sets(), st.integers(2, 8), st.sampled_from(["mps", "time-slice"]))
def test_a_part_of_a_card_holds_one_replica_that_has_it_whole(
    render_macro: Render, models: list[Answers], parts: int, sharing: str
) -> None:
    share = float(floor4(Fraction(1, parts)))
    models = [resolved(model["name"], share, model["min_replicas"], model["max_replicas"]) for model in models]
    plan = planned(render_macro, models, gpu_sharing=sharing)
    for model, group in zip(models, plan["groups"], strict=True):
        assert (group["slots"], group["max_pods"]) == ({model["name"]: 1}, model["max_replicas"])
        assert plan["models"][model["name"]]["num_gpus"] == 1
    assert plan["cards_max"] == math.ceil(Fraction(sum(model["max_replicas"] for model in models), parts))


def test_ray_is_asked_for_the_share_of_a_card_that_pods_have_whole(render_macro: Render) -> None:
    models = [resolved("a", 0.3333, 1, 2), resolved("b", 0.0, 1, 1)]
    for sharing in ("ray-fraction", "dra"):
        facts = planned(render_macro, models, gpu_sharing=sharing)["models"]
        assert {name: fact["num_gpus"] for name, fact in facts.items()} == {"a": 0.3333, "b": 0}


# ---- what a pod is asked for ---------------------------------------------------------------------------------------


@many
@given(model_sets(), st.sampled_from(["ray", "container"]))
def test_a_pod_has_the_processors_and_the_memory_of_what_it_holds(
    render_macro: Render, models: list[Answers], serving: str
) -> None:
    assume(serving == "ray" or len([model for model in models if model["gpu_share"]]) < 2)
    plan = planned(render_macro, models, serving=serving, gpu_sharing="dra")
    by_name = {model["name"]: model for model in models}
    for group in plan["groups"]:
        replicas = sum(group["slots"].values())
        gib = Fraction(ESTIMATES["ray_memory_gib"] if serving == "ray" else 0)
        gib += ESTIMATES["process_memory_gib"] * (replicas if serving == "ray" else 1)
        for name, slots in group["slots"].items():
            share = by_name[name]["gpu_share"]
            model = Model("l4", 500, 23, "bfloat16", share, 32, 2048, 0)
            gib += slots * (model.weights_gib + (0 if share else model.activations_gib(2048)))
        assert group["memory_gib"] == math.ceil(gib)
        assert group["cpus"] == replicas + (ESTIMATES["ray_cpus"] if serving == "ray" else 0)
        assert group["num_cpus"] == replicas + (1 if serving == "ray" and len(models) > 1 else 0)


# ---- MIG -----------------------------------------------------------------------------------------------------------

SLICES = [(card, profile) for card, row in GPUS.items() for profile in row.get("mig", {})]


@pytest.mark.parametrize(("gpu_type", "profile"), SLICES)
def test_a_slice_bounds_pytorch_by_its_own_memory(render_macro: Render, gpu_type: str, profile: str) -> None:
    row = GPUS[gpu_type]["mig"][profile]
    models = [resolved("a", 0.05, 1, 9)]
    plan = planned(render_macro, models, gpu_type=gpu_type, gpu_sharing="mig", mig_profile=profile)
    model = Model(gpu_type, 500, 23, "bfloat16", 0.05, 32, 2048, 0)
    fact = plan["models"]["a"]
    assert fact["gpu_memory_gib"] == row["memory_gib"]
    assert exact(fact["gpu_memory_fraction"]) == model.gpu_memory_fraction(exact(row["memory_gib"]))
    assert fact["num_gpus"] == 1
    assert plan["cards_max"] == math.ceil(9 / row["per_card"])


def test_slices_of_a_card_are_no_more_than_the_card() -> None:
    for card, row in GPUS.items():
        for name, profile in row.get("mig", {}).items():
            assert profile["per_card"] * profile["memory_gib"] <= row["memory_gib"], (card, name)
            assert profile["per_card"] * int(name.split("g")[0]) <= 7, (card, name)
        assert list(row.get("mig", {})) == sorted(
            row.get("mig", {}), key=lambda name: (GPUS[card]["mig"][name]["memory_gib"], int(name.split("g")[0]))
        )


@many
@given(model_sets(least_share=1), st.sampled_from(sorted({card for card, _ in SLICES})), st.integers(1, 200))
def test_the_default_slice_is_the_smallest_that_holds_every_model_and_its_load(
    render_macro: Render, models: list[Answers], gpu_type: str, rps: int
) -> None:
    def holds(profile: str) -> bool:
        computing = Fraction(int(profile.split("g")[0]) * 10_000 // 7, 10_000)
        for each in models:
            model = Model(gpu_type, 500, 23, "bfloat16", each["gpu_share"], 32, 2048, 0)
            if exact(GPUS[gpu_type]["mig"][profile]["memory_gib"]) < model.num_gpus * model.card_gib:
                return False
            if model.needed_replicas(100 * rps, len(models), computing) > each["max_replicas"]:
                return False
        return True

    site = {"gpu_type": gpu_type, "gpu_sharing": "mig", "models": models, "expected_rps": 100 * rps}
    site |= {"latency_objective_ms": 500, "model_name": "model-0"}
    fits = [profile for profile in GPUS[gpu_type]["mig"] if holds(profile)]
    assume(fits)  # else the load was refused before
    assert render_macro("{{ mig.default_mig_profile() }}", **site) == fits[0]
    for profile in GPUS[gpu_type]["mig"]:
        message = render_macro("{{ gpu_sharing_checks.mig_profile_check(profile) }}", profile=profile, **site)
        assert (message == "") == (profile in fits), message
        assert not message or f"choose {fits[0]}," in message


# ---- load ----------------------------------------------------------------------------------------------------------


def entry_of(model: Model, name: str) -> Answers:
    keys = ("parameters_millions", "dtype", "gpu_share", "max_batch_size", "max_batch_tokens", "batch_wait_ms")
    return {"name": name, "source": "./w", "revision": "v1"} | {key: getattr(model, key) for key in keys}


RATES = st.one_of(st.integers(1, 100), st.integers(1, 10**6), st.sampled_from([0.001, 0.5, 9.9, 250.5]))


def models_of(render_macro: Render, entries: list[Answers], site: Answers) -> Any:
    return json.loads(render_macro("{{ capacity.all_models(entries) }}", entries=entries, **site))


@many
@given(drawn_models(), RATES, st.integers(-2, 2), st.integers(1, 3))
def test_max_replicas_is_accepted_exactly_when_it_carries_its_part_of_the_load(
    render_macro: Render, model: Model, rps: float, beside: int, others: int
) -> None:
    assume(model.accepted)
    needed = model.needed_replicas(rps, others + 1)
    most = min(MOST_REPLICAS, max(1, needed + beside))
    tiny = {"model_max_replicas": MOST_REPLICAS, "model_parameters_millions": 0.001}
    site = {"gpu_type": model.gpu_type, "latency_objective_ms": model.latency_objective_ms, "model_name": "first"}
    site |= tiny | {"model_source": "./w", "model_revision": "v1", "expected_rps": rps, "model_long_text": "refuse"}
    entries = [{**entry_of(model, f"m{number}"), "max_replicas": most} for number in range(others)]
    message = render_macro(VERDICT, **site | {"models": models_of(render_macro, entries, site)})
    assume("model_max_replicas" not in message)
    assert (message == "") == (needed <= most), message
    if message:
        assert message.startswith("more_models entry 1 ('m0'), max_replicas is")
        assert f"max_replicas is {most}: expected_rps {rps} / {others + 1} models needs {needed} replicas" in message
        assert (f"give it max_replicas: {needed}," in message) == (needed <= MOST_REPLICAS)
        assert message.endswith("or lower expected_rps.")


@many
@given(drawn_models(), RATES, st.integers(0, 3))
def test_the_default_of_max_replicas_carries_the_load(
    render_macro: Render, model: Model, rps: float, others: int
) -> None:
    """For the first model, whose default does not know how many others will share the load, and for the others."""
    assume(model.accepted)
    site = {f"model_{key}": value for key, value in entry_of(model, "first").items()}
    site |= {"gpu_type": model.gpu_type, "latency_objective_ms": model.latency_objective_ms, "expected_rps": rps}
    most = int(render_macro("{{ capacity.default_for('max_replicas') }}", **site))
    assert most == max(2, min(MOST_REPLICAS, model.needed_replicas(rps, 1)))
    site |= {"model_max_replicas": most, "model_long_text": "refuse"}
    models = models_of(render_macro, [entry_of(model, f"m{number}") for number in range(others)], site)
    message = render_macro(VERDICT, **site | {"models": models})
    assert not message or f"as a model may have {MOST_REPLICAS} replicas at most" in message


@pytest.mark.parametrize(("embeds", "parts"), [("embedding", 1), ("text-classification", 2)])
def test_a_model_that_embeds_for_the_others_carries_the_whole_load(
    render_macro: Render, embeds: str, parts: int
) -> None:
    """Of three, with documents as context: two are asked by callers, and each request of theirs is one to embed."""
    model = {**SMALL, "name": "m", "task": embeds, "gpu_share": 0.5}
    site = {"gpu_type": "l4", "latency_objective_ms": 500, "vector_db": "pinecone", "model": model}
    assert render_macro("{{ capacity.divided_among(model, 3) }}", **site) == str(parts)
    assert render_macro("{{ capacity.divided_among(model, 3, 'm') }}", **site) == "1"
    assert render_macro("{{ capacity.divided_among(model, 3, 'x') }}", **site) == "2"
    assert render_macro("{{ capacity.divided_among(model, 1) }}", **site) == "1"
    assert render_macro("{{ capacity.divided_among(model, 3) }}", **site | {"vector_db": "none"}) == "3"


def test_the_remedy_for_too_few_replicas_is_one_that_works(questionnaire: Questionnaire) -> None:
    load = {"expected_rps": 250, "model_max_replicas": 2}
    (number,) = re.findall(r"--data model_max_replicas=(\d+)", questionnaire.refusal(**load))
    assert questionnaire.answers(**load | {"model_max_replicas": int(number)})["serving"] == "ray"
    assert str(int(number)) in questionnaire.refusal(**load | {"model_max_replicas": int(number) - 1})
    assert questionnaire.answers(expected_rps=250)["model_max_replicas"] == int(number)


# ---- prices --------------------------------------------------------------------------------------------------------


def test_every_card_has_a_price() -> None:
    assert set(TABLES["prices"]["gpu_hour"]) == set(GPUS) - {"none"}


@many
@given(model_sets(), RATES)
def test_the_price_of_an_hour_is_that_of_its_pods_and_cards(
    render_macro: Render, models: list[Answers], rps: float
) -> None:
    site = {"gpu_type": "l4", "latency_objective_ms": 500, "model_name": "model-0", "expected_rps": rps}
    plan = planned(render_macro, models, **site)
    site |= {"plan": plan, "models": models}
    prices = TABLES["prices"]
    for at in ("min", "expected", "max"):
        dollars = plan[f"cards_{at}"] * exact(prices["gpu_hour"]["l4"])
        for group in plan["groups"]:
            pod = group["cpus"] * exact(prices["vcpu_hour"]) + group["memory_gib"] * exact(prices["memory_gib_hour"])
            dollars += group[f"{at}_pods"] * pod
        assert int(render_macro("{{ plans.hourly_price(at) }}", at=at, **site)) == dollars * 10**6
        if at == "expected":
            million = dollars / (exact(rps) * 3600) * 10**6
            assert int(render_macro("{{ plans.million_price() }}", **site)) == math.floor(million * 10**6)


@many
@given(model_sets(), RATES)
def test_what_is_planned_for_the_load_carries_it(render_macro: Render, models: list[Answers], rps: float) -> None:
    site = {"gpu_type": "l4", "latency_objective_ms": 500, "model_name": "model-0", "expected_rps": rps}
    plan = planned(render_macro, models, **site)
    site |= {"plan": plan, "models": models}
    rates = {at: float(render_macro("{{ plans.carries(at) }}", at=at, **site)) for at in ("min", "expected", "max")}
    wanted = math.floor(rps * 100) / 100  # rates are cut at two decimals
    needed = {model["name"]: plan["models"][model["name"]]["needed_replicas"] for model in models}
    assert (rates["max"] >= wanted) == all(needed[model["name"]] <= model["max_replicas"] for model in models)
    assert (rates["min"] >= wanted) == all(needed[model["name"]] <= model["min_replicas"] for model in models)
    assert rates["expected"] >= wanted
