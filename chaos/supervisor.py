"""Workers in their slots: who dies is replaced at once, as a supervisor would."""

from __future__ import annotations

import asyncio
import signal
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from chaos.workers import GatedWorker, Workers

EX_UNAVAILABLE = 69
BREATH = 0.1
LEAVE_SECONDS = 120


@dataclass(slots=True)
class Crew:
    """So many workers of one platform.

    Attributes:
        workers: all there ever were.
        new: those that nobody has taken notice of yet.
        problems: workers that left though nobody wanted them to.
    """

    processes: Workers
    environment: Mapping[str, str]
    name: str
    size: int
    workers: list[GatedWorker] = field(default_factory=list)
    new: asyncio.Queue[GatedWorker] = field(default_factory=asyncio.Queue)
    problems: list[str] = field(default_factory=list)
    _slots: list[GatedWorker | None] = field(default_factory=list)
    _is_leaving: bool = False

    def at(self, slot: int) -> GatedWorker | None:
        """Return who works there now."""
        worker = self._slots[slot]
        return worker if worker is not None and worker.is_running else None

    async def work(self) -> None:
        """Keep all slots filled, until told to leave and everybody has."""
        self._slots = [None] * self.size
        async with asyncio.TaskGroup() as slots:
            for slot in range(self.size):
                slots.create_task(self._keep(slot), name=f"slot {slot}")

    async def leave(self) -> None:
        """Tell everybody to leave, and wait until they have."""
        self._is_leaving = True
        staying = [worker for worker in self.workers if worker.is_running]
        for worker in staying:
            worker.send(signal.SIGTERM)
        if staying:
            _, late = await asyncio.wait(
                {worker.exited for worker in staying}, timeout=LEAVE_SECONDS
            )
            if late:
                self.problems.append(f"{len(late)} workers did not leave when told to")
        for worker in staying:
            await worker.kill()

    async def _keep(self, slot: int) -> None:
        while not self._is_leaving:
            worker = await self.processes.start("run", environment=self.environment, name=self.name)
            self._slots[slot] = worker
            self.workers.append(worker)
            self.new.put_nowait(worker)
            code = await worker.exited
            if code != -signal.SIGKILL and not self._is_leaving:
                self._judge(worker, code)
                await asyncio.sleep(BREATH)

    def _judge(self, worker: GatedWorker, code: int) -> None:
        """Note a worker that ended by itself; at its start it may, while there is no database."""
        log = worker.said
        if code == EX_UNAVAILABLE and '"worker_started"' not in log:
            return
        last = log.splitlines()[-1:] or ["it said nothing"]
        self.problems.append(f"worker {worker.folder.name} left with {code}: {last[0][:1000]}")
