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
from itertools import chain
from typing import TYPE_CHECKING
from uuid import UUID, uuid4
from zlib import crc32

import asyncpg

from tests.chaos.gate import Act, Order
from tests.chaos.timelapse import LEASE
from tests.chaos.world import World, a_world

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.chaos.evidence import Evidence
    from tests.chaos.scenes import Scene
    from tests.chaos.workers import WorkerProcess
    from tests.chaos.world import Stage

LANES = 6
CASE_SECONDS = 60
MOST_WORKERS = 12
MOST_FAULTS = 3
EX_UNAVAILABLE = 69
# A boundary that is passed by chance only, such as a heartbeat's, may be missed.
MOST_TRIES = 2
# Frozen for longer than its lease, and not for so long that a create that was about to leave
# would come after the time in which it is looked for.
FROZEN_SECONDS = LEASE * 1.6

# The faults of a case: for each of its workers, in the order in which they start.
Orders = tuple[tuple[Order, ...], ...]


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
    """All cases of one scene."""

    scene: Scene
    acts: Sequence[Act]
    cases: list[Case] = field(default_factory=list)
    boundaries: set[str] = field(default_factory=set)

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
) -> tuple[Sweep, Evidence]:
    """Sweep over the boundaries of a scene; return what happened and what it left behind.

    Args:
        scene: what a client goes through.
        stage: to do it on.
        acts: what happens at a boundary.
        every_passage: at each passage of a boundary, instead of at the first one only.
        share: (k, n) takes the k-th of n parts of the boundaries.
        done: acts and boundaries that earlier sweeps have had; grows.
    """
    swept = Sweep(scene, acts)
    done = set() if done is None else done
    queue: asyncio.Queue[tuple[Case, int]] = asyncio.Queue()

    def enqueue(orders: Orders, tries: int = 0) -> None:
        swept.cases.append(Case(orders))
        queue.put_nowait((swept.cases[-1], tries))

    def take_in(case: Case) -> None:
        """Make cases of the boundaries that nobody has passed before."""
        for number, passed in enumerate(case.passed):
            for boundary in passed.keys() - swept.boundaries:
                if crc32(boundary.encode()) % share[1] != share[0]:
                    continue
                swept.boundaries.add(boundary)
                for act in acts:
                    if not is_possible(act, boundary) or (act, boundary) in done:
                        continue
                    for nth in range(1, (passed[boundary] if every_passage else 1) + 1):
                        orders = _leading_to(case.orders, number, Order(boundary, act, nth))
                        if sum(map(len, orders)) <= MOST_FAULTS:
                            enqueue(orders)

    async def work(world: World, platform: str) -> None:
        while True:
            case, tries = await queue.get()
            try:
                await run_case(world, scene, case, platform)
                done.update(case.fired)
                take_in(case)
                if not case.is_hit and tries < MOST_TRIES:
                    enqueue(case.orders, tries + 1)
            finally:
                queue.task_done()

    async with a_world(scene.kind, stage, simulated=scene.simulated) as world:
        prefix = f"{re.sub('[^a-z]+', '_', scene.name)}_{share[0]}"
        platforms = [await world.add_platform(f"{prefix}_{lane}") for lane in range(LANES)]
        enqueue(scene.orders)
        async with asyncio.TaskGroup() as tasks:
            working = [tasks.create_task(work(world, platform)) for platform in platforms]
            await queue.join()
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


async def run_case(world: World, scene: Scene, case: Case, platform: str) -> None:
    """Run one case to its end: its client is ready, or something is noted."""
    dsn = world.stage.platform.dsn_of(platform)
    environment = world.environment(platform)
    await _add_client(world, dsn, scene, case.client_id)
    began = time.monotonic()
    frozen: list[WorkerProcess] = []
    mine: list[WorkerProcess] = []
    try:
        async with asyncio.timeout(CASE_SECONDS):
            for number in range(MOST_WORKERS):
                has_faults = number < len(case.orders)
                worker = await world.stage.workers.start(
                    *scene.arguments,
                    environment=environment,
                    orders=case.orders[number] if has_faults else (),
                    name=platform,
                )
                mine.append(worker)
                await _watch(worker, scene, treat=number == 0 or has_faults)
                if worker.is_alive:
                    frozen.append(worker)
                elif worker.exited.result() not in {0, -signal.SIGKILL, scene.leaves_with}:
                    case.problems.append(f"a worker left with {worker.exited.result()}")
                if number >= len(case.orders) and await _is_ready(dsn, case.client_id):
                    break
            for worker in frozen:
                # Thawed by now: it finds its lease lost, and leaves when nothing is left.
                if await worker.exited not in {0, -signal.SIGKILL, scene.leaves_with} and not (
                    # Its session was ended while it was starting: it says so and leaves.
                    worker.exited.result() == EX_UNAVAILABLE
                    and "after workers.register" not in worker.trace()
                ):
                    case.problems.append(f"a thawed worker left with {worker.exited.result()}")
    except TimeoutError:
        case.problems.append(f"not ready, or not all workers gone, after {CASE_SECONDS} s")
        for worker in mine:
            await worker.kill()
    case.seconds = time.monotonic() - began
    for worker in mine:
        case.fired += worker.fired()
        case.passed.append(Counter(worker.trace()))


async def _watch(worker: WorkerProcess, scene: Scene, *, treat: bool) -> None:
    """Return when the worker has ended, or is frozen and may be replaced."""
    treating = asyncio.create_task(scene.treat(worker)) if treat else None
    try:
        await worker.stops_or_ends()
    finally:
        if treating is not None:
            treating.cancel()
    if worker.is_alive:
        loop = asyncio.get_running_loop()
        loop.call_later(FROZEN_SECONDS, worker.signal, signal.SIGCONT)


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
