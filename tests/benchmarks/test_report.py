"""The benchmark's verdicts: what is compared with what, and that a missed or missing figure is never called met."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from benchmarks.serving.bursts import IN_A_ROW, Turns, bursts
from benchmarks.serving.client import TIME_LIMIT_S
from benchmarks.serving.report import Ratio, ratios, text
from benchmarks.serving.roster import Contestant
from benchmarks.serving.run import Piece, blocks, in_turn, merged, of_bursts, percentile_ms, summarise


def cell(
    contestant: str, load: str, per_s: float, p99_ms: float | None = None, round_number: int = 0
) -> dict[str, Any]:
    cores = dict.fromkeys(("server_cores", "client_cores", "foreign_cores", "steal_cores"), 0.0)
    latencies = dict.fromkeys(("p50_ms", "p95_ms", "p99_ms"), p99_ms)
    return {
        "contestant": contestant, "load": load, "round": round_number, "completed_per_s": per_s, **latencies, **cores,
    }  # fmt: skip


def results(*cells: dict[str, Any]) -> dict[str, Any]:
    return {
        "machine": {"cores": 2, "cpu": ["x"], "python": "3.11"},
        "versions": {},
        "dtype": "float32",
        "rounds": 3,
        "seconds": 1,
        "capacity_per_s": None,
        "cells": list(cells),
        "answers": {},
        "skipped": {},
    }


def found(claim: str, *cells: dict[str, Any]) -> Ratio:
    (one,) = [ratio for ratio in ratios(results(*cells)) if claim in ratio.claim]
    return one


def test_a_ratio_is_of_medians_over_the_rounds() -> None:
    cells = [cell("container", "closed-64", rate, round_number=n) for n, rate in enumerate((50, 95, 90))]
    one = found("container / ceiling", *cells, cell("ceiling", "offline", 100))
    assert one.value == pytest.approx(0.9)
    assert one.verdict == "met"


def test_a_ratio_of_turns_says_how_far_it_can_be_trusted() -> None:
    ours = cell("container", "closed-64", 90) | {"turns_per_s": [80.0, 90.0, 100.0]}
    theirs = cell("ceiling", "offline", 100) | {"turns_per_s": [100.0, 100.0, 100.0]}
    assert found("container / ceiling", ours, theirs).error == pytest.approx(0.1 / 3**0.5)
    assert "+- 0.06" in text(results(ours, theirs))
    assert found("container / ceiling", cell("container", "closed-64", 90), theirs).error is None


def test_a_ratio_below_its_target_is_not_met() -> None:
    one = found("container / ceiling", cell("container", "closed-64", 89), cell("ceiling", "offline", 100))
    assert one.verdict == "NOT met"


def test_a_side_that_was_not_measured_is_said_and_not_met() -> None:
    assert found("container / ceiling", cell("container", "closed-64", 89)).verdict == "not measured"
    assert "not measured" in text(results())


def test_unbatched_fastapi_is_represented_by_its_faster_form() -> None:
    cells = [cell("container", "closed-8", 70), cell("fastapi-threaded", "closed-8", 80)]
    one = found("closed-8 req/s: container / unbatched FastAPI", *cells, cell("fastapi-blocking", "closed-8", 60))
    assert one.value == pytest.approx(70 / 80)
    assert one.note == "fastapi-threaded"


def test_a_tail_is_compared_with_the_best_of_the_others_and_must_be_shorter() -> None:
    cells = [cell("litserve", "open-60", 50, 90), cell("bentoml", "open-60", 50, 200)]
    claim = "open-60 p99: container / best peer"
    assert found(claim, *cells, cell("container", "open-60", 50, 89)).verdict == "met"
    assert found(claim, *cells, cell("container", "open-60", 50, 90)).verdict == "NOT met"


def test_a_failed_request_counts_as_the_longest_wait() -> None:
    summary = summarise({"completed_per_s": 1, "latencies_ms": [1.0] * 98, "failures": {"503": 2}})
    assert summary["requests"] == 100
    assert summary["p50_ms"] == 1.0
    assert summary["p99_ms"] == TIME_LIMIT_S * 1e3


def test_what_the_turns_of_a_round_found_is_one_figure() -> None:
    pieces = [
        Piece(100.0, [1.0, 2.0], {"503": 1}, 0.0, {"server_cores": 1.0}),
        Piece(50.0, [4.0], {"503": 2}, 0.0, {"server_cores": 0.5}),
    ]
    one = merged(pieces)
    assert (one["completed_per_s"], one["turns_per_s"], one["server_cores"]) == (75.0, [100.0, 50.0], 0.75)
    assert (one["requests"], one["p50_ms"], one["failures"]) == (6, 4.0, {"503": 3})
    assert one["turns_p99_ms"] == [2.0, 4.0]


def test_with_one_connection_the_throughput_is_that_of_a_services_own_turns() -> None:
    one = of_bursts(Turns([0.5, 1.5], [8, 7], [100.0] * 15, {"503": 1}), {"server_cores": 1.0})
    assert (one["completed_per_s"], one["turns_per_s"], one["server_cores"]) == (7.5, [16.0, 4.7], 1.0)
    assert (one["requests"], one["p50_ms"], one["failures"]) == (16, 100.0, {"503": 1})


def test_with_one_connection_all_get_the_same_texts_in_turn_and_failures_are_counted() -> None:
    seen: list[tuple[str, bytes]] = []

    async def answered(request: web.Request) -> web.Response:
        seen.append((request.path, await request.read()))
        return web.Response(status=200 if request.path == "/a" else 503)

    async def both() -> list[Turns]:
        app = web.Application()
        app.router.add_post("/{name}", answered)
        async with TestServer(app) as server:
            return await bursts([str(server.make_url(path)) for path in ("/a", "/b")], [str(n) for n in range(100)], 0)

    good, bad = asyncio.run(both())
    assert [path for path, _ in seen] == ["/a"] * IN_A_ROW + ["/b"] * IN_A_ROW
    assert [body for _, body in seen[:IN_A_ROW]] == [body for _, body in seen[IN_A_ROW:]]
    assert (len(good.took_s), len(good.latencies_ms), good.failures) == (1, IN_A_ROW, {})
    assert (good.answered, bad.answered) == ([IN_A_ROW], [0])
    assert (bad.latencies_ms, bad.failures) == ([], {"503": IN_A_ROW})


def test_those_of_a_block_take_turns_and_nobody_is_always_the_first() -> None:
    assert {in_turn(["a", "b", "c", "d"], turn, 4)[0] for turn in range(4)} == {"a", "b", "c", "d"}
    made = [Contestant(name, (), Path(), (), block=block) for name, block in (("a", "x"), ("b", ""), ("c", "x"))]
    assert [[one.name for one in block] for block in blocks(made, lambda one: one.block)] == [["a", "c"], ["b"]]


@pytest.mark.parametrize(("share", "expected"), [(0.5, 50), (0.95, 95), (0.99, 99), (1.0, 100)])
def test_a_percentile_is_the_smallest_value_that_so_many_do_not_exceed(share: float, expected: int) -> None:
    assert percentile_ms(list(range(1, 101)), share) == expected
