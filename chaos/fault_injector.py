"""Carries faults out, and counts those that really happened."""

from __future__ import annotations

import asyncio
import signal
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import asyncpg
from pydantic import TypeAdapter

from chaos.failpoints import ANY, Act, Order
from chaos.plan import FROZEN_LEASES
from pgworker.simulator import Answer
from pgworker.simulator.control import OrderRequest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from chaos.plan import Planned
    from chaos.supervisor import Crew
    from chaos.testbed import World
    from chaos.workers import GatedWorker

ORDER = TypeAdapter(OrderRequest)
LATE_SECONDS = 0.15
OUR_SESSIONS = """
select pid
from pg_stat_activity
where application_name like 'pgworker%' and pid <> pg_backend_pid()
order by pid
"""


@dataclass(frozen=True, slots=True)
class Outage:
    """A server that fell: when, and when it took connections again (`time.time`)."""

    server: str
    fell_at: float
    back_at: float


@dataclass(slots=True)
class Monkeys:
    """Who does it. Every method takes what a plan says of its fault.

    Attributes:
        done: faults that happened, by kind.
        outages: of servers.
    """

    world: World
    crew: Crew
    done: Counter[str] = field(default_factory=Counter)
    outages: list[Outage] = field(default_factory=list)
    _server_lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def carry_out(self, plan: Sequence[Planned]) -> None:
        """Do everything that is planned, each at its time; return when all is over."""
        began = time.monotonic()
        async with asyncio.TaskGroup() as tasks:
            for fault in plan:
                await asyncio.sleep(max(0.0, began + fault.at - time.monotonic()))
                do = getattr(self, fault.what)
                tasks.create_task(do(**fault.how), name=fault.what)

    def count_ordered(self) -> None:
        """Count what workers met at their boundaries, and what the simulator answered."""
        for worker in self.crew.workers:
            for act, _ in worker.fired():
                # A freeze is counted when it has lasted.
                if act == "die":
                    self.done["worker killed at a boundary"] += 1
                elif act == "lose":
                    self.done["answer lost at a boundary"] += 1
        if self.world.simulator is not None:
            for entry in self.world.simulator.ledger.entries:
                if entry.fault is not None:
                    happened = " after the effect" if entry.took_effect else ""
                    status = f" {entry.status}" if entry.status is not None else ""
                    self.done[f"API: {entry.fault}{status}{happened}"] += 1

    # -- workers --------------------------------------------------------------------------

    async def kill(self, slot: int) -> None:
        worker = self.crew.at(slot)
        if worker is not None and await worker.kill():
            self.done["worker killed at a random moment"] += 1

    async def order(self, slot: int, act: Act, nth: int) -> None:
        worker = self.crew.at(slot)
        if worker is not None:
            worker.order(Order(ANY, act, nth))

    async def freeze(self, slot: int, leases: float) -> None:
        worker = self.crew.at(slot)
        if worker is None or worker.stopped.is_set() or not worker.send(signal.SIGSTOP):
            return
        if await self.thaw(worker, leases):
            self.done["worker frozen at a random moment"] += 1

    async def thaw(self, worker: GatedWorker, leases: float) -> bool:
        """Let a worker that is being frozen go on when so many leases have run out.

        Return whether it was there so long.
        """
        await worker.stops_or_ends()
        await asyncio.wait({worker.exited}, timeout=leases * self.world.lease)
        worker.stopped.clear()
        return worker.send(signal.SIGCONT)

    async def thaw_those_that_froze_at_a_boundary(self) -> None:
        """Watch over all workers, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                worker = await self.crew.new.get()
                tasks.create_task(self._watch(worker), name="watch")

    async def _watch(self, worker: GatedWorker) -> None:
        handled = 0
        while worker.is_running:
            await asyncio.wait({worker.exited}, timeout=0.1)
            frozen = sum(act == "freeze" for act, _ in worker.fired())
            if frozen > handled and worker.is_running:
                handled = frozen
                if await self.thaw(worker, FROZEN_LEASES[1]):
                    self.done["worker frozen at a boundary"] += 1

    # -- wires ----------------------------------------------------------------------------

    async def cut(self, wire: str, links: int, which: float) -> None:
        proxy = self.world.wires[wire]
        first = int(which * len(proxy.links))
        cut = proxy.reset(proxy.links[first : first + links])
        if cut:
            self.done[f"connection cut: {wire}"] += cut

    async def silence(self, wire: str, seconds: float) -> None:
        proxy = self.world.wires[wire]
        self.done[f"wire silent: {wire}"] += bool(proxy.links)
        proxy.freeze()
        await asyncio.sleep(seconds)
        proxy.forward()

    async def slow_down(self, wire: str, seconds: float) -> None:
        proxy = self.world.wires[wire]
        self.done[f"wire slow: {wire}"] += bool(proxy.links)
        proxy.delay(LATE_SECONDS)
        await asyncio.sleep(seconds)
        proxy.forward()

    async def refuse(self, wire: str, seconds: float) -> None:
        proxy = self.world.wires[wire]
        before = proxy.refused
        proxy.refuse()
        await asyncio.sleep(seconds)
        proxy.forward()
        self.done[f"connection refused: {wire}"] += proxy.refused - before

    # -- servers --------------------------------------------------------------------------

    async def terminate_session(self, which: float) -> None:
        """Let the platform's server end one of the workers' sessions."""
        try:
            connection = await asyncpg.connect(self.world.stage.platform.dsn, timeout=2)
        except (OSError, asyncpg.PostgresError):
            return  # the server is down just now
        try:
            pids = [row["pid"] for row in await connection.fetch(OUR_SESSIONS)]
            if pids:
                pid = pids[int(which * len(pids))]
                if await connection.fetchval("select pg_terminate_backend($1)", pid):
                    self.done["session terminated by the server"] += 1
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            pass
        finally:
            connection.terminate()

    async def crash_server(self, server: str) -> None:
        """Let a server fall, and start it again."""
        falling = getattr(self.world.stage, server)
        async with self._server_lock:
            fell_at = time.time()
            await falling.crash()
            await falling.start()
            self.outages.append(Outage(server, fell_at, time.time()))
            self.done[f"server crashed and restarted: {server}"] += 1

    # -- the provider ---------------------------------------------------------------------

    async def misanswer(self, operation: str, fault: dict[str, Any]) -> None:
        """Order a wrong answer; counted when it has been given."""
        assert self.world.simulator is not None
        order = ORDER.validate_python({"operation": operation, "fault": fault})
        self.world.simulator.faults.order(operation=order.operation, fault=order.fault)

    async def refuse_token(self, seconds: float) -> None:
        """Answer 401 to everything for a while."""
        assert self.world.simulator is not None
        unauthorized = Answer(401, {"message": "Unauthorized"})
        self.world.simulator.faults.order(
            operation="*", fault=unauthorized, times=None, seconds=seconds
        )
