"""The cheapest split of a queue, against every possible split; and the cost model, against a clock that obeys one."""

import math
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.runtime.partition import CostModel, fit_cost_model, partition

costs = st.builds(
    CostModel, fixed_s=st.floats(0, 100), per_token_s=st.floats(0, 5), pad_to_multiple_of=st.sampled_from([1, 8])
)
lengths = st.lists(st.integers(1, 60), min_size=1, max_size=9).map(sorted)


def padded(batch: list[int], cost: CostModel) -> int:
    """Tokens that the batch runs."""
    return len(batch) * math.ceil(max(batch) / cost.pad_to_multiple_of) * cost.pad_to_multiple_of


def allowed(batch: list[int], cost: CostModel, max_items: int, max_tokens: int) -> bool:
    return len(batch) == 1 or (len(batch) <= max_items and padded(batch, cost) <= max_tokens)


def batches(lengths: list[int], ends: tuple[int, ...]) -> list[list[int]]:
    return [lengths[start:end] for start, end in zip((0, *ends), ends, strict=False)]


def total(split: list[list[int]], cost: CostModel) -> float:
    return sum(cost.fixed_s + cost.per_token_s * padded(batch, cost) for batch in split)


@given(lengths, costs, st.integers(1, 8), st.integers(1, 200))
def test_no_other_split_is_cheaper(lengths: list[int], cost: CostModel, max_items: int, max_tokens: int) -> None:
    every_split = (
        batches(lengths, (*cuts, len(lengths)))
        for count in range(len(lengths))
        for cuts in combinations(range(1, len(lengths)), count)
    )
    cheapest = min(
        total(split, cost)
        for split in every_split
        if all(allowed(batch, cost, max_items, max_tokens) for batch in split)
    )
    chosen = batches(lengths, tuple(partition(lengths, cost, max_items, max_tokens)))
    assert [length for batch in chosen for length in batch] == lengths
    assert all(allowed(batch, cost, max_items, max_tokens) for batch in chosen)
    assert math.isclose(total(chosen, cost), cheapest, rel_tol=1e-9, abs_tol=1e-9)


def test_equal_lengths_make_one_batch_and_unequal_ones_part() -> None:
    cost = CostModel(fixed_s=50, per_token_s=1)
    assert partition([10] * 8, cost, 32, 2048) == [8]
    assert partition([10, 10, 10, 100], cost, 32, 2048) == [3, 4]


def test_a_text_over_the_token_limit_runs_alone_rather_than_never() -> None:
    assert partition([5, 500], CostModel(1, 1), 32, 100) == [1, 2]


@pytest.mark.parametrize("multiple", [1, 16])
@pytest.mark.parametrize(("fixed_s", "per_token_s"), [(0.004, 0.0002), (0.010, 0.000001), (0.0001, 0.001)])
def test_the_fit_finds_the_coefficients_of_the_machine(fixed_s: float, per_token_s: float, multiple: int) -> None:
    now = 0.0

    def run(items: int, length: int) -> None:
        nonlocal now
        now += fixed_s + per_token_s * items * math.ceil(length / multiple) * multiple

    cost = fit_cost_model(run, 32, 2048, longest=512, pad_to_multiple_of=multiple, clock=lambda: now)
    assert cost.fixed_s == pytest.approx(fixed_s, rel=1e-3)
    assert cost.per_token_s == pytest.approx(per_token_s, rel=1e-3)


def test_the_fit_stays_within_the_limits_and_its_time() -> None:
    now = 0.0
    shapes = []

    def run(items: int, length: int) -> None:
        nonlocal now
        shapes.append((items, length))
        now += 1.0

    fit_cost_model(run, max_items=8, max_tokens=100, longest=64, budget_s=3, clock=lambda: now)
    assert all(items <= 8 and length <= 64 and (items == 1 or items * length <= 100) for items, length in shapes)
    assert len(shapes) <= 1 + len(set(shapes))
