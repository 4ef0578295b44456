"""Length-aware batching: what a padded batch costs, and the cheapest way to split a queue into batches.

The cost model is `seconds(batch) = fixed_s + per_token_s * items * padded_length`: padding makes every item as long as
the longest, rounded up, so mixing lengths wastes work; every batch pays a fixed price, so splitting wastes work too.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np


def padded_length(longest: int, multiple: int) -> int:
    """Tokens of every item of a batch whose longest has `longest`, where batches are padded to a `multiple`."""
    return -(-longest // multiple) * multiple


@dataclass(frozen=True)
class CostModel:
    """Seconds that one padded batch takes: `fixed_s + per_token_s * items * padded_length`.

    pad_to_multiple_of: see `ModelSettings`.
    """

    fixed_s: float
    per_token_s: float
    pad_to_multiple_of: int = 1

    def seconds(self, items: int, longest: int) -> float:
        return self.fixed_s + self.per_token_s * items * padded_length(longest, self.pad_to_multiple_of)


def partition(lengths: Sequence[int], cost: CostModel, max_items: int, max_tokens: int) -> list[int]:
    """Split ascending `lengths` into consecutive batches of least total cost; return where each batch ends.

    A batch holds at most `max_items` items and `max_tokens` padded tokens; one item alone is always allowed.
    Dynamic programme over the end of the last batch, `best[j] = min_i best[i] + cost(i..j)`. The cost satisfies the
    quadrangle inequality, so the best start of the last batch never moves left as `j` grows (Knuth 1971, Yao 1980):
    the search for `j` begins where the one for `j - 1` ended.
    """
    count = len(lengths)
    best = [0.0] * (count + 1)
    start_of = [0] * (count + 1)
    fixed, per_token = cost.fixed_s, cost.per_token_s
    first = 0
    for end in range(1, count + 1):
        longest = padded_length(lengths[end - 1], cost.pad_to_multiple_of)
        first = max(first, end - max(1, min(max_items, max_tokens // longest if longest else max_items)))
        unit = per_token * longest
        cheapest = float("inf")
        for start in range(first, end):
            candidate = best[start] + unit * (end - start)
            if candidate < cheapest:
                cheapest, first = candidate, start
        best[end] = cheapest + fixed
        start_of[end] = first
    ends = []
    while count:
        ends.append(count)
        count = start_of[count]
    return ends[::-1]


def fit_cost_model(
    run: Callable[[int, int], object],
    max_items: int,
    max_tokens: int,
    longest: int,
    pad_to_multiple_of: int = 1,
    budget_s: float = 3.0,
    clock: Callable[[], float] = time.perf_counter,
) -> CostModel:
    """Measure `run(items, length)` on a small grid of shapes and fit the cost model to the fastest time of each.

    run: executes one batch of `items` inputs of `length` tokens.
    longest: the longest input, in tokens. pad_to_multiple_of: what `run` pads to, see `ModelSettings`.
    budget_s: measuring stops after about this long, once each shape was seen.
    Least squares on relative error, so that small and large batches count alike; both coefficients stay positive.
    """
    lengths = sorted({min(longest, max_tokens, length) for length in (8, 32, 128)})
    shapes = sorted({(max(1, min(items, max_items, max_tokens // n)), n) for n in lengths for items in (1, 4, 16, 64)})
    run(*shapes[0])
    fastest = dict.fromkeys(shapes, float("inf"))
    started = clock()
    for _ in range(3):
        for shape in shapes:
            begin = clock()
            run(*shape)
            fastest[shape] = min(fastest[shape], clock() - begin)
        if clock() - started > budget_s:
            break
    seconds = np.array(list(fastest.values()))
    tokens = np.array([items * padded_length(length, pad_to_multiple_of) for items, length in fastest], dtype=float)
    design = np.stack([1 / seconds, tokens / seconds], axis=1)
    (fixed_s, per_token_s), *_ = np.linalg.lstsq(design, np.ones(len(seconds)), rcond=None)
    return CostModel(max(float(fixed_s), 1e-6), max(float(per_token_s), 1e-9), pad_to_multiple_of)
