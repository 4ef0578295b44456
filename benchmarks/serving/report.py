"""The table and the ratios of one run, from its raw figures: `python -m benchmarks.serving.report RESULTS.json`."""

import json
import statistics
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.serving.client import TIME_LIMIT_S

Results = dict[str, Any]
NOISY_CORES = 0.2
LOADS = ("offline", "closed-1", "closed-8", "closed-64", "open-60", "open-80")
PEERS = ("naive", "fastapi-threaded", "fastapi-blocking", "litserve", "bentoml")
SERVE_BATCH = tuple(f"serve-batch-{kind}ms" for kind in ("padded-5", "0", "5", "20", "100"))


@dataclass(frozen=True)
class Ratio:
    """One line of the acceptance. value: None when a side was not measured. target: its text, as in `>= 0.90`.

    error: about the standard error of `value`, where both sides were measured in turns.
    """

    claim: str
    value: float | None
    target: str
    note: str = ""
    error: float | None = None

    @property
    def verdict(self) -> str:
        if self.value is None:
            return "not measured"
        sign, limit = self.target.split()
        met = {">=": self.value >= float(limit), ">": self.value > float(limit), "<": self.value < float(limit)}[sign]
        return "met" if met else "NOT met"


def values(results: Results, contestant: str, load: str, key: str) -> list[float]:
    """One figure per round."""
    cells = (cell for cell in results["cells"] if (cell["contestant"], cell["load"]) == (contestant, load))
    return [cell[key] for cell in cells if cell.get(key) is not None]


def median(results: Results, contestant: str, load: str, key: str) -> float | None:
    """The median over the rounds; None when it was not measured."""
    found = values(results, contestant, load, key)
    return statistics.median(found) if found else None


def turn_ratios(
    results: Results, ours: tuple[str, str], theirs: tuple[str, str], key: str = "turns_per_s"
) -> list[float]:
    """Of two contestants under their loads, each turn of the one over the same turn of the other."""

    def turns(side: tuple[str, str]) -> dict[tuple[int, int], float | None]:
        cells = (cell for cell in results["cells"] if (cell["contestant"], cell["load"]) == side)
        return {(cell["round"], turn): each for cell in cells for turn, each in enumerate(cell.get(key, ()))}

    above, below = turns(ours), turns(theirs)
    both = [(above[turn], below[turn]) for turn in above.keys() & below.keys()]
    return [ours_found / theirs_found for ours_found, theirs_found in both if ours_found is not None and theirs_found]


def standard_error(found: list[float]) -> float | None:
    """Of the mean of ratios of single turns; None for fewer than three."""
    return statistics.stdev(found) / len(found) ** 0.5 if len(found) > 2 else None


def ratios(results: Results) -> list[Ratio]:
    """What the acceptance names, in its order."""

    def throughput(name: str, load: str) -> float | None:
        return median(results, name, load, "completed_per_s")

    def p99(name: str, load: str) -> float | None:
        return median(results, name, load, "p99_ms")

    def best(
        pick: Callable[..., float], names: Iterable[str], figure: Callable[[str, str], float | None], load: str
    ) -> tuple[float | None, str]:
        """The best figure, and whose it is."""
        measured = {name: value for name in names if (value := figure(name, load)) is not None}
        if not measured:
            return None, ""
        chosen = pick(measured.values())
        return chosen, next(name for name, value in measured.items() if value == chosen)

    def over(ours: float | None, theirs: float | None) -> float | None:
        return ours / theirs if ours is not None and theirs else None

    def against(ours: str, theirs: str, target: str) -> Ratio:
        loads = ("closed-64", "offline" if theirs == "ceiling" else "closed-64")
        value = over(throughput(ours, loads[0]), throughput(theirs, loads[1]))
        error = standard_error(turn_ratios(results, (ours, loads[0]), (theirs, loads[1])))
        return Ratio(f"closed-64 req/s: {ours} / {theirs}", value, target, error=error)

    def against_fastapi(ours: str, load: str, target: str, workers: str = "") -> Ratio:
        forms = (f"fastapi-threaded{workers}", f"fastapi-blocking{workers}")
        theirs, name = best(max, forms, throughput, load)
        value = over(throughput(ours, load), theirs)
        error = standard_error(turn_ratios(results, (ours, load), (name, load)))
        return Ratio(f"{load} req/s: {ours} / unbatched FastAPI{workers}", value, target, name, error)

    def tail(ours: str, load: str, whose: str, names: Iterable[str]) -> Ratio:
        theirs, name = best(min, names, p99, load)
        error = standard_error(turn_ratios(results, (ours, load), (name, load), "turns_p99_ms"))
        return Ratio(f"{load} p99: {ours} / best {whose}", over(p99(ours, load), theirs), "< 1", name, error)

    found = [against("container", "ceiling", ">= 0.90"), against("ray-1", "ceiling", ">= 0.85")]
    for ours in ("container", "ray-1"):
        found += [against(ours, peer, ">= 2") for peer in ("litserve", "bentoml")]
        found.append(against(ours, "naive", ">= 10"))
    found += [against_fastapi("container", load, ">= 1") for load in ("closed-1", "closed-8", "closed-64")]
    found.append(against_fastapi("ray-1", "closed-1", ">= 0.90"))
    found += [against_fastapi("ray-1", load, "> 1") for load in ("closed-8", "closed-64")]
    found += [against_fastapi("ray-2", load, "> 1", "-2") for load in ("closed-8", "closed-64")]
    for load in ("open-60", "open-80"):
        for ours in ("container", "ray-1"):
            found.append(tail(ours, load, "peer", PEERS))
            found.append(tail(ours, load, "@serve.batch", SERVE_BATCH))
    return found


def one_line(cell: dict[str, Any]) -> str:
    """One measurement, as the run prints it."""
    line = f"round {cell['round']}  {cell['contestant']:<24} {cell['load']:<10} {cell['completed_per_s']:7.1f}/s"
    if cell.get("p99_ms") is not None:
        line += f"  p50/95/99 {cell['p50_ms']:.0f}/{cell['p95_ms']:.0f}/{cell['p99_ms']:.0f} ms"
    if cell.get("failures"):
        line += f"  FAILED {cell['failures']}"
    return f"{line}  foreign {cell['foreign_cores']:.2f} cores"


def table(results: Results) -> list[str]:
    """A block per load, a row per contestant: medians over the rounds."""
    ceiling = median(results, "ceiling", "offline", "completed_per_s")
    names = list(dict.fromkeys(cell["contestant"] for cell in results["cells"]))
    lines = []
    for load in LOADS:
        rows = [name for name in names if values(results, name, load, "completed_per_s")]
        if not rows:
            continue
        rates = [cell["rate_per_s"] for cell in results["cells"] if cell["load"] == load and cell.get("rate_per_s")]
        lines.append(f"\n{load}" + (f", {rates[0]:.1f} requests/s sent" if rates else ""))
        lines.append(
            f"  {'':<24} {'req/s':>7} {'spread':>6} {'/ceil':>5} {'p50':>6} {'p95':>6} {'p99 ms':>6} {'spread':>6}"
            f" {'failed':>7} {'server':>6} {'client':>6} {'foreign':>7} {'steal':>5}"
        )
        for name in rows:
            per_s = values(results, name, load, "completed_per_s")
            middle = statistics.median(per_s)
            share = f"{middle / ceiling:5.2f}" if ceiling else "    -"
            line = f"  {name:<24} {middle:7.1f} {_spread(per_s):>6} {share}"
            for key in ("p50_ms", "p95_ms", "p99_ms"):
                value = median(results, name, load, key)
                line += f" {'-' if value is None else f'{value:.0f}':>6}"
            cells = [cell for cell in results["cells"] if (cell["contestant"], cell["load"]) == (name, load)]
            failed = sum(sum(cell.get("failures", {}).values()) for cell in cells)
            sent = sum(cell.get("requests", 0) for cell in cells)
            line += f" {_spread(values(results, name, load, 'p99_ms')):>6} {f'{failed}/{sent}' if failed else '0':>7}"
            for key, width in (("server", 6), ("client", 6), ("foreign", 7), ("steal", 5)):
                line += f" {median(results, name, load, f'{key}_cores') or 0:{width}.2f}"
            lines.append(line)
    return lines


def _spread(figures: list[float]) -> str:
    """Largest less smallest, in percent of the median."""
    middle = statistics.median(figures) if figures else 0
    return f"{(max(figures) - min(figures)) / middle:.0%}" if middle else "-"


def text(results: Results) -> str:
    """The report that a person reads."""
    machine = results["machine"]
    lines = [
        f"{machine['cores']} cores, {', '.join(machine['cpu'])}; Python {machine['python']}, "
        + ", ".join(f"{name} {version}" for name, version in results["versions"].items()),
        f"{results['dtype']}; {results['rounds']} rounds of {results['seconds']:g} s, medians over the rounds; "
        "spread: (largest - smallest) / median; "
        f"server, client, foreign, steal: cores in use; a failed request counts as {TIME_LIMIT_S} s",
    ]
    if results["capacity_per_s"]:
        lines.append(f"capacity for the open loops, the same for everybody: {results['capacity_per_s']:.1f} requests/s")
    lines += table(results)
    noisy = [cell for cell in results["cells"] if cell["foreign_cores"] + cell["steal_cores"] > NOISY_CORES]
    lines.append(
        f"\n{len(noisy)} of {len(results['cells'])} measurements lost more than {NOISY_CORES} cores to others: "
        + ("measure again on a quiet machine" if noisy else "neighbours on the host's cores do not show here")
    )
    lines.append("\nAgainst the acceptance")
    for ratio in ratios(results):
        value = "     -" if ratio.value is None else f"{ratio.value:6.2f}"
        error = "" if ratio.error is None else f"+- {ratio.error:.2f}"
        note = f"  ({ratio.note})" if ratio.note else ""
        lines.append(f"  {ratio.verdict:<12} {value} {error:<7}  target {ratio.target:<8} {ratio.claim}{note}")
    labels = {name: answer[0]["label"] for name, answer in results["answers"].items()}
    if len(set(labels.values())) > 1:
        lines.append(f"\nThe contestants do not give the same answer, so the figures cannot be compared: {labels}")
    for name, reason in results["skipped"].items():
        lines.append(f"\nLeft out: {name}, because {reason}")
    return "\n".join(lines)


if __name__ == "__main__":
    print(text(json.loads(Path(sys.argv[1]).read_text())))
