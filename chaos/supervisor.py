"""Keeps a number of workers running: one that ends is replaced, as a supervisor would."""

from __future__ import annotations

import asyncio
import os
import signal
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from chaos.workers import ChaosWorker, WorkerLauncher

RESTART_DELAY_SECONDS = 0.1
STOP_TIMEOUT_SECONDS = 120


@dataclass(slots=True)
class Supervisor:
    """The workers of one platform, one in each slot.

    Attributes:
        workers: all that were ever started.
        started: those that no consumer of the queue has taken yet.
        problems: workers that ended by themselves.
    """

    launcher: WorkerLauncher
    environment: Mapping[str, str]
    name: str
    size: int
    workers: list[ChaosWorker] = field(default_factory=list)
    started: asyncio.Queue[ChaosWorker] = field(default_factory=asyncio.Queue)
    problems: list[str] = field(default_factory=list)
    _slots: list[ChaosWorker | None] = field(default_factory=list)
    _is_stopping: bool = False

    def get_worker(self, slot: int) -> ChaosWorker | None:
        """Return the worker that runs in this slot now."""
        worker = self._slots[slot]
        return worker if worker is not None and worker.is_running else None

    async def run(self) -> None:
        """Keep all slots filled until `stop` is called and all workers have ended."""
        self._slots = [None] * self.size
        async with asyncio.TaskGroup() as slots:
            for slot in range(self.size):
                slots.create_task(self._run_slot(slot), name=f"slot {slot}")

    async def stop(self) -> None:
        """Send SIGTERM to all workers, and wait until they have ended."""
        self._is_stopping = True
        running = [worker for worker in self.workers if worker.is_running]
        for worker in running:
            worker.send(signal.SIGTERM)
        if running:
            _, late = await asyncio.wait(
                {worker.exited for worker in running}, timeout=STOP_TIMEOUT_SECONDS
            )
            if late:
                self.problems.append(f"{len(late)} workers did not end after SIGTERM")
        for worker in running:
            await worker.kill()

    async def _run_slot(self, slot: int) -> None:
        while not self._is_stopping:
            worker = await self.launcher.start("run", environment=self.environment, name=self.name)
            self._slots[slot] = worker
            self.workers.append(worker)
            self.started.put_nowait(worker)
            code = await worker.exited
            if code != -signal.SIGKILL and not self._is_stopping:
                self._check_exit(worker, code)
                await asyncio.sleep(RESTART_DELAY_SECONDS)

    def _check_exit(self, worker: ChaosWorker, code: int) -> None:
        """Record a worker that ended by itself; it may while it starts and finds no database."""
        log = worker.output
        if code == os.EX_UNAVAILABLE and '"worker_started"' not in log:
            return
        last = log.splitlines()[-1:] or ["its log is empty"]
        self.problems.append(f"worker {worker.folder.name} ended with {code}: {last[0][:1000]}")
