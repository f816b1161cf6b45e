"""`make chaos MINUTES=n SEED=s`: one campaign, from its plan to its report.

First comes the sweep: at every step boundary in turn a worker is killed, is frozen, loses an answer
or loses its job. Then come rounds of random faults for so many minutes, and then fail-overs and
recovery at production's settings. The exit code is 1 when an invariant doesn't hold.
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

from chaos.artifacts import write_artifacts
from chaos.campaign import expect, run_round
from chaos.checker import check
from chaos.failpoints import Action
from chaos.plan import plan_round
from chaos.recovery import measure_fail_over, measure_rescues
from chaos.report import Report, spread
from chaos.scenarios import SCENARIOS
from chaos.sweep import run_sweep
from chaos.testbed import Testbed, run_testbed

if TYPE_CHECKING:
    from collections.abc import Sequence

REPORTS = Path("build/chaos")
MAX_ROUNDS = 10_000
FAIL_OVERS = 3
ALL_ACTIONS = ",".join(get_args(Action))


def main() -> int:
    """Run a campaign; return the exit code."""
    options = parse_options()
    # A shell lets background jobs ignore Ctrl-C. Both signals must stop our servers.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    # So that a reader of a pipe sees the progress.
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # a TextIOWrapper
    # Workers are killed during their requests: what the simulator's server logs then is noise.
    logging.getLogger("uvicorn.error").disabled = True
    seed = options.seed if options.seed is not None else random.randrange(100_000)
    command = build_command(options, seed)
    report = Report(command, seed)
    print(f"chaos: seed {seed} ({command} repeats its plan)")
    with tempfile.TemporaryDirectory(prefix="pgworker-chaos-") as folder:
        try:
            asyncio.run(_run_campaign(options, report, Path(folder)))
        except KeyboardInterrupt:
            print(f"chaos: interrupted; the report so far is in {REPORTS}")
            return 1
    report.is_complete = True
    paths = report.write(REPORTS)
    for action, boundary in sorted(report.missed):
        print(f"chaos: never happened: {action} {boundary}")
    verdict = "passed" if report.is_clean else "failed"
    print(
        f"chaos: {verdict}: {report.faults.total()} faults, {len(report.violations)} violations, "
        f"{report.seconds:.0f} s; {' '.join(map(str, paths))}"
    )
    return 0 if report.is_clean else 1


def build_command(options: argparse.Namespace, seed: int) -> str:
    """Return the command that repeats this campaign's plan."""
    arguments = [
        *([] if options.round is None else [f"--round={options.round}"]),
        *([] if options.acts == ALL_ACTIONS else [f"--acts={options.acts}"]),
        *(["--no-recovery"] if options.no_recovery else []),
        *(["--every-passage"] if options.every_passage else []),
    ]
    command = f"make chaos MINUTES={options.minutes:g} SEED={seed}"
    return f'{command} CHAOS_ARGS="{" ".join(arguments)}"' if arguments else command


def parse_options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10, help="duration of the random faults")
    parser.add_argument("--seed", type=int, help="seed of the plan (default: a random one)")
    parser.add_argument("--round", type=int, help="run only this round of the seed")
    parser.add_argument(
        "--acts",
        default=ALL_ACTIONS,
        help="what to do at each boundary in turn; empty: no sweep",
    )
    parser.add_argument("--no-recovery", action="store_true", help="don't measure recovery")
    parser.add_argument(
        "--every-passage",
        action="store_true",
        help="sweep each passage of a boundary, not only the first",
    )
    return parser.parse_args(arguments)


async def _run_campaign(options: argparse.Namespace, report: Report, folder: Path) -> None:
    async with run_testbed(folder) as testbed:
        if options.round is not None:
            await _run_round(report, testbed, options.round)
            return
        chosen = options.acts.split(",")
        actions = [action for action in get_args(Action) if action in chosen]
        if actions:
            await _run_sweeps(report, testbed, actions, every_passage=options.every_passage)
        ends_at = time.monotonic() + options.minutes * 60
        for number in range(MAX_ROUNDS):
            if time.monotonic() >= ends_at:
                break
            await _run_round(report, testbed, number)
        if not options.no_recovery:
            await _measure_recovery(report, testbed, folder)


async def _measure_recovery(report: Report, testbed: Testbed, folder: Path) -> None:
    rng = random.Random(f"{report.seed}/recovery")
    rescues = await measure_rescues(testbed.platform, folder / "rescues", rng)
    report.faults["worker killed at a random moment"] += len(rescues)
    report.add_measurements(
        "killed worker: until its job is claimed by another (lease 30 s)", rescues
    )
    for number in range(FAIL_OVERS):
        (folder / f"fail-over-{number}").mkdir()
        report.add_fail_over(
            await measure_fail_over(testbed.tenants, folder / f"fail-over-{number}")
        )
    for name, seconds in report.measured.items():
        print(f"chaos: {name}: {spread(seconds) if seconds else 'none'}")


async def _run_sweeps(
    report: Report, testbed: Testbed, actions: list[Action], *, every_passage: bool
) -> None:
    done: set[tuple[str, str]] = set()
    for scenario in SCENARIOS:
        began = time.monotonic()
        sweep, snapshot = await run_sweep(
            scenario, testbed, actions=actions, every_passage=every_passage, done=done
        )
        failures = report.add_sweep(sweep, check(snapshot, expect()))
        if failures:
            folder = _choose_folder(report, scenario.name.replace(" ", "-"))
            write_artifacts(folder, snapshot, testbed, failures)
        _publish(
            report,
            f"{scenario.name}: {len(sweep.boundaries)} boundaries, {sweep.fired.total()} faults, "
            f"{len(failures)} violations and problems, {time.monotonic() - began:.0f} s",
            failures,
        )


async def _run_round(report: Report, testbed: Testbed, number: int) -> None:
    began = time.monotonic()
    folder = _choose_folder(report, f"round-{number}")
    outcome = await run_round(plan_round(report.seed, number), testbed, artifacts=folder)
    failures = report.add_round(outcome)
    _publish(
        report,
        f"round {number} ({outcome.round.kind}): {outcome.faults.total()} faults, "
        f"{len(outcome.violations)} violations, {len(outcome.problems)} problems, "
        f"{time.monotonic() - began:.0f} s; {report.faults.total()} faults so far",
        failures,
    )


def _choose_folder(report: Report, name: str) -> Path:
    """Return the folder for the artifacts of this part of the campaign."""
    return REPORTS / f"chaos-{report.seed}-{name}"


def _publish(report: Report, summary: str, failures: list[str]) -> None:
    """Print the results so far and write the report, as the campaign may be interrupted."""
    for line in (summary, *failures):
        print(f"chaos: {line}")
    report.write(REPORTS)


if __name__ == "__main__":
    sys.exit(main())
