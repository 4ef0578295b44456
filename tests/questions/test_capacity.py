"""The macros of extensions/ against the oracle, on models drawn at random and close to every limit."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from oracle import BYTES_PER_WEIGHT, ESTIMATES, GPUS, Model, feature_deadline_ms, request_timeout_s

Render = Callable[..., str]
KEYS = ("parameters_millions", "dtype", "gpu_share", "max_batch_size", "max_batch_tokens", "batch_wait_ms")
VERDICT = "{{ more_models_checks.more_models_check([entry]) }}"
RESOLVED = "{% call(model) capacity.with_defaults(entry) %}{{ capacity.resolved(model) }}{% endcall %}"
SITE = {"gpu_type": "l4", "latency_objective_ms": 500, "model_name": "other"}
many = settings(
    max_examples=200, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, database=None
)


@st.composite
def decimals(draw: st.DrawFn, lowest: int, highest: int, places: int) -> float:
    """A number as people write it: at most so many decimals."""
    scale = 10 ** draw(st.integers(0, places))
    return draw(st.integers(lowest * scale, highest * scale)) / scale


SHARES = st.one_of(
    st.sampled_from([0, 0.0, 1, 1.0, 0.3, 0.1, 0.7, 1 / 3, 2 / 3, 1 / 7, 0.00005, 1e-7, 0.29999, 0.0001]),
    decimals(0, 1, 6),
    st.floats(0, 1),
)


@st.composite
def models(draw: st.DrawFn) -> Model:
    model = Model(
        gpu_type=draw(st.sampled_from(list(GPUS))),
        latency_objective_ms=draw(st.one_of(st.integers(10, 1000), st.integers(10, 60000))),
        parameters_millions=draw(st.one_of(st.sampled_from([23, 110, 22.7, 335, 0.001]), decimals(1, 20000, 3))),
        dtype=draw(st.sampled_from(list(BYTES_PER_WEIGHT))),
        gpu_share=draw(SHARES),
        max_batch_size=draw(st.one_of(st.just(1), st.integers(1, 64), st.integers(1, 4096))),
        max_batch_tokens=draw(st.one_of(st.integers(1, 4096), st.integers(1, 10**6))),
        batch_wait_ms=draw(st.one_of(st.just(0), decimals(0, 100, 3))),
    )
    if model.gpu_type == "none" and draw(st.booleans()):
        model = dataclasses.replace(model, gpu_share=0)
    close = draw(st.sampled_from(["", "", "room", "fill", "share"]))
    runs = model.dtype in ESTIMATES["batch_time"][model.gpu_type if model.num_gpus else "none"]
    if close == "room" and runs:  # on the very limit of memory or time, and beside it
        tokens = model.most_tokens() + draw(st.integers(-1, 2))
        model = dataclasses.replace(model, max_batch_tokens=min(10**7, max(1, tokens)))
    if (
        close == "share" and runs and model.card_gib and model.num_gpus
    ):  # on the least share that holds the batch, and beside it
        least = model.least_share(model.max_batch_tokens) + Fraction(draw(st.integers(-1, 1)), 10_000)
        model = dataclasses.replace(model, gpu_share=float(min(Fraction(1), max(Fraction(0), least))))
    if close:
        texts = model.max_batch_tokens // ESTIMATES["short_text_tokens"] + draw(st.integers(-1, 1))
        model = dataclasses.replace(model, max_batch_size=min(4096, max(1, texts)))
    return model


def site(model: Model) -> dict[str, Any]:
    return {
        "gpu_type": model.gpu_type,
        "latency_objective_ms": model.latency_objective_ms,
        "model_name": "other",
    }


def entry(model: Model) -> dict[str, Any]:
    return {"name": "drawn", "source": "./weights", "revision": "v1"} | {key: getattr(model, key) for key in KEYS}


@settings(many, max_examples=400)
@given(models())
def test_an_answer_is_accepted_exactly_when_it_satisfies_every_inequality(render_macro: Render, model: Model) -> None:
    message = render_macro(VERDICT, entry=entry(model), **site(model))
    assert (message == "") == model.accepted, message


@many
@given(models())
def test_what_the_templates_are_given_is_what_the_rules_say(render_macro: Render, model: Model) -> None:
    assume(model.accepted)
    given_to_templates = json.loads(render_macro(RESOLVED, entry=entry(model), **site(model)))
    for key, value in model.resolved().items():
        assert given_to_templates[key] == value, key


@many
@given(SHARES.filter(lambda share: share >= 0.0001))
def test_shares_never_oversubscribe_a_card(render_macro: Render, share: float) -> None:
    text = "{{ capacity.share_units(model) }} {{ capacity.replicas_per_gpu(model) }}"
    units, replicas = map(int, render_macro(text, model={"gpu_share": share}, **SITE).split())
    assert replicas * Fraction(units, 10_000) <= 1 < (replicas + 1) * Fraction(units, 10_000)
    assert replicas * (units / 10_000) <= 1.0
    assert units / 10_000 <= share


def test_a_share_of_three_tenths_stays_three_tenths(render_macro: Render) -> None:
    for share, units in (
        (0.3, 3000),
        (0.7, 7000),
        (1 / 3, 3333),
        (0.29999, 2999),
        (1, 10000),
        (1.0, 10000),
        (1e-5, 0),
    ):
        assert int(render_macro("{{ capacity.share_units(model) }}", model={"gpu_share": share}, **SITE)) == units


@many
@given(models())
def test_replicas_on_one_card_take_less_than_the_card(render_macro: Render, model: Model) -> None:
    assume(model.accepted and model.num_gpus)
    resolved = json.loads(render_macro(RESOLVED, entry=entry(model), **site(model)))
    context = Fraction(str(ESTIMATES["cuda_context_gib"]))
    fraction = Fraction(render_macro("{{ plans.gpu_memory_fraction(model) }}", model=resolved, **site(model)))
    assert fraction == model.gpu_memory_fraction()
    each = fraction * model.card_gib + context
    assert resolved["replicas_per_gpu"] * each <= Fraction(9, 10) * model.card_gib
    needed = model.weights_gib + model.activations_gib(model.max_batch_tokens) + context
    assert each >= needed - model.card_gib / 10_000  # the fraction is cut at four decimals


@many
@given(models())
def test_a_default_is_never_refused(render_macro: Render, model: Model) -> None:
    """Else the prompt itself would end in an error. Only the size of the model may be refused beforehand."""
    for kept in (1, 2, 3):
        given_keys = ("name", "source", "revision", *KEYS[:kept])
        partial = {key: value for key, value in entry(model).items() if key in given_keys}
        message = render_macro(VERDICT, entry=partial, **site(model))
        assert not message or any(f"{key} is" in message for key in KEYS[:kept]), message


@pytest.mark.parametrize("gpu_type", GPUS)
@pytest.mark.parametrize("objective", [10, 60000])
def test_the_default_model_fits_every_card_and_every_objective(
    render_macro: Render, gpu_type: str, objective: int
) -> None:
    bare = {"name": "drawn", "source": "./weights", "revision": "v1"}
    context = {"gpu_type": gpu_type, "latency_objective_ms": objective, "model_name": "other"}
    assert render_macro(VERDICT, entry=bare, **context) == ""


@many
@given(models())
def test_the_number_in_a_remedy_is_one_that_works(render_macro: Render, model: Model) -> None:
    answers = entry(model)
    for _ in range(4):  # one remedy may lead to the next question's
        message = render_macro(VERDICT, entry=answers, **site(model))
        if not message:
            return
        key = next(key for key in KEYS if f", {key} is" in message)
        share = re.search(r"raise gpu_share to at least ([\d.]+)", message)
        most = re.search(rf"lower (?:[^.]*, )?({key}|max_batch_tokens) to at most (\d+)", message)
        if share:
            below = answers | {"gpu_share": float(Fraction(share[1]) - Fraction(1, 10_000))}
            assert render_macro(VERDICT, entry=below, **site(model)), "a smaller share would do"
            enough = render_macro(VERDICT, entry=answers | {"gpu_share": float(share[1])}, **site(model))
            assert f", {key} is" not in enough, enough
        if most:
            answers = answers | {most[1]: int(most[2])}
        elif share:
            answers = answers | {"gpu_share": float(share[1])}
        elif re.search(r"Raise .*max_batch_tokens to at least that", message):
            answers = answers | {key: answers["max_batch_size"] * ESTIMATES["short_text_tokens"]}
        else:
            return
        after = render_macro(VERDICT, entry=answers, **site(model))
        assert f", {key} is" not in after, after
        assert not any(f", {earlier} is" in after for earlier in KEYS[: KEYS.index(key)]), (message, after)


def test_a_batch_that_takes_exactly_the_objective_is_refused(render_macro: Render) -> None:
    """One million parameters in float32 on CPU: 3.97 ms + 1000 x 10264 ns = 14.234 ms; promised: 500 ms."""
    model = Model("none", 500, 1, "float32", 0, 32, 1000, 485.766)
    assert "485.766 ms of waiting" in render_macro(VERDICT, entry=entry(model), **site(model))
    sooner = dataclasses.replace(model, batch_wait_ms=485.765)
    assert render_macro(VERDICT, entry=entry(sooner), **site(sooner)) == ""


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.dates(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8) | st.integers(), inner, max_size=3),
    max_leaves=6,
)
GOOD = {
    "name": "drawn",
    "source": "./weights",
    "revision": "v1",
    "task": "embedding",
    "long_text": "truncate",
}
GOOD |= {
    "parameters_millions": 23,
    "dtype": "bfloat16",
    "gpu_share": 0.5,
    "max_batch_size": 8,
    "max_batch_tokens": 512,
}
GOOD |= {"batch_wait_ms": 0, "min_replicas": 1, "max_replicas": 2}


@many
@given(ANYTHING, st.sampled_from(list(GOOD)))
def test_a_value_of_any_shape_is_judged_in_one_line(render_macro: Render, value: Any, key: str) -> None:
    message = render_macro(VERDICT, entry=GOOD | {key: value}, **SITE)
    assert not message or (message.startswith("more_models entry 1") and message.endswith("."))
    assert "\n" not in message


@many
@given(ANYTHING)
def test_further_models_of_any_shape_are_judged_in_one_line(render_macro: Render, value: Any) -> None:
    message = render_macro("{{ more_models_checks.more_models_check(value) }}", value=value, **SITE)
    assert (message == "") == (value == [] and isinstance(value, list))
    assert not message or (message.startswith("more_models") and "\n" not in message)


@given(st.integers(10, 60000))
@settings(deadline=None, derandomize=True, database=None)
def test_a_request_is_given_ten_times_the_promise_and_at_least_five_seconds(
    render_macro: Render, objective: int
) -> None:
    text = "{{ capacity.request_timeout_s() }}"
    assert int(render_macro(text, gpu_type="none", latency_objective_ms=objective)) == request_timeout_s(objective)


@given(st.integers(10, 60000))
@settings(deadline=None, derandomize=True, database=None)
def test_features_are_given_a_twentieth_of_the_promise_from_5_to_50_ms(render_macro: Render, objective: int) -> None:
    text = "{{ capacity.feature_deadline_ms() }}"
    assert int(render_macro(text, gpu_type="none", latency_objective_ms=objective)) == feature_deadline_ms(objective)


def test_every_card_has_a_time_estimate_for_each_dtype_it_computes() -> None:
    assert {card: set(row["dtypes"]) for card, row in GPUS.items()} == {
        card: set(rows) for card, rows in ESTIMATES["batch_time"].items()
    }


def test_gpu_estimates_are_thirty_percent_of_the_peak_at_two_flop_per_parameter() -> None:
    for card, rows in ESTIMATES["batch_time"].items():
        for row in rows.values() if card != "none" else ():
            worked_out = 2e6 / (0.3 * row["peak_tflops"] * 1e12) * 1e9
            assert row["ns_per_token_per_million_parameters"] == pytest.approx(worked_out, abs=1e-3)
