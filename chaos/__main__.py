"""`make chaos MINUTES=n SEED=s`: one campaign, from its plan to its report.

First every step boundary is killed, frozen at and robbed of its answer in turn; then come rounds
of random faults for so many minutes; then fail-overs, and recovery at production's settings. The
exit code is 1 when anything did not hold.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import random
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from chaos.artifacts import keep
from chaos.campaign import expected, run_round
from chaos.checker import check
from chaos.failpoints import Act
from chaos.plan import plan_round
from chaos.recovery import measure_fail_over, measure_rescues
from chaos.report import Report, spread
from chaos.scenarios import SCENES
from chaos.sweep import sweep
from chaos.testbed import Stage, a_stage

if TYPE_CHECKING:
    from collections.abc import Sequence

REPORTS = Path("build/chaos")
MOST_ROUNDS = 10_000
FAIL_OVERS = 3
ALL_ACTS = ",".join(get_args(Act))


def main() -> int:
    """Run a campaign; return the exit code."""
    options = options_of()
    # As Ctrl-C, which a shell lets jobs in the background ignore: no server may outlive us.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    # Whoever reads it through a pipe wants to see how far it is.
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # a TextIOWrapper
    # Clients die in the middle of their requests: what the simulator's server says of it is noise.
    logging.getLogger("uvicorn.error").disabled = True
    seed = options.seed if options.seed is not None else random.randrange(100_000)
    command = what_repeats(options, seed)
    report = Report(command, seed)
    print(f"chaos: seed {seed} ({command} repeats its plan)")
    with tempfile.TemporaryDirectory(prefix="pgworker-chaos-") as folder:
        try:
            asyncio.run(_campaign(options, report, Path(folder)))
        except KeyboardInterrupt:
            print(f"chaos: interrupted; what it found so far is in {REPORTS}")
            return 1
    report.is_over = True
    paths = report.write(REPORTS)
    for act, boundary in sorted(report.missed):
        print(f"chaos: never happened: {act} {boundary}")
    verdict = "everything held" if report.is_clean else "something did not hold"
    print(
        f"chaos: {verdict}: {report.faults.total()} faults, {len(report.violations)} violations, "
        f"{report.seconds:.0f} s; {' '.join(map(str, paths))}"
    )
    return 0 if report.is_clean else 1


def what_repeats(options: argparse.Namespace, seed: int) -> str:
    """Return the command that repeats this campaign's plan."""
    arguments = [
        *([] if options.round is None else [f"--round={options.round}"]),
        *([] if options.acts == ALL_ACTS else [f"--acts={options.acts}"]),
        *(["--no-recovery"] if options.no_recovery else []),
        *(["--every-passage"] if options.every_passage else []),
    ]
    command = f"make chaos MINUTES={options.minutes:g} SEED={seed}"
    return f'{command} CHAOS_ARGS="{" ".join(arguments)}"' if arguments else command


def options_of(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10, help="of random faults")
    parser.add_argument("--seed", type=int, help="of the plan; random unless given")
    parser.add_argument("--round", type=int, help="this round of the seed and nothing else")
    parser.add_argument(
        "--acts",
        default=ALL_ACTS,
        help="what happens at each boundary in turn; empty: no sweep",
    )
    parser.add_argument("--no-recovery", action="store_true", help="measure no fail-over")
    parser.add_argument(
        "--every-passage", action="store_true", help="sweep each passage of a boundary, not one"
    )
    return parser.parse_args(arguments)


async def _campaign(options: argparse.Namespace, report: Report, folder: Path) -> None:
    async with a_stage(folder) as stage:
        if options.round is not None:
            await _round(report, stage, options.round)
            return
        acts = [act for act in get_args(Act) if act in options.acts.split(",")]
        if acts:
            await _sweep(report, stage, acts, every_passage=options.every_passage)
        ends_at = time.monotonic() + options.minutes * 60
        for number in range(MOST_ROUNDS):
            if time.monotonic() >= ends_at:
                break
            await _round(report, stage, number)
        if not options.no_recovery:
            await _recovery(report, stage, folder)


async def _recovery(report: Report, stage: Stage, folder: Path) -> None:
    rng = random.Random(f"{report.seed}/recovery")
    rescues = await measure_rescues(stage.platform, folder / "rescues", rng)
    report.faults["worker killed at a random moment"] += len(rescues)
    report.measure("killed worker: until its job is claimed by another (lease 30 s)", rescues)
    for number in range(FAIL_OVERS):
        (folder / f"fail-over-{number}").mkdir()
        report.take_fail_over(
            await measure_fail_over(stage.tenants, folder / f"fail-over-{number}")
        )
    for what, seconds in report.measured.items():
        print(f"chaos: {what}: {spread(seconds) if seconds else 'none'}")


async def _sweep(report: Report, stage: Stage, acts: list[Act], *, every_passage: bool) -> None:
    done: set[tuple[str, str]] = set()
    for scene in SCENES:
        began = time.monotonic()
        swept, evidence = await sweep(
            scene, stage, acts=acts, every_passage=every_passage, done=done
        )
        found = report.take_sweep(swept, check(evidence, expected()))
        if found:
            keep(_exhibits(report, scene.name.replace(" ", "-")), evidence, stage, found)
        _tell(
            report,
            f"{scene.name}: {len(swept.boundaries)} boundaries, {swept.fired.total()} faults, "
            f"{len(found)} violations and problems, {time.monotonic() - began:.0f} s",
            found,
        )


async def _round(report: Report, stage: Stage, number: int) -> None:
    began = time.monotonic()
    exhibits = _exhibits(report, f"round-{number}")
    outcome = await run_round(plan_round(report.seed, number), stage, exhibits=exhibits)
    found = report.take_round(outcome)
    _tell(
        report,
        f"round {number} ({outcome.round.kind}): {outcome.faults.total()} faults, "
        f"{len(outcome.violations)} violations, {len(outcome.problems)} problems, "
        f"{time.monotonic() - began:.0f} s; {report.faults.total()} faults so far",
        found,
    )


def _exhibits(report: Report, name: str) -> Path:
    return REPORTS / f"chaos-{report.seed}-{name}"


def _tell(report: Report, summary: str, found: list[str]) -> None:
    """Say what is known at once, and write it down: the run may be interrupted."""
    for line in (summary, *found):
        print(f"chaos: {line}")
    report.write(REPORTS)


if __name__ == "__main__":
    sys.exit(main())
