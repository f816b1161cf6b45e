"""What the figures must show, and whether they do. Pure: from results to verdicts."""

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
    """One promise and the figure that keeps it or doesn't.

    Attributes:
        value: None when it was not measured.
        bound: that it must reach (`at_least`), or must not exceed.
    """

    promise: str
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
        """The bound, in signs."""
        return f"{'≥' if self.at_least else '≤'} {self.bound:g}"


def judge(cells: Mapping[str, Sequence[Run]]) -> list[Verdict]:
    """Hold the runs of all cells against what the bench must show."""
    throughput = Medians(cells.get("throughput", ()), "jobs_per_second")
    p50 = Medians(cells.get("latency", ()), "p50_ms")
    p99 = Medians(cells.get("latency", ()), "p99_ms")
    enqueue = Medians(cells.get("enqueue", ()), "jobs_per_second")
    beside = Medians(cells.get("degradation", ()), "jobs_per_second", by="beside")
    processes = Medians(cells.get("processes", ()), "jobs_per_second", by="processes")
    floor = p50.of(field.FLOOR.label)
    few = beside.of("few")
    awaiting = cells.get("awaiting", ())
    return [
        at_least("no-op throughput ÷ best peer", ratio(throughput.ours(), throughput.peer(max)), 2),
        at_least(
            "no-op throughput ÷ bare loop on one connection",
            ratio(throughput.ours(), throughput.of(field.ONE_CONNECTION.label)),
            0.45,
        ),
        at_most("enqueue to start, median ÷ floor", ratio(p50.ours(min), floor), 2.5),
        at_most("enqueue to start, median ÷ best peer", ratio(p50.ours(min), p50.peer(min)), 0.65),
        at_most("enqueue to start, p99 ÷ floor", ratio(p99.ours(min), floor), 6),
        *(
            at_least(f"throughput beside 1 M {what} ÷ few", ratio(beside.of(what), few), 0.95)
            for what in ("queued", "waiting", "finished")
        ),
        at_least("bulk enqueue ÷ best peer", ratio(enqueue.ours(), enqueue.peer(max)), 1.2),
        at_most("clients coming up: p99 of lateness, s", middle(awaiting, "late_p99_s"), 1),
        at_most("clients coming up: connections", middle(awaiting, "connections"), 10),
        at_most("clients coming up: memory, MiB", middle(awaiting, "worker_mib"), 300),
        at_most(
            "tenant end to end ÷ CREATE DATABASE + psql",
            middle(cells.get("tenants", ()), "ratio"),
            1.5,
        ),
        at_least("throughput of 2 processes ÷ 1", ratio(processes.of(2), processes.of(1)), 1),
        at_least("throughput of 8 processes ÷ 2", ratio(processes.of(8), processes.of(2)), 1),
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

    def of(self, key: object) -> float | None:
        """Return one's median; None when it has none."""
        return self._medians.get(key)

    def ours(self, best: Callable[..., float] = max) -> float | None:
        """Return our best median."""
        return self._best("ours", best)

    def peer(self, best: Callable[..., float]) -> float | None:
        """Return the best peer's median."""
        return self._best("peer", best)

    def _best(self, kind: str, best: Callable[..., float]) -> float | None:
        found = [value for key, value in self._medians.items() if self._kinds[key] == kind]
        return best(found) if found else None


def at_least(promise: str, value: float | None, bound: float) -> Verdict:
    """Return the verdict on a figure that must reach a bound."""
    return Verdict(promise, value, bound, at_least=True)


def at_most(promise: str, value: float | None, bound: float) -> Verdict:
    """Return the verdict on a figure that must not exceed a bound."""
    return Verdict(promise, value, bound, at_least=False)


def ratio(value: float | None, other: float | None) -> float | None:
    """Return the quotient; None when a part is missing."""
    return None if value is None or not other else value / other


def middle(runs: Sequence[Run], figure: str) -> float | None:
    """Return the median of a figure; None when no run has it."""
    values = [run[figure] for run in runs if figure in run]
    return median(values) if values else None
