"""Kills, freezes or disconnects a worker at each step boundary in turn.

Each case is one client. The first worker meets the fault at its boundary; a second one finishes the
job, or meets the next fault of the case. There is no list of boundaries: a run without faults
discovers them. A boundary that a later worker is the first to pass becomes a case as well, which
repeats the faults that led there.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import chain
from typing import TYPE_CHECKING
from uuid import UUID, uuid4
from zlib import crc32

import asyncpg

from chaos.failpoints import Action, Failpoint, FailpointPlan, is_possible
from chaos.plan import FREEZE_LEASES
from chaos.testbed import Sandbox, open_sandbox

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from chaos.checker import Violation
    from chaos.scenarios import Scenario
    from chaos.snapshot import Snapshot
    from chaos.testbed import Testbed
    from chaos.workers import ChaosWorker

PARALLEL_CASES = 12
# Longer than any case takes: it may wait for a few leases, and for a create to be listed.
CASE_SECONDS = 150
MAX_WORKERS = 12
MAX_FAULTS = 3
# Before this boundary a worker without a database ends; later it waits for the database.
END_OF_START = "before jobs.claim"
MAX_REPEATS = 6
# As a person would do it: plain SQL is an interface of pgworker. With a delay, so that no worker
# claims the job at once.
REQUEUE = """
update client_provisioning_jobs
set attempts = 0, claimed_at = null
where client_id = $1 and status = 'running'
"""
DELAY = """
update client_provisioning_jobs
set run_at = now() + $2
where client_id = $1 and status = 'queued'
"""
DELAY_LEASES = 0.5
REQUEUE_SECONDS = 0.5

# How a boundary was reached: by the n-th worker of a case with these failpoints.
Route = tuple[FailpointPlan, int]


@dataclass(slots=True)
class Case:
    """One client, and the faults that its workers meet.

    Attributes:
        fired: actions and boundaries of the faults that really happened.
        passed: the boundaries that each of its workers passed, and how often.
        problems: other failures than violated invariants.
        seconds: how long it took.
    """

    failpoints: FailpointPlan
    client_id: UUID = field(default_factory=uuid4)
    fired: list[tuple[str, str]] = field(default_factory=list)
    passed: list[Counter[str]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def is_hit(self) -> bool:
        """Whether every fault of the case happened."""
        return len(self.fired) == sum(map(len, self.failpoints))

    def __str__(self) -> str:
        faults = chain.from_iterable(self.failpoints)
        return " then ".join(f"{x.action} {x.boundary} #{x.nth}" for x in faults) or "no fault"


@dataclass(slots=True)
class Sweep:
    """All cases of one scenario.

    Attributes:
        boundaries: that were passed.
        skipped: actions and boundaries that there was no time for.
    """

    scenario: Scenario
    actions: Sequence[Action]
    cases: list[Case] = field(default_factory=list)
    boundaries: set[str] = field(default_factory=set)
    skipped: set[tuple[str, str]] = field(default_factory=set)

    @property
    def fired(self) -> Counter[tuple[str, str]]:
        return Counter(fired for case in self.cases for fired in case.fired)

    def list_wanted(self) -> set[tuple[str, str]]:
        """Return the actions and boundaries that should have happened."""
        return {
            (action, boundary)
            for action in self.actions
            for boundary in self.boundaries
            if is_possible(action, boundary)
        }

    def describe_violations(self, violations: Iterable[Violation]) -> list[str]:
        """Return violations in words, each with the faults of its case."""
        cases = {str(case.client_id): str(case) for case in self.cases}
        return [
            f"{self.scenario.name}: "
            f"{next((case for client, case in cases.items() if client in str(violation)), '?')}: "
            f"{violation}"
            for violation in violations
        ]

    def describe_problems(self) -> list[str]:
        """Return the problems of the cases in words, each with the faults of its case."""
        return [
            f"{self.scenario.name}: {case}: {problem}"
            for case in self.cases
            for problem in case.problems
        ]


async def run_sweep(
    scenario: Scenario,
    testbed: Testbed,
    *,
    actions: Sequence[Action],
    every_passage: bool,
    share: tuple[int, int] = (0, 1),
    done: set[tuple[str, str]] | None = None,
    until: float | None = None,
) -> tuple[Sweep, Snapshot]:
    """Sweep over the boundaries of a scenario; return what happened and what it left behind.

    Args:
        scenario: what each client goes through.
        testbed: the servers to use.
        actions: what happens at a boundary.
        every_passage: at each passage of a boundary, instead of at the first one only.
        share: (k, n) takes the k-th of n parts of the boundaries.
        done: actions and boundaries of earlier sweeps, which are not repeated; those of this one
            are added.
        until: start no case after this time (`time.monotonic`).
    """
    sweep = Sweep(scenario, actions)
    done = set() if done is None else done
    queue: asyncio.Queue[Case] = asyncio.Queue()
    routes: dict[str, list[Route]] = {}

    def enqueue(failpoints: FailpointPlan) -> None:
        sweep.cases.append(Case(failpoints))
        queue.put_nowait(sweep.cases[-1])

    def enqueue_new_boundaries(case: Case) -> None:
        """Make cases of the boundaries that this case is the first to pass."""
        for number, passed in enumerate(case.passed):
            for boundary, passages in passed.items():
                if crc32(boundary.encode()) % share[1] != share[0]:
                    continue
                routes.setdefault(boundary, []).append((case.failpoints, number))
                if boundary in sweep.boundaries:
                    continue
                sweep.boundaries.add(boundary)
                for action in actions:
                    if is_possible(action, boundary) and (action, boundary) not in done:
                        for nth in range(1, (passages if every_passage else 1) + 1):
                            failpoint = Failpoint(boundary, action, nth)
                            plan = _extend_route((case.failpoints, number), failpoint)
                            if sum(map(len, plan)) <= MAX_FAULTS:
                                enqueue(plan)

    def skip(case: Case) -> None:
        sweep.cases.remove(case)
        for failpoint in chain.from_iterable(case.failpoints[-1:]):
            sweep.skipped.add((failpoint.action, failpoint.boundary))

    async def run_cases(sandbox: Sandbox, platform: str) -> None:
        while True:
            case = await queue.get()
            try:
                if until is not None and time.monotonic() >= until:
                    skip(case)
                else:
                    await run_case(sandbox, scenario, case, platform)
                    done.update(case.fired)
                    enqueue_new_boundaries(case)
            finally:
                queue.task_done()

    async def finish() -> None:
        """Wait until all cases have run; repeat those whose boundary is passed by chance only."""
        await queue.join()
        for attempt in range(MAX_REPEATS):
            missed = sweep.list_wanted() - done - sweep.skipped
            for action in actions:
                for boundary in sorted(boundary for each, boundary in missed if each == action):
                    known = routes[boundary]
                    failpoint = Failpoint(boundary, action)
                    enqueue(_extend_route(known[attempt % len(known)], failpoint))
            await queue.join()

    async with open_sandbox(scenario.kind, testbed, simulated=scenario.simulated) as sandbox:
        prefix = f"{re.sub('[^a-z]+', '_', scenario.name)}_{share[0]}"
        platforms = [await sandbox.add_platform(f"{prefix}_{n}") for n in range(PARALLEL_CASES)]
        enqueue(scenario.failpoints)
        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(run_cases(sandbox, platform)) for platform in platforms]
            await finish()
            for task in running:
                task.cancel()
        snapshot = await sandbox.take_snapshot()
    return sweep, snapshot


def _extend_route(route: Route, failpoint: Failpoint) -> FailpointPlan:
    """Return the failpoints that repeat a route, with one more for its last worker."""
    plan, number = route
    own = plan[number] if number < len(plan) else ()
    # A worker that was killed passed the boundary before that. One that was frozen or lost an
    # answer may have passed it because of that.
    own = tuple(each for each in own if each.action != "die")
    return (*plan[:number], (*own, failpoint))


async def run_case(
    sandbox: Sandbox,
    scenario: Scenario,
    case: Case,
    platform: str,
    *,
    variables: Mapping[str, str] | None = None,
) -> None:
    """Run one case to its end: its client is ready, or a problem is added to the case.

    Args:
        sandbox: the case runs in it.
        scenario: what the client goes through.
        case: the client and the failpoints; what happens is added to it.
        platform: database of the sandbox.
        variables: of the workers' environment, beside those of the sandbox.
    """
    dsn = sandbox.testbed.platform.dsn_of(platform)
    environment = sandbox.build_environment(platform, **(variables or {}))
    await _add_client(sandbox, dsn, scenario, case.client_id)
    began = time.monotonic()
    limit = CASE_SECONDS * sandbox.slowdown
    workers: list[ChaosWorker] = []
    try:
        async with asyncio.timeout(limit), asyncio.TaskGroup() as tasks:
            for number in range(MAX_WORKERS):
                has_faults = number < len(case.failpoints)
                worker = await sandbox.testbed.launcher.start(
                    *scenario.arguments,
                    environment=environment,
                    failpoints=case.failpoints[number] if has_faults else (),
                    name=platform,
                )
                workers.append(worker)
                if number == 0 or has_faults:
                    tasks.create_task(scenario.disturb(worker))
                await worker.wait_until_frozen_or_ended()
                if worker.is_running:
                    # Once thawed it finds that its job is lost, and ends when no job is left.
                    tasks.create_task(_thaw_each_time(worker, case, dsn, sandbox.lease))
                if number >= len(case.failpoints) and await _is_ready(dsn, case.client_id):
                    break
    except TimeoutError:
        case.problems.append(f"client not ready or workers still running after {limit:g} s")
        for worker in workers:
            await worker.kill()
    case.seconds = time.monotonic() - began
    for worker in workers:
        case.fired += worker.read_fired()
        case.passed.append(Counter(worker.read_passed()))
        if (problem := _check_exit(worker, scenario)) is not None:
            case.problems.append(problem)


async def _thaw_each_time(worker: ChaosWorker, case: Case, dsn: str, lease: float) -> None:
    """Resume a worker each time that it has been frozen long enough; return when it has ended."""
    while worker.is_running:
        if worker.stopped.is_set():
            (*_, (action, _)) = worker.read_fired()
            if action == "requeue":
                delay = timedelta(seconds=DELAY_LEASES * lease)
                requeueing = asyncio.create_task(_requeue(dsn, case.client_id, delay))
                # A worker that was frozen with the job's row locked blocks this until it is thawed.
                await asyncio.wait({requeueing}, timeout=REQUEUE_SECONDS)
                _thaw(worker)
                await requeueing
            else:
                await asyncio.sleep(FREEZE_LEASES[1] * lease)
                _thaw(worker)
        await worker.wait_until_frozen_or_ended()


def _thaw(worker: ChaosWorker) -> None:
    worker.stopped.clear()
    worker.send(signal.SIGCONT)


async def _requeue(dsn: str, client_id: UUID, delay: timedelta) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        async with connection.transaction():
            await connection.execute(REQUEUE, client_id)
            await connection.execute(DELAY, client_id, delay)
    finally:
        await connection.close()


def _check_exit(worker: ChaosWorker, scenario: Scenario) -> str | None:
    """Return what is wrong with how a worker ended, if anything."""
    code = worker.exited.result()
    # A worker whose session is ended while it starts exits, so that its supervisor restarts it.
    is_starting = END_OF_START not in worker.read_passed()
    if code in {0, -signal.SIGKILL, scenario.exit_code}:
        return None
    if code == os.EX_UNAVAILABLE and is_starting:
        return None
    return f"a worker ended with {code}"


async def _add_client(sandbox: Sandbox, dsn: str, scenario: Scenario, client_id: UUID) -> None:
    if sandbox.simulator is not None:
        scenario.order_faults(sandbox.simulator.faults, f"pgworker-{client_id}")
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(
            "insert into clients (id, name, auto_provision) values ($1, 'Acme', true)", client_id
        )
    finally:
        await connection.close()


async def _is_ready(dsn: str, client_id: UUID) -> bool:
    connection = await asyncpg.connect(dsn)
    try:
        status = await connection.fetchval(
            "select provisioning_status from clients where id = $1", client_id
        )
    finally:
        await connection.close()
    return bool(status == "ready")
