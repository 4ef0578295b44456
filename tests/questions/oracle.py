"""The capacity rules again, in exact fractions, written from the rules and not from the Jinja macros.

Units: memory in GiB, time in ms, shares in cards.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_DOWN, Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import yaml

EXTENSIONS = Path(__file__).resolve().parents[2] / "extensions"
GPUS = yaml.safe_load((EXTENSIONS / "gpus.yml").read_text())
ESTIMATES = yaml.safe_load((EXTENSIONS / "estimates.yml").read_text())

BYTES_PER_WEIGHT = {"float32": 4, "bfloat16": 2, "float16": 2}
GIB = 2**30


def exact(value: float) -> Fraction:
    """The decimal that was written, not its nearest binary fraction: 0.3 is 3/10."""
    return Fraction(Decimal(repr(value)))


def floor4(value: Fraction) -> Fraction:
    return Fraction(math.floor(value * 10_000), 10_000)


@dataclass(frozen=True)
class Model:
    """One model on one kind of card under one promise."""

    gpu_type: str
    latency_objective_ms: int
    parameters_millions: float
    dtype: str
    gpu_share: float
    max_batch_size: int
    max_batch_tokens: int
    batch_wait_ms: float

    # -- shares
    @property
    def num_gpus(self) -> Fraction:
        """Ray's precision is 1e-4; rounded down."""
        return Fraction(Decimal(repr(self.gpu_share)).quantize(Decimal("0.0001"), ROUND_DOWN))

    @property
    def replicas_per_gpu(self) -> int:
        return math.floor(1 / self.num_gpus) if self.num_gpus else 0

    # -- memory
    @property
    def parameters(self) -> Fraction:
        """Millions."""
        return exact(self.parameters_millions)

    @property
    def weights_gib(self) -> Fraction:
        return self.parameters * 10**6 * BYTES_PER_WEIGHT[self.dtype] / GIB

    def activations_gib(self, tokens: int) -> Fraction:
        kib = exact(ESTIMATES["activation_kib_per_token_per_million_parameters"])
        return tokens * self.parameters * kib / 2**20

    @property
    def card_gib(self) -> Fraction:
        return exact(GPUS[self.gpu_type]["memory_gib"])

    @property
    def budget_gib(self) -> Fraction:
        return exact(ESTIMATES["usable_memory_share"]) * self.card_gib * self.num_gpus

    def gpu_memory_fraction(self, slice_gib: Fraction | None = None) -> Fraction | None:
        """Of the card, or of the slice of it that is all a process sees."""
        if not self.num_gpus:
            return None
        budget = self.budget_gib if slice_gib is None else exact(ESTIMATES["usable_memory_share"]) * slice_gib
        return floor4((budget - exact(ESTIMATES["cuda_context_gib"])) / (slice_gib or self.card_gib))

    def needed_gib(self, tokens: int) -> Fraction:
        return self.weights_gib + self.activations_gib(tokens) + exact(ESTIMATES["cuda_context_gib"])

    def fits_in_memory(self, tokens: int) -> bool:
        return not self.num_gpus or self.needed_gib(tokens) <= self.budget_gib

    def least_share(self, tokens: int) -> Fraction:
        """The least share, in Ray's steps, that holds a batch of so many tokens."""
        whole_card = exact(ESTIMATES["usable_memory_share"]) * self.card_gib
        steps = math.ceil(self.needed_gib(tokens) / whole_card * 10_000)
        return Fraction(steps, 10_000)

    # -- time
    def estimated_ms(self, tokens: int) -> Fraction:
        row = ESTIMATES["batch_time"][self.gpu_type if self.num_gpus else "none"][self.dtype]
        per_token = self.parameters * exact(row["ns_per_token_per_million_parameters"])
        return exact(row["fixed_ms"]) + tokens * per_token / 10**6

    def fits_in_time(self, tokens: int) -> bool:
        return exact(self.batch_wait_ms) + self.estimated_ms(tokens) < self.latency_objective_ms

    # -- load
    @property
    def typical_texts(self) -> int:
        return max(1, min(self.max_batch_size, self.max_batch_tokens // ESTIMATES["text_tokens"]))

    def typical_ms(self, computing: Fraction | None = None) -> Fraction:
        """Of a batch and of the work for its requests, on this part of the card's computing; in whole atto-seconds."""
        texts = self.typical_texts
        alone = self.estimated_ms(0)
        on_card = self.estimated_ms(texts * ESTIMATES["text_tokens"]) - alone
        on_card /= computing or self.num_gpus or 1
        return alone + texts * exact(ESTIMATES["request_ms"]) + Fraction(math.ceil(on_card * 10**15), 10**15)

    def needed_replicas(self, expected_rps: float, parts: int, computing: Fraction | None = None) -> int:
        """For one of `parts` parts of the load."""
        planned_rps = self.typical_texts / (self.typical_ms(computing) / 1000) * exact(ESTIMATES["target_utilisation"])
        return max(1, math.ceil(exact(expected_rps) / parts / planned_rps))

    # -- the verdict
    @property
    def dtype_is_native(self) -> bool:
        """On the card that was chosen and, for share 0, on the CPU that the model then runs on."""
        natives = [GPUS[self.gpu_type]["dtypes"]]
        if self.gpu_share == 0:
            natives.append(GPUS["none"]["dtypes"])
        return all(self.dtype in native for native in natives)

    @property
    def share_exists(self) -> bool:
        if self.gpu_type == "none":
            return self.gpu_share == 0
        return self.gpu_share == 0 or self.num_gpus > 0

    @property
    def can_fill(self) -> bool:
        return self.max_batch_tokens >= self.max_batch_size * ESTIMATES["short_text_tokens"]

    @property
    def accepted(self) -> bool:
        return (
            self.dtype_is_native
            and self.share_exists
            and self.can_fill
            and self.fits_in_memory(self.max_batch_tokens)
            and self.fits_in_time(self.max_batch_tokens)
        )

    def most_tokens(self) -> int:
        """The largest batch that has room, by bisection."""
        low, high = 0, 10**9
        while low < high:
            middle = (low + high + 1) // 2
            if self.fits_in_memory(middle) and self.fits_in_time(middle):
                low = middle
            else:
                high = middle - 1
        return low

    # -- what the templates are given
    def resolved(self) -> dict[str, Any]:
        queue = max(64, 4 * self.max_batch_size)
        return {
            "gpu_share": float(self.num_gpus),
            "replicas_per_gpu": self.replicas_per_gpu,
            "max_queue_length": queue,
            "max_ongoing_requests": queue + 2 * self.max_batch_size,
            "target_ongoing_requests": self.max_batch_size,
            "estimated_batch_ms": float(Fraction(math.ceil(self.estimated_ms(self.max_batch_tokens) * 100), 100)),
        }


@dataclass(frozen=True)
class Replicas:
    """One model as packing sees it."""

    name: str
    share: Fraction
    least: int
    most: int


def dealt(replicas: int, pods: int) -> int:
    """How many the fullest pod has when replicas are dealt one by one."""
    hands = [0] * pods
    for number in range(replicas):
        hands[number % pods] += 1
    return max(hands)


def least_cards(models: Sequence[Replicas]) -> int | None:
    """By trial: deal all replicas on one card, on two, on three ... until no card has more than it holds."""
    if sum(model.share for model in models) > 1:
        return None
    cards = 2 if any(model.least > 1 for model in models) else 1
    while sum(dealt(model.most, cards) * model.share for model in models) > 1:
        cards += 1
    return cards


def pods_for(models: Sequence[Replicas], cards: int, replicas: Mapping[str, int]) -> int:
    """By trial: the fewest pods that hold so many of each, two for a model of which two are always on."""
    pods = 1
    while any(
        pods * dealt(model.most, cards) < replicas[model.name] or (model.least > 1 and pods < 2) for model in models
    ):
        pods += 1
    return pods


def packed(models: Sequence[Replicas]) -> list[tuple[Replicas, ...]]:
    """Join, again and again, the two kinds of pod that save most cards, at most before at least, and cost none."""
    replicas = {model.name: model.least for model in models}
    kinds: list[tuple[Replicas, ...]] = [(model,) for model in models]

    def cards(*kinds: tuple[Replicas, ...]) -> tuple[int, int]:
        most = [least_cards(kind) or 10**9 for kind in kinds]
        least = [
            pods_for(kind, number, replicas) if number < 10**9 else 0 for kind, number in zip(kinds, most, strict=True)
        ]
        return sum(most), sum(least)

    while True:
        joins = []
        for one, other in itertools.combinations(kinds, 2):
            saved = tuple(
                apart - together for apart, together in zip(cards(one, other), cards(one + other), strict=True)
            )
            if min(saved) >= 0 and max(saved) > 0:
                joins.append((saved, one, other))
        if not joins:
            return kinds
        _, one, other = max(joins, key=lambda join: join[0])
        kinds = [one + other if kind == one else kind for kind in kinds if kind != other]


def request_timeout_s(latency_objective_ms: int) -> int:
    return max(5, math.ceil(Fraction(10 * latency_objective_ms, 1000)))


def feature_deadline_ms(latency_objective_ms: int) -> int:
    return min(50, max(5, math.floor(Fraction(latency_objective_ms, 20))))
