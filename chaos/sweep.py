"""Kills (or freezes, or cuts off) a worker at every step boundary there is, one after the other.

Each case is one client. A first worker meets the fault at its boundary; a second one finishes the
job, or meets the next fault of the case. Boundaries aren't listed anywhere: a run without faults
discovers them, and a boundary that a later worker is the first to pass becomes a case as well,
reached by the same faults.
"""

from __future__ import annotations

import asyncio
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

from chaos.failpoints import Act, Order
from chaos.plan import FROZEN_LEASES
from chaos.testbed import World, a_world

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from chaos.checker import Violation
    from chaos.scenarios import Scene
    from chaos.snapshot import Evidence
    from chaos.testbed import Stage
    from chaos.workers import GatedWorker

LANES = 12
# In which a case has surely ended: it may wait for a few leases, and for a create to show up.
CASE_SECONDS = 150
MOST_WORKERS = 12
MOST_FAULTS = 3
EX_UNAVAILABLE = 69
# Until here a worker ends when it finds no database; later it waits for it.
AFTER_THE_START = "before jobs.claim"
MOST_TRIES = 6
# As people do it (plain SQL is an interface of pgworker's); later, so that nobody takes it at once.
PUT_BACK_IN_LINE = """
update client_provisioning_jobs
set attempts = 0, claimed_at = null
where client_id = $1 and status = 'running'
"""
FOR_LATER = """
update client_provisioning_jobs
set run_at = now() + $2
where client_id = $1 and status = 'queued'
"""
LATER_LEASES = 0.5
A_MOMENT = 0.5

# The faults of a case: for each of its workers, in the order in which they start.
Orders = tuple[tuple[Order, ...], ...]
# How a boundary was reached: by the n-th worker of a case with these faults.
Way = tuple[Orders, int]


@dataclass(slots=True)
class Case:
    """One client, and the faults that its workers meet.

    Attributes:
        fired: acts and boundaries of the faults that really happened.
        passed: the boundaries that each of its workers passed, and how often.
        problems: what the case itself found wrong.
        seconds: how long it took.
    """

    orders: Orders
    client_id: UUID = field(default_factory=uuid4)
    fired: list[tuple[str, str]] = field(default_factory=list)
    passed: list[Counter[str]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def is_hit(self) -> bool:
        """Whether every fault of the case happened."""
        return len(self.fired) == sum(map(len, self.orders))

    def __str__(self) -> str:
        faults = chain.from_iterable(self.orders)
        told = " then ".join(f"{order.act} {order.boundary} #{order.nth}" for order in faults)
        return told or "no fault"


@dataclass(slots=True)
class Sweep:
    """All cases of one scene.

    Attributes:
        boundaries: that were passed.
        left_out: acts and boundaries that there was no time for.
    """

    scene: Scene
    acts: Sequence[Act]
    cases: list[Case] = field(default_factory=list)
    boundaries: set[str] = field(default_factory=set)
    left_out: set[tuple[str, str]] = field(default_factory=set)

    @property
    def fired(self) -> Counter[tuple[str, str]]:
        return Counter(fired for case in self.cases for fired in case.fired)

    def wanted(self) -> set[tuple[str, str]]:
        """Return the acts and boundaries that should have happened."""
        return {
            (act, boundary)
            for act in self.acts
            for boundary in self.boundaries
            if is_possible(act, boundary)
        }

    def with_cases(self, violations: Iterable[Violation]) -> list[str]:
        """Return violations in words, each with the faults of its case."""
        of = {str(case.client_id): str(case) for case in self.cases}
        return [
            f"{self.scene.name}: "
            f"{next((told for client, told in of.items() if client in str(found)), '?')}: {found}"
            for found in violations
        ]

    def problems(self) -> list[str]:
        """Return what cases found wrong, with their faults."""
        return [
            f"{self.scene.name}: {case}: {problem}"
            for case in self.cases
            for problem in case.problems
        ]


async def sweep(
    scene: Scene,
    stage: Stage,
    *,
    acts: Sequence[Act],
    every_passage: bool,
    share: tuple[int, int] = (0, 1),
    done: set[tuple[str, str]] | None = None,
    until: float | None = None,
) -> tuple[Sweep, Evidence]:
    """Sweep over the boundaries of a scene; return what happened and what it left behind.

    Args:
        scene: what a client goes through.
        stage: to do it on.
        acts: what happens at a boundary.
        every_passage: at each passage of a boundary, instead of at the first one only.
        share: (k, n) takes the k-th of n parts of the boundaries.
        done: acts and boundaries that earlier sweeps have had; grows.
        until: begin no case after it (`time.monotonic`).
    """
    swept = Sweep(scene, acts)
    done = set() if done is None else done
    queue: asyncio.Queue[Case] = asyncio.Queue()
    ways: dict[str, list[Way]] = {}

    def enqueue(orders: Orders) -> None:
        swept.cases.append(Case(orders))
        queue.put_nowait(swept.cases[-1])

    def take_in(case: Case) -> None:
        """Make cases of the boundaries that nobody has passed before."""
        for number, passed in enumerate(case.passed):
            for boundary, passages in passed.items():
                if crc32(boundary.encode()) % share[1] != share[0]:
                    continue
                ways.setdefault(boundary, []).append((case.orders, number))
                if boundary in swept.boundaries:
                    continue
                swept.boundaries.add(boundary)
                for act in acts:
                    if is_possible(act, boundary) and (act, boundary) not in done:
                        for nth in range(1, (passages if every_passage else 1) + 1):
                            orders = _leading_to(case.orders, number, Order(boundary, act, nth))
                            if sum(map(len, orders)) <= MOST_FAULTS:
                                enqueue(orders)

    def leave_out(case: Case) -> None:
        swept.cases.remove(case)
        for order in chain.from_iterable(case.orders[-1:]):
            swept.left_out.add((order.act, order.boundary))

    async def work(world: World, platform: str) -> None:
        while True:
            case = await queue.get()
            try:
                if until is not None and time.monotonic() >= until:
                    leave_out(case)
                else:
                    await run_case(world, scene, case, platform)
                    done.update(case.fired)
                    take_in(case)
            finally:
                queue.task_done()

    async def work_off() -> None:
        """Run all cases; what they missed, because it is passed by chance only, is tried again."""
        await queue.join()
        for attempt in range(MOST_TRIES):
            missed = swept.wanted() - done - swept.left_out
            for act in acts:
                for boundary in sorted(boundary for each, boundary in missed if each == act):
                    known = ways[boundary]
                    enqueue(_leading_to(*known[attempt % len(known)], Order(boundary, act)))
            await queue.join()

    async with a_world(scene.kind, stage, simulated=scene.simulated) as world:
        prefix = f"{re.sub('[^a-z]+', '_', scene.name)}_{share[0]}"
        platforms = [await world.add_platform(f"{prefix}_{lane}") for lane in range(LANES)]
        enqueue(scene.orders)
        async with asyncio.TaskGroup() as tasks:
            working = [tasks.create_task(work(world, platform)) for platform in platforms]
            await work_off()
            for task in working:
                task.cancel()
        evidence = await world.evidence()
    return swept, evidence


def is_possible(act: str, boundary: str) -> bool:
    """Tell whether this can happen there: an answer gets lost only after a step."""
    return act != "lose" or boundary.startswith("after ")


def _leading_to(orders: Orders, number: int, order: Order) -> Orders:
    """Return the faults with which a case comes to a boundary that its n-th worker passed."""
    own = orders[number] if number < len(orders) else ()
    # Who died passed it before; who froze or lost an answer may have passed it because of that.
    own = tuple(each for each in own if each.act != "die")
    return (*orders[:number], (*own, order))


async def run_case(
    world: World,
    scene: Scene,
    case: Case,
    platform: str,
    *,
    variables: Mapping[str, str] | None = None,
) -> None:
    """Run one case to its end: its client is ready, or something is noted.

    Args:
        world: that it happens in.
        scene: what the client goes through.
        case: the client and the faults; takes in what happened.
        platform: database of the world's.
        variables: of the workers' environment, beside the world's.
    """
    dsn = world.stage.platform.dsn_of(platform)
    environment = world.environment(platform, **(variables or {}))
    await _add_client(world, dsn, scene, case.client_id)
    began = time.monotonic()
    limit = CASE_SECONDS * world.pace
    mine: list[GatedWorker] = []
    try:
        async with asyncio.timeout(limit), asyncio.TaskGroup() as keepers:
            for number in range(MOST_WORKERS):
                has_faults = number < len(case.orders)
                worker = await world.stage.workers.start(
                    *scene.arguments,
                    environment=environment,
                    orders=case.orders[number] if has_faults else (),
                    name=platform,
                )
                mine.append(worker)
                if number == 0 or has_faults:
                    keepers.create_task(scene.treat(worker))
                await worker.stops_or_ends()
                if worker.is_running:
                    # It finds its job lost, once it is thawed, and leaves when nothing is left.
                    keepers.create_task(_thaw_each_time(worker, case, dsn, world.lease))
                if number >= len(case.orders) and await _is_ready(dsn, case.client_id):
                    break
    except TimeoutError:
        case.problems.append(f"not ready, or not all workers gone, after {limit:g} s")
        for worker in mine:
            await worker.kill()
    case.seconds = time.monotonic() - began
    for worker in mine:
        case.fired += worker.fired()
        case.passed.append(Counter(worker.trace()))
        if (problem := _problem(worker, scene)) is not None:
            case.problems.append(problem)


async def _thaw_each_time(worker: GatedWorker, case: Case, dsn: str, lease: float) -> None:
    """Let a frozen worker go on each time, when its time has come; return when it has ended."""
    while worker.is_running:
        if worker.stopped.is_set():
            (*_, (act, _)) = worker.fired()
            if act == "usurp":
                later = timedelta(seconds=LATER_LEASES * lease)
                usurping = asyncio.create_task(_usurp(dsn, case.client_id, later))
                # Who froze with the job's row locked lets the person wait, and goes on first.
                await asyncio.wait({usurping}, timeout=A_MOMENT)
                _thaw(worker)
                await usurping
            else:
                await asyncio.sleep(FROZEN_LEASES[1] * lease)
                _thaw(worker)
        await worker.stops_or_ends()


def _thaw(worker: GatedWorker) -> None:
    worker.stopped.clear()
    worker.send(signal.SIGCONT)


async def _usurp(dsn: str, client_id: UUID, later: timedelta) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        async with connection.transaction():
            await connection.execute(PUT_BACK_IN_LINE, client_id)
            await connection.execute(FOR_LATER, client_id, later)
    finally:
        await connection.close()


def _problem(worker: GatedWorker, scene: Scene) -> str | None:
    """Tell what is wrong with the way in which a worker left."""
    code = worker.exited.result()
    # Whose session ended while it was starting says so, and leaves it to its supervisor.
    is_starting = AFTER_THE_START not in worker.trace()
    if code in {0, -signal.SIGKILL, scene.leaves_with} or (code == EX_UNAVAILABLE and is_starting):
        return None
    return f"a worker left with {code}"


async def _add_client(world: World, dsn: str, scene: Scene, client_id: UUID) -> None:
    if world.simulator is not None:
        scene.order_faults(world.simulator.faults, client_id)
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
