"""The targets of the bench, and whether results meet them. Pure functions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench import field
from bench.figures import median

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

Run = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Verdict:
    """A figure and its target.

    Attributes:
        name: what the figure is.
        value: None when it was not measured.
        bound: what the value must reach (`at_least`), or must not exceed.
    """

    name: str
    value: float | None
    bound: float
    at_least: bool

    @property
    def outcome(self) -> str:
        """`met`, `missed` or `not measured`."""
        if self.value is None:
            return "not measured"
        met = self.value >= self.bound if self.at_least else self.value <= self.bound
        return "met" if met else "missed"

    @property
    def target(self) -> str:
        """The bound, with its relation."""
        return f"{'≥' if self.at_least else '≤'} {self.bound:g}"


def judge(cells: Mapping[str, Sequence[Run]]) -> list[Verdict]:
    """Compare the runs of all cells with the targets."""
    throughput = Medians(cells.get("throughput", ()), "jobs_per_second")
    p50 = Medians(cells.get("latency", ()), "p50_ms")
    p99 = Medians(cells.get("latency", ()), "p99_ms")
    enqueue = Medians(cells.get("enqueue", ()), "jobs_per_second")
    beside = Medians(cells.get("degradation", ()), "jobs_per_second", by="beside")
    processes = Medians(cells.get("processes", ()), "jobs_per_second", by="processes")
    floor = p50.get(field.FLOOR.label)
    few = beside.get("few")
    awaiting = cells.get("awaiting", ())
    ours, bare_loop = throughput.get_ours(), throughput.get(field.ONE_CONNECTION.label)
    fastest = p50.get_best_peer(min)
    return [
        at_least("no-op throughput ÷ best peer", divide(ours, throughput.get_best_peer(max)), 2),
        at_least("no-op throughput ÷ bare loop on one connection", divide(ours, bare_loop), 0.45),
        at_most("enqueue to start, median ÷ floor", divide(p50.get_ours(min), floor), 2.5),
        at_most("enqueue to start, median ÷ best peer", divide(p50.get_ours(min), fastest), 0.65),
        at_most("enqueue to start, p99 ÷ floor", divide(p99.get_ours(min), floor), 6),
        *(
            at_least(f"throughput with 1 M {rows} ÷ few", divide(beside.get(rows), few), 0.95)
            for rows in ("queued", "waiting", "finished")
        ),
        at_least(
            "bulk enqueue ÷ best peer", divide(enqueue.get_ours(), enqueue.get_best_peer(max)), 1.2
        ),
        at_most(
            "clients coming up: p99 of the delay, s", compute_median(awaiting, "late_p99_s"), 1
        ),
        at_most("clients coming up: connections", compute_median(awaiting, "connections"), 10),
        at_most("clients coming up: memory, MiB", compute_median(awaiting, "worker_mib"), 300),
        at_most(
            "tenant end to end ÷ CREATE DATABASE + psql",
            compute_median(cells.get("tenants", ()), "ratio"),
            1.5,
        ),
        at_least("throughput of 2 processes ÷ 1", divide(processes.get(2), processes.get(1)), 1),
        at_least("throughput of 8 processes ÷ 2", divide(processes.get(8), processes.get(2)), 1),
    ]


class Medians:
    """The medians of a figure over the rounds, by contender."""

    def __init__(self, runs: Sequence[Run], figure: str, *, by: str = "label") -> None:
        """Group the runs that have the figure."""
        grouped: dict[Any, list[float]] = {}
        self._kinds: dict[Any, str] = {}
        for run in runs:
            if figure in run:
                grouped.setdefault(run[by], []).append(run[figure])
                self._kinds[run[by]] = run.get("kind", "")
        self._medians = {key: median(values) for key, values in grouped.items()}

    def get(self, key: object) -> float | None:
        """Return the median of this contender; None when it has none."""
        return self._medians.get(key)

    def get_ours(self, best: Callable[..., float] = max) -> float | None:
        """Return the best median of our settings."""
        return self._best("ours", best)

    def get_best_peer(self, best: Callable[..., float]) -> float | None:
        """Return the best peer's median."""
        return self._best("peer", best)

    def _best(self, kind: str, best: Callable[..., float]) -> float | None:
        found = [value for key, value in self._medians.items() if self._kinds[key] == kind]
        return best(found) if found else None


def at_least(name: str, value: float | None, bound: float) -> Verdict:
    """Return the verdict on a figure that must reach a bound."""
    return Verdict(name, value, bound, at_least=True)


def at_most(name: str, value: float | None, bound: float) -> Verdict:
    """Return the verdict on a figure that must not exceed a bound."""
    return Verdict(name, value, bound, at_least=False)


def divide(value: float | None, other: float | None) -> float | None:
    """Return the quotient; None when one of the two is missing."""
    return None if value is None or not other else value / other


def compute_median(runs: Sequence[Run], figure: str) -> float | None:
    """Return the median of a figure; None when no run has it."""
    values = [run[figure] for run in runs if figure in run]
    return median(values) if values else None
