"""One round of random faults after the other, each on a platform of its own, judged at its end."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import asyncpg

from chaos.artifacts import keep
from chaos.checker import Expected, Violation, check
from chaos.fault_injector import Monkeys
from chaos.plan import SLOTS
from chaos.supervisor import Crew
from chaos.testbed import MIGRATIONS, World, a_world

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine
    from pathlib import Path

    from chaos.plan import Round
    from chaos.snapshot import Evidence
    from chaos.testbed import Stage
    from chaos.workers import GatedWorker

# Nothing has happened for so long: it is stuck. A slow machine is only late.
STILL_SECONDS = 60
MOST_SPELLS = 10
LOOK_EVERY = 0.1
UNSETTLED = """
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
    """What became of a round.

    Attributes:
        pace: how many times as long everything lasted (`timelapse`).
        faults: that happened, by kind.
        killed_at: boundaries at which workers were killed.
        passed: boundaries that were passed.
        retries: by a person, by the first words of the job's error.
        rescue_seconds: from a worker's end until each of its jobs was claimed by another.
        outage_seconds: from a server's fall until the first transition after it.
        back_seconds: likewise, from when it took connections again.
        problems: what the round itself found wrong.
    """

    round: Round
    pace: float = 1.0
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

    def found(self) -> list[str]:
        """Return everything that did not hold, in words."""
        return [*map(str, self.violations), *self.problems]


def expected(**known: bool) -> Expected:
    """Return what a campaign's migrations leave behind, with what else is `known` of its end."""
    files = sorted(MIGRATIONS.glob("*.sql"))
    versions = [file.name.partition("_")[0] for file in files]
    runs = [
        version
        for version, file in zip(versions, files, strict=True)
        if "insert into public.runs" in file.read_text()
    ]
    return Expected(versions=versions, runs=runs, **known)


async def run_round(planned: Round, stage: Stage, *, exhibits: Path | None = None) -> Outcome:
    """Play a round to its end, let it settle, and judge it.

    Args:
        planned: what happens in it.
        stage: to do it on.
        exhibits: a folder for what is kept when something did not hold.
    """
    outcome = Outcome(planned)
    async with a_world(planned.kind, stage, simulated=planned.simulated) as world:
        platform = await world.add_platform(f"round_{planned.seed}_{planned.number}")
        dsn = stage.platform.dsn_of(platform)
        environment = world.environment(platform, PGWORKER_CONCURRENCY=6)
        crew = Crew(stage.workers, environment, platform, SLOTS)
        monkeys = Monkeys(world, crew)
        async with _background(crew.work(), monkeys.thaw_those_that_froze_at_a_boundary()):
            async with asyncio.TaskGroup() as playing:
                playing.create_task(_sign_up(dsn, planned.arrivals))
                playing.create_task(monkeys.carry_out(planned.faults))
            await _calm_down(world)
            began = time.monotonic()
            is_over = await _settle(dsn, outcome, still=STILL_SECONDS * world.pace)
            outcome.settle_seconds = time.monotonic() - began
            await crew.leave()
        monkeys.count_ordered()
        evidence = await world.evidence()
    outcome.faults = +monkeys.done
    outcome.clients, outcome.workers = len(planned.arrivals), len(crew.workers)
    outcome.problems += crew.problems
    for worker in crew.workers:
        outcome.passed.update(worker.trace())
        outcome.killed_at.update(boundary for act, boundary in worker.fired() if act == "die")
    outcome.violations = check(evidence, expected(is_over=is_over, all_ready=is_over))
    outcome.pace = world.pace
    _measure(outcome, evidence, crew.workers, monkeys)
    if exhibits is not None and (found := outcome.found()):
        keep(exhibits, evidence, stage, found)
    return outcome


@asynccontextmanager
async def _background(*work: Coroutine[Any, Any, object]) -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(each) for each in work]
        try:
            yield
        finally:
            for task in running:
                task.cancel()


async def _sign_up(dsn: str, arrivals: tuple[float, ...]) -> None:
    """Insert clients at their times, whatever the platform's database is doing."""
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
                await asyncio.sleep(LOOK_EVERY)
            else:
                break


async def _calm_down(world: World) -> None:
    """End everything that is still wrong."""
    for wire in world.wires.values():
        wire.forward()
    if world.simulator is not None:
        world.simulator.faults.clear()


async def _settle(dsn: str, outcome: Outcome, *, still: float) -> bool:
    """Wait until nothing is in hand; what failed meanwhile is retried, as a person would.

    Return whether it came to that: nothing must stand still for so many seconds, nor may all of it
    take too long.
    """
    connection = await asyncpg.connect(dsn)
    began_at = moved_at = time.monotonic()
    newest: int | None = None
    try:
        while True:
            now = time.monotonic()
            if (event := await connection.fetchval(NEWEST_EVENT)) != newest:
                newest, moved_at = event, now
            if not await connection.fetchval(UNSETTLED):
                failed = await connection.fetch(FAILED)
                if not failed:
                    return True
                for row in failed:
                    outcome.retries[f"{row['error_kind']}: {row['last_error'][:60]}"] += 1
                    await connection.execute("select pgworker.retry($1)", row["client_id"])
            if now - moved_at > still or now - began_at > MOST_SPELLS * still:
                outcome.problems.append(
                    f"not settled after {now - began_at:.0f} s, the last {now - moved_at:.0f} s "
                    "without an event"
                )
                return False
            await asyncio.sleep(LOOK_EVERY)
    finally:
        await connection.close()


def _measure(
    outcome: Outcome, evidence: Evidence, workers: list[GatedWorker], monkeys: Monkeys
) -> None:
    (platform,) = evidence.platforms
    ended = {str(worker.pid): worker.ended_at for worker in workers}
    for event in platform.events:
        if event["event"] == "rescued":
            silent = str((event["detail"] or {}).get("silent_worker", "")).split(":")
            ended_at = ended.get(silent[-2]) if len(silent) > 2 else None
            seconds = event["at"].timestamp() - (ended_at or event["at"].timestamp())
            # A worker that was frozen, or is thawed again, ends later than its claim.
            if seconds > 0:
                outcome.rescue_seconds.append(seconds)
    for outage in monkeys.outages:
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
            outcome.outage_seconds.append(min(later) - outage.fell_at)
            outcome.back_seconds.append(min(later) - outage.back_at)


async def _execute(dsn: str, query: str, *arguments: object) -> None:
    connection = await asyncpg.connect(dsn, timeout=2)
    try:
        await connection.execute(query, *arguments)
    finally:
        connection.terminate()
