"""Tasks that outlive the call that starts them, and their owner."""

from __future__ import annotations

import asyncio
from contextvars import Context
from typing import TYPE_CHECKING, Any, TypeVar

from pgworker.telemetry import get_logger

if TYPE_CHECKING:
    from collections.abc import Coroutine

T = TypeVar("T")

log = get_logger()


class BackgroundTasks:
    """Owns tasks until they end; `aclose` cancels and awaits the rest.

    Not a `TaskGroup`: a group must be left by the task that entered it, and would cancel all its
    tasks when one fails. These are started by any job, for the provider, and none of them is a
    condition for another. An unexpected error is logged when its task ends.
    """

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def start(self, work: Coroutine[Any, Any, T], *, name: str) -> asyncio.Task[T]:
        """Start a task; its log lines and spans don't belong to the job that happens to run."""
        task = asyncio.create_task(work, name=name, context=Context())
        self._tasks.add(task)
        task.add_done_callback(self._on_done)
        return task

    async def aclose(self) -> None:
        """Cancel the tasks that still run, and return when all have ended."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _on_done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("background_task_crashed", task=task.get_name(), exc_info=error)
