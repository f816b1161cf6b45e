"""Runs rounds of random faults, each on a platform of its own, and checks the invariants after."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import asyncpg

from chaos.artifacts import write_artifacts
from chaos.checker import Expectation, Violation, check
from chaos.fault_injector import FaultInjector
from chaos.plan import SLOTS
from chaos.supervisor import Supervisor
from chaos.testbed import MIGRATIONS, Sandbox, open_sandbox

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine, Sequence
    from pathlib import Path

    from chaos.fault_injector import Outage
    from chaos.plan import Round
    from chaos.snapshot import Snapshot
    from chaos.testbed import Testbed
    from chaos.workers import ChaosWorker

# A round without a new event for so long is stuck. A slow machine still writes events.
STALL_SECONDS = 60
SETTLE_SECONDS = 600
POLL_SECONDS = 0.1
LIVE_JOBS = """
select count(*)
from client_provisioning_jobs
where status in ('queued', 'running', 'waiting')
"""
NEWEST_EVENT = """
select max(id)
from pgworker.event_log
"""
FAILED = """
select client_id, error_kind, last_error
from pgworker.failed_jobs
"""


@dataclass(slots=True)
class Outcome:
    """The result of a round.

    Attributes:
        slowdown: factor of all durations (`time_scaling`).
        faults: that happened, by kind.
        killed_at: boundaries at which workers were killed.
        passed: boundaries that were passed.
        retries: of failed jobs, by the first words of the error.
        rescue_seconds: from a worker's end until each of its jobs was claimed by another.
        outage_seconds: from a server's crash until the first transition after it.
        back_seconds: from when the server took connections again until that transition.
        problems: other failures than violated invariants.
    """

    round: Round
    slowdown: float = 1.0
    faults: Counter[str] = field(default_factory=Counter)
    killed_at: Counter[str] = field(default_factory=Counter)
    passed: Counter[str] = field(default_factory=Counter)
    clients: int = 0
    workers: int = 0
    retries: Counter[str] = field(default_factory=Counter)
    rescue_seconds: list[float] = field(default_factory=list)
    outage_seconds: list[float] = field(default_factory=list)
    back_seconds: list[float] = field(default_factory=list)
    settle_seconds: float = 0.0
    problems: list[str] = field(default_factory=list)
    violations: list[Violation] = field(default_factory=list)

    def list_failures(self) -> list[str]:
        """Return the violations and problems in words."""
        return [*map(str, self.violations), *self.problems]


def expect(**known: bool) -> Expectation:
    """Return what a campaign's migrations must leave behind, with what else is known of its end."""
    files = sorted(MIGRATIONS.glob("*.sql"))
    versions = [file.name.partition("_")[0] for file in files]
    runs = [
        version
        for version, file in zip(versions, files, strict=True)
        if "insert into public.runs" in file.read_text()
    ]
    return Expectation(versions=versions, runs=runs, **known)


async def run_round(planned: Round, testbed: Testbed, *, artifacts: Path | None = None) -> Outcome:
    """Run a round to its end, let it settle, and check the invariants.

    Args:
        planned: what happens in the round.
        testbed: the servers to use.
        artifacts: a folder for files that explain a failure.
    """
    outcome = Outcome(planned)
    async with open_sandbox(planned.kind, testbed, simulated=planned.simulated) as sandbox:
        platform = await sandbox.add_platform(f"round_{planned.seed}_{planned.number}")
        dsn = testbed.platform.dsn_of(platform)
        environment = sandbox.build_environment(platform, PGWORKER_CONCURRENCY=6)
        supervisor = Supervisor(testbed.launcher, environment, platform, SLOTS)
        injector = FaultInjector(sandbox, supervisor)
        async with _run_in_background(supervisor.run(), injector.thaw_at_failpoints()):
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(_insert_clients(dsn, planned.arrivals))
                tasks.create_task(injector.run_plan(planned.faults))
            _end_faults(sandbox)
            began = time.monotonic()
            is_settled = await _settle(dsn, outcome, slowdown=sandbox.slowdown)
            outcome.settle_seconds = time.monotonic() - began
            await supervisor.stop()
        injector.count_triggered()
        snapshot = await sandbox.take_snapshot()
    outcome.faults = +injector.injected
    outcome.clients, outcome.workers = len(planned.arrivals), len(supervisor.workers)
    outcome.problems += supervisor.problems
    for worker in supervisor.workers:
        outcome.passed.update(worker.read_passed())
        outcome.killed_at.update(
            boundary for action, boundary in worker.read_fired() if action == "die"
        )
    outcome.violations = check(snapshot, expect(is_settled=is_settled, all_ready=is_settled))
    outcome.slowdown = sandbox.slowdown
    _measure(outcome, snapshot, supervisor.workers, injector.outages)
    if artifacts is not None and (failures := outcome.list_failures()):
        write_artifacts(artifacts, snapshot, testbed, failures)
    return outcome


@asynccontextmanager
async def _run_in_background(*work: Coroutine[Any, Any, object]) -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(each) for each in work]
        try:
            yield
        finally:
            for task in running:
                task.cancel()


async def _insert_clients(dsn: str, arrivals: tuple[float, ...]) -> None:
    """Insert each client at its time, or as soon as the platform's database takes it."""
    began = time.monotonic()
    for number, at in enumerate(arrivals):
        await asyncio.sleep(max(0.0, began + at - time.monotonic()))
        while True:
            try:
                await _execute(
                    dsn,
                    "insert into clients (name, auto_provision) select $1, true"
                    " where not exists (select 1 from clients where name = $1)",
                    f"client {number}",
                )
            except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
                await asyncio.sleep(POLL_SECONDS)
            else:
                break


def _end_faults(sandbox: Sandbox) -> None:
    for proxy in sandbox.proxies.values():
        proxy.forward()
    if sandbox.simulator is not None:
        sandbox.simulator.faults.clear()


async def _settle(dsn: str, outcome: Outcome, *, slowdown: float) -> bool:
    """Wait until no job is live or failed; failed jobs are retried, as a person would.

    Return False, with a problem in the outcome, when no event is written for a while or when it
    takes too long.
    """
    connection = await asyncpg.connect(dsn)
    began_at = moved_at = time.monotonic()
    newest: int | None = None
    try:
        while True:
            now = time.monotonic()
            if (event := await connection.fetchval(NEWEST_EVENT)) != newest:
                newest, moved_at = event, now
            if not await connection.fetchval(LIVE_JOBS):
                failed = await connection.fetch(FAILED)
                if not failed:
                    return True
                for row in failed:
                    outcome.retries[f"{row['error_kind']}: {row['last_error'][:60]}"] += 1
                    await connection.execute("select pgworker.retry($1)", row["client_id"])
            is_stalled = now - moved_at > STALL_SECONDS * slowdown
            if is_stalled or now - began_at > SETTLE_SECONDS * slowdown:
                outcome.problems.append(
                    f"not settled after {now - began_at:.0f} s; no event in the last "
                    f"{now - moved_at:.0f} s"
                )
                return False
            await asyncio.sleep(POLL_SECONDS)
    finally:
        await connection.close()


def _measure(
    outcome: Outcome,
    snapshot: Snapshot,
    workers: Sequence[ChaosWorker],
    outages: Sequence[Outage],
) -> None:
    (platform,) = snapshot.platforms
    ended = {str(worker.pid): worker.ended_at for worker in workers}
    for event in platform.events:
        if event["event"] == "rescued":
            silent = str((event["detail"] or {}).get("silent_worker", "")).split(":")
            ended_at = ended.get(silent[-2]) if len(silent) > 2 else None
            seconds = event["at"].timestamp() - (ended_at or event["at"].timestamp())
            # The job of a frozen worker is rescued before that worker ends.
            if seconds > 0:
                outcome.rescue_seconds.append(seconds)
    for outage in outages:
        if outage.server != "platform":
            continue
        later = [
            event["at"].timestamp()
            for event in platform.events
            if event["at"].timestamp() > outage.back_at
            and event["job_id"] is not None
            and not event["actor"].startswith("sql:")
        ]
        if later:
            outcome.outage_seconds.append(min(later) - outage.crashed_at)
            outcome.back_seconds.append(min(later) - outage.back_at)


async def _execute(dsn: str, query: str, *arguments: object) -> None:
    connection = await asyncpg.connect(dsn, timeout=2)
    try:
        await connection.execute(query, *arguments)
    finally:
        connection.terminate()
