"""Injects faults, and counts those that really happened."""

from __future__ import annotations

import asyncio
import signal
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import asyncpg
from pydantic import TypeAdapter

from chaos.failpoints import ANY, Action, Failpoint
from chaos.plan import FREEZE_LEASES
from pgworker.simulator import Answer
from pgworker.simulator.control import OrderRequest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from chaos.plan import PlannedFault
    from chaos.supervisor import Supervisor
    from chaos.testbed import Sandbox
    from chaos.workers import ChaosWorker

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
    """A crash of a server: when, and when it took connections again (`time.time`)."""

    server: str
    crashed_at: float
    back_at: float


@dataclass(slots=True)
class FaultInjector:
    """Has one method for each kind of fault; its parameters are the arguments in a plan.

    Attributes:
        injected: faults that happened, by kind.
        outages: of servers.
    """

    sandbox: Sandbox
    supervisor: Supervisor
    injected: Counter[str] = field(default_factory=Counter)
    outages: list[Outage] = field(default_factory=list)
    _server_lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def run_plan(self, plan: Sequence[PlannedFault]) -> None:
        """Inject everything that is planned, each at its time; return when all faults are over."""
        began = time.monotonic()
        async with asyncio.TaskGroup() as tasks:
            for fault in plan:
                await asyncio.sleep(max(0.0, began + fault.at - time.monotonic()))
                inject = getattr(self, fault.kind)
                tasks.create_task(inject(**fault.arguments), name=fault.kind)

    def count_triggered(self) -> None:
        """Count what happened to workers at failpoints, and what the simulator answered."""
        for worker in self.supervisor.workers:
            for action, _ in worker.read_fired():
                # A freeze is counted when it has lasted long enough.
                if action == "die":
                    self.injected["worker killed at a boundary"] += 1
                elif action == "lose":
                    self.injected["answer lost at a boundary"] += 1
        if self.sandbox.simulator is not None:
            for entry in self.sandbox.simulator.ledger.entries:
                if entry.fault is not None:
                    happened = " after the effect" if entry.took_effect else ""
                    status = f" {entry.status}" if entry.status is not None else ""
                    self.injected[f"API: {entry.fault}{status}{happened}"] += 1

    # -- workers --------------------------------------------------------------------------

    async def kill(self, slot: int) -> None:
        worker = self.supervisor.get_worker(slot)
        if worker is not None and await worker.kill():
            self.injected["worker killed at a random moment"] += 1

    async def arm(self, slot: int, action: Action, nth: int) -> None:
        worker = self.supervisor.get_worker(slot)
        if worker is not None:
            worker.arm(Failpoint(ANY, action, nth))

    async def freeze(self, slot: int, leases: float) -> None:
        worker = self.supervisor.get_worker(slot)
        if worker is None or worker.stopped.is_set() or not worker.send(signal.SIGSTOP):
            return
        if await self.thaw(worker, leases):
            self.injected["worker frozen at a random moment"] += 1

    async def thaw(self, worker: ChaosWorker, leases: float) -> bool:
        """Resume a worker that is being frozen when so many leases have run out.

        Return whether it existed so long.
        """
        await worker.wait_until_frozen_or_ended()
        await asyncio.wait({worker.exited}, timeout=leases * self.sandbox.lease)
        worker.stopped.clear()
        return worker.send(signal.SIGCONT)

    async def thaw_at_failpoints(self) -> None:
        """Resume workers that a failpoint has frozen, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                worker = await self.supervisor.started.get()
                tasks.create_task(self._watch(worker), name="watch")

    async def _watch(self, worker: ChaosWorker) -> None:
        handled = 0
        while worker.is_running:
            await asyncio.wait({worker.exited}, timeout=0.1)
            frozen = sum(action == "freeze" for action, _ in worker.read_fired())
            if frozen > handled and worker.is_running:
                handled = frozen
                if await self.thaw(worker, FREEZE_LEASES[1]):
                    self.injected["worker frozen at a boundary"] += 1

    # -- connections ----------------------------------------------------------------------

    async def cut(self, target: str, links: int, which: float) -> None:
        proxy = self.sandbox.proxies[target]
        first = int(which * len(proxy.links))
        cut = proxy.reset(proxy.links[first : first + links])
        if cut:
            self.injected[f"connection cut: {target}"] += cut

    async def silence(self, target: str, seconds: float) -> None:
        proxy = self.sandbox.proxies[target]
        self.injected[f"connections silent: {target}"] += bool(proxy.links)
        proxy.freeze()
        await asyncio.sleep(seconds)
        proxy.forward()

    async def slow_down(self, target: str, seconds: float) -> None:
        proxy = self.sandbox.proxies[target]
        self.injected[f"connections slow: {target}"] += bool(proxy.links)
        proxy.delay(LATE_SECONDS)
        await asyncio.sleep(seconds)
        proxy.forward()

    async def refuse(self, target: str, seconds: float) -> None:
        proxy = self.sandbox.proxies[target]
        before = proxy.refused
        proxy.refuse()
        await asyncio.sleep(seconds)
        proxy.forward()
        self.injected[f"connection refused: {target}"] += proxy.refused - before

    # -- servers --------------------------------------------------------------------------

    async def terminate_session(self, which: float) -> None:
        """Let the platform's server end one of the workers' sessions."""
        try:
            connection = await asyncpg.connect(self.sandbox.testbed.platform.dsn, timeout=2)
        except (OSError, asyncpg.PostgresError):
            return  # the server is down at the moment
        try:
            pids = [row["pid"] for row in await connection.fetch(OUR_SESSIONS)]
            if pids:
                pid = pids[int(which * len(pids))]
                if await connection.fetchval("select pg_terminate_backend($1)", pid):
                    self.injected["session terminated by the server"] += 1
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            pass
        finally:
            connection.terminate()

    async def crash_server(self, server: str) -> None:
        """Crash a server, and start it again."""
        crashing = getattr(self.sandbox.testbed, server)
        async with self._server_lock:
            crashed_at = time.time()
            await crashing.crash()
            await crashing.start()
            self.outages.append(Outage(server, crashed_at, time.time()))
            self.injected[f"server crashed and restarted: {server}"] += 1

    # -- the provider ---------------------------------------------------------------------

    async def fail_request(self, operation: str, fault: dict[str, Any]) -> None:
        """Order a wrong answer from the simulator; it is counted once it has been given."""
        assert self.sandbox.simulator is not None
        order = ORDER.validate_python({"operation": operation, "fault": fault})
        self.sandbox.simulator.faults.order(operation=order.operation, fault=order.fault)

    async def refuse_token(self, seconds: float) -> None:
        """Answer 401 to everything for a while."""
        assert self.sandbox.simulator is not None
        unauthorized = Answer(401, {"message": "Unauthorized"})
        self.sandbox.simulator.faults.order(
            operation="*", fault=unauthorized, times=None, seconds=seconds
        )
