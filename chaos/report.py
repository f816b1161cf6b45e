"""What a campaign did and found, for people (Markdown) and for programs (JSON)."""

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

ACTS = {
    "die": "worker killed at a boundary",
    "freeze": "worker frozen at a boundary",
    "lose": "answer lost at a boundary",
    "usurp": "job, if one was held, put back in line by hand at a boundary",
}


@dataclass(slots=True)
class Report:
    """All of a campaign, as it comes in.

    Attributes:
        command: that repeats it.
        began_at: on the clock of `time.monotonic`.
        is_over: the campaign went to its end; else it was written down meanwhile.
        faults: that happened, by kind.
        boundaries: discovered.
        hits: of boundaries, by act.
        missed: acts that never happened at a boundary where they should have.
        measured: seconds, by what they measure.
    """

    command: str
    seed: int
    began_at: float = field(default_factory=time.monotonic)
    is_over: bool = False
    faults: Counter[str] = field(default_factory=Counter)
    boundaries: set[str] = field(default_factory=set)
    hits: dict[str, Counter[str]] = field(default_factory=lambda: {act: Counter() for act in ACTS})
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
        """Whether everything held, and every boundary had its fault."""
        return not self.violations and not self.problems and not self.missed

    @property
    def seconds(self) -> float:
        """How long it has taken so far."""
        return time.monotonic() - self.began_at

    def take_sweep(self, sweep: Sweep, violations: Sequence[Violation]) -> list[str]:
        """Add the sweep of a scene; return what did not hold in it, in words."""
        self.boundaries |= sweep.boundaries
        self.missed |= sweep.wanted()
        for (act, boundary), count in sweep.fired.items():
            self.faults[ACTS[act]] += count
            self.hits[act][boundary] += count
        # What counts is that it happened at all, in whichever scene.
        self.missed = {
            (act, boundary) for act, boundary in self.missed if not self.hits[act][boundary]
        }
        self.clients += len(sweep.cases)
        self.workers += sum(len(case.passed) for case in sweep.cases)
        found = sweep.with_cases(violations)
        self.violations += found
        self.problems += sweep.problems()
        return [*found, *sweep.problems()]

    def take_round(self, outcome: Outcome) -> list[str]:
        """Add a round of random faults; return what did not hold in it, in words."""
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
                "pace": outcome.pace,
                "faults": outcome.faults.total(),
                "clients": outcome.clients,
                "workers": outcome.workers,
                "retries": outcome.retries.total(),
                "settle_seconds": round(outcome.settle_seconds, 1),
                "violations": len(outcome.violations),
            }
        )
        self.measure(
            "killed worker: until its job is claimed by another "
            f"(lease {LEASE * outcome.pace:g} s)",
            outcome.rescue_seconds,
        )
        self.measure("platform's server crashed: until the next transition", outcome.outage_seconds)
        self.measure("platform's server is back: until the next transition", outcome.back_seconds)
        return outcome.found()

    def take_fail_over(self, fail_over: FailOver) -> None:
        """Add a fail-over."""
        self.faults["platform's primary crashed, its standby promoted"] += 1
        self.measure("fail-over: from the fall to the next transition", [fail_over.from_fall])
        self.measure("fail-over: from the promotion", [fail_over.from_promotion])
        self.violations += [f"fail-over: {violation}" for violation in fail_over.violations]
        self.problems += [f"fail-over: {problem}" for problem in fail_over.problems]

    def measure(self, what: str, seconds: Sequence[float]) -> None:
        """Add measurements."""
        self.measured.setdefault(what, []).extend(seconds)

    def write(self, folder: Path) -> tuple[Path, Path]:
        """Write both forms; return their paths."""
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
            "over": self.is_over,
            "cores": os.cpu_count(),
            "settings": SETTINGS,
            "clean": self.is_clean,
            "faults": {"total": self.faults.total(), "by_kind": dict(sorted(self.faults.items()))},
            "clients": self.clients,
            "workers": self.workers,
            "boundaries": {
                boundary: {act: self.hits[act][boundary] for act in ACTS}
                for boundary in sorted(self.boundaries)
            },
            "missed": sorted(map(list, self.missed)),
            "rounds": self.rounds,
            "retries": dict(self.retries.most_common()),
            "measured": {what: spread(values) for what, values in self.measured.items() if values},
            "violations": self.violations,
            "problems": self.problems,
        }

    def as_markdown(self) -> str:
        verdict = "Everything held." if self.is_clean else "**Something did not hold.**"
        if not self.is_over:
            verdict = f"It did not end: this is what it had come to. {verdict}"
        killed = sum(1 for boundary in self.boundaries if self.hits["die"][boundary])
        minutes = self.seconds / 60
        lines = [
            f"# Chaos campaign, seed {self.seed}",
            "",
            f"`{self.command}` took {minutes:.1f} min on {os.cpu_count()} cores. {verdict}",
            "",
            f"- {self.faults.total()} faults, {self.workers} workers, {self.clients} clients",
            f"- {len(self.boundaries)} step boundaries discovered, {killed} of them killed",
            f"- {len(self.violations)} violations, {len(self.problems)} problems",
            f"- {self.retries.total()} jobs retried by a person, as their errors asked for",
            "",
            "## Faults",
            "",
            *_table(("what happened", "times"), sorted(self.faults.items())),
            "",
            "## Seconds",
            "",
            *_table(
                ("from, to", "n", "p50", "p95", "max"),
                [
                    (what, *(f"{value:g}" for value in spread(values).values()))
                    for what, values in self.measured.items()
                    if values
                ],
            ),
            "",
        ]
        for title, found in (("Violations", self.violations), ("Problems", self.problems)):
            if found:
                lines += [f"## {title}", "", *(f"- {each}" for each in found), ""]
        if self.missed:
            missed = [f"{act} {boundary}" for act, boundary in sorted(self.missed)]
            lines += ["## Never hit", "", *(f"- {each}" for each in missed), ""]
        lines += [
            "## Retried by a person",
            "",
            *_table(("error", "times"), self.retries.most_common()),
            "",
            "## Step boundaries",
            "",
            *_table(
                ("boundary", "killed", "frozen", "answer lost", "usurped"),
                [
                    (f"`{boundary}`", *(self.hits[act][boundary] for act in ACTS))
                    for boundary in sorted(self.boundaries)
                ],
            ),
            "",
        ]
        return "\n".join(lines)


def spread(values: Sequence[float]) -> dict[str, float]:
    """Return how many there are, and their median, 95th percentile and maximum."""
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
