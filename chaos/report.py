"""The report of a campaign, in Markdown for people and in JSON for programs."""

from __future__ import annotations

import json
import os
import statistics
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from chaos.time_scaling import LEASE, SETTINGS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from chaos.campaign import Outcome
    from chaos.checker import Violation
    from chaos.recovery import FailOver
    from chaos.sweep import Sweep

ACTIONS = {
    "die": "worker killed at a boundary",
    "freeze": "worker frozen at a boundary",
    "lose": "answer lost at a boundary",
    "requeue": "job, if the worker held one, requeued by hand at a boundary",
}


@dataclass(slots=True)
class Report:
    """The results of a campaign so far.

    Attributes:
        command: that repeats it.
        began_at: on the clock of `time.monotonic`.
        is_complete: the campaign ran to its end.
        faults: that happened, by kind.
        boundaries: that were discovered.
        hits: how often each action happened at each boundary.
        missed: actions that never happened at a boundary where they should have.
        measured: seconds, by what they measure.
    """

    command: str
    seed: int
    began_at: float = field(default_factory=time.monotonic)
    is_complete: bool = False
    faults: Counter[str] = field(default_factory=Counter)
    boundaries: set[str] = field(default_factory=set)
    hits: dict[str, Counter[str]] = field(
        default_factory=lambda: {action: Counter() for action in ACTIONS}
    )
    missed: set[tuple[str, str]] = field(default_factory=set)
    clients: int = 0
    workers: int = 0
    rounds: list[dict[str, Any]] = field(default_factory=list)
    retries: Counter[str] = field(default_factory=Counter)
    measured: dict[str, list[float]] = field(default_factory=dict)
    violations: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def is_clean(self) -> bool:
        """Whether every invariant holds and every boundary had its faults."""
        return not self.violations and not self.problems and not self.missed

    @property
    def seconds(self) -> float:
        """How long it has taken so far."""
        return time.monotonic() - self.began_at

    def add_sweep(self, sweep: Sweep, violations: Sequence[Violation]) -> list[str]:
        """Add the sweep of a scenario; return its violations and problems in words."""
        self.boundaries |= sweep.boundaries
        self.missed |= sweep.list_wanted()
        for (action, boundary), count in sweep.fired.items():
            self.faults[ACTIONS[action]] += count
            self.hits[action][boundary] += count
        # One hit in any of the scenarios is enough.
        self.missed = {
            (action, boundary)
            for action, boundary in self.missed
            if not self.hits[action][boundary]
        }
        self.clients += len(sweep.cases)
        self.workers += sum(len(case.passed) for case in sweep.cases)
        described = sweep.describe_violations(violations)
        problems = sweep.describe_problems()
        self.violations += described
        self.problems += problems
        return [*described, *problems]

    def add_round(self, outcome: Outcome) -> list[str]:
        """Add a round of random faults; return its violations and problems in words."""
        name = f"round {outcome.round.number} ({outcome.round.kind})"
        self.faults.update(outcome.faults)
        self.hits["die"].update(outcome.killed_at)
        self.clients += outcome.clients
        self.workers += outcome.workers
        self.retries.update(outcome.retries)
        self.problems += [f"{name}: {problem}" for problem in outcome.problems]
        self.violations += [f"{name}: {violation}" for violation in outcome.violations]
        self.rounds.append(
            {
                "number": outcome.round.number,
                "kind": outcome.round.kind,
                "slowdown": outcome.slowdown,
                "faults": outcome.faults.total(),
                "clients": outcome.clients,
                "workers": outcome.workers,
                "retries": outcome.retries.total(),
                "settle_seconds": round(outcome.settle_seconds, 1),
                "violations": len(outcome.violations),
            }
        )
        self.add_measurements(
            "killed worker: until its job is claimed by another "
            f"(lease {LEASE * outcome.slowdown:g} s)",
            outcome.rescue_seconds,
        )
        self.add_measurements(
            "platform's server crashed: until the next transition", outcome.outage_seconds
        )
        self.add_measurements(
            "platform's server is back: until the next transition", outcome.back_seconds
        )
        return outcome.list_failures()

    def add_fail_over(self, fail_over: FailOver) -> None:
        """Add a fail-over."""
        self.faults["platform's primary crashed, its standby promoted"] += 1
        self.add_measurements(
            "fail-over: from the crash to the next transition", [fail_over.from_crash]
        )
        self.add_measurements(
            "fail-over: from the promotion to the next transition", [fail_over.from_promotion]
        )
        self.violations += [f"fail-over: {violation}" for violation in fail_over.violations]
        self.problems += [f"fail-over: {problem}" for problem in fail_over.problems]

    def add_measurements(self, name: str, seconds: Sequence[float]) -> None:
        """Add measurements."""
        self.measured.setdefault(name, []).extend(seconds)

    def write(self, folder: Path) -> tuple[Path, Path]:
        """Write the Markdown and the JSON file; return their paths."""
        folder.mkdir(parents=True, exist_ok=True)
        markdown, data = folder / f"chaos-{self.seed}.md", folder / f"chaos-{self.seed}.json"
        markdown.write_text(self.as_markdown())
        data.write_text(json.dumps(self.as_json(), indent=2) + "\n")
        return markdown, data

    def as_json(self) -> dict[str, Any]:
        return {
            "command": self.command,
            "seed": self.seed,
            "seconds": round(self.seconds, 1),
            "complete": self.is_complete,
            "cores": os.cpu_count(),
            "settings": SETTINGS,
            "clean": self.is_clean,
            "faults": {"total": self.faults.total(), "by_kind": dict(sorted(self.faults.items()))},
            "clients": self.clients,
            "workers": self.workers,
            "boundaries": {
                boundary: {action: self.hits[action][boundary] for action in ACTIONS}
                for boundary in sorted(self.boundaries)
            },
            "missed": sorted(map(list, self.missed)),
            "rounds": self.rounds,
            "retries": dict(self.retries.most_common()),
            "measured": {name: spread(values) for name, values in self.measured.items() if values},
            "violations": self.violations,
            "problems": self.problems,
        }

    def as_markdown(self) -> str:
        verdict = "It passed." if self.is_clean else "**It failed.**"
        if not self.is_complete:
            verdict = f"It has not ended; this is its state. {verdict}"
        killed = sum(1 for boundary in self.boundaries if self.hits["die"][boundary])
        minutes = self.seconds / 60
        lines = [
            f"# Chaos campaign, seed {self.seed}",
            "",
            f"`{self.command}` took {minutes:.1f} min on {os.cpu_count()} cores. {verdict}",
            "",
            f"- {self.faults.total()} faults, {self.workers} workers, {self.clients} clients",
            f"- {len(self.boundaries)} step boundaries, workers killed at {killed} of them",
            f"- {len(self.violations)} violations, {len(self.problems)} problems",
            f"- {self.retries.total()} jobs retried by a person, as their errors advised",
            "",
            "## Faults",
            "",
            *_table(("fault", "times"), sorted(self.faults.items())),
            "",
            "## Seconds",
            "",
            *_table(
                ("from, to", "n", "p50", "p95", "max"),
                [
                    (name, *(f"{value:g}" for value in spread(values).values()))
                    for name, values in self.measured.items()
                    if values
                ],
            ),
            "",
        ]
        for title, failures in (("Violations", self.violations), ("Problems", self.problems)):
            if failures:
                lines += [f"## {title}", "", *(f"- {each}" for each in failures), ""]
        if self.missed:
            missed = [f"{action} {boundary}" for action, boundary in sorted(self.missed)]
            lines += ["## Faults that never happened", "", *(f"- {each}" for each in missed), ""]
        lines += [
            "## Retried by a person",
            "",
            *_table(("error", "times"), self.retries.most_common()),
            "",
            "## Step boundaries",
            "",
            *_table(
                ("boundary", "killed", "frozen", "answer lost", "requeued"),
                [
                    (f"`{boundary}`", *(self.hits[action][boundary] for action in ACTIONS))
                    for boundary in sorted(self.boundaries)
                ],
            ),
            "",
        ]
        return "\n".join(lines)


def spread(values: Sequence[float]) -> dict[str, float]:
    """Return the number of the values, and their median, 95th percentile and maximum."""
    ordered = sorted(values)
    p95 = ordered[min(len(ordered) - 1, int(len(ordered) * 0.95))]
    return {
        "n": len(ordered),
        "p50": round(statistics.median(ordered), 2),
        "p95": round(p95, 2),
        "max": round(ordered[-1], 2),
    }


def _table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    if not rows:
        return ["None."]
    lines = [" | ".join(head), " | ".join("---" for _ in head)]
    lines += [" | ".join(str(cell).replace("|", "\\|") for cell in row) for row in rows]
    return [f"| {line} |" for line in lines]
