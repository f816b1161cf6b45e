"""Stores what became of jobs, many with one statement."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar, cast

from pgworker.errors import DatabaseUnreachable, LeaseLost
from pgworker.models import Advance, Complete, Snooze

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from pgworker.db.outage import Outage
    from pgworker.models import Job
    from pgworker.queue.jobs import Jobs

Batched = Advance | Complete | Snooze
T = TypeVar("T", Advance, Complete, Snooze)

RETRY_AFTER = timedelta(seconds=0.5)


@dataclass(slots=True)
class _Entry:
    job: Job
    transition: Batched
    stored: asyncio.Future[None] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )


class Settling:
    """Collects transitions while a statement is under way; the next one carries them all.

    So a lone transition is stored at once, and a crowd costs one round trip and one commit
    for each kind of transition.
    """

    def __init__(self, jobs: Jobs, outage: Outage) -> None:
        self._jobs = jobs
        self._outage = outage
        self._entries: list[_Entry] = []
        self._filled = asyncio.Event()

    async def store(self, job: Job, transition: Batched) -> None:
        """Return when the transition is committed.

        Raises:
            LeaseLost: somebody else holds the job now; nothing was written.
        """
        entry = _Entry(job, transition)
        self._entries.append(entry)
        self._filled.set()
        await entry.stored

    async def run(self) -> None:
        """Store what is handed in, until cancelled."""
        while True:
            await self._filled.wait()
            self._filled.clear()
            entries, self._entries = self._entries, []
            # Who was cancelled meanwhile has lost its lease, or is about to be released.
            entries = [entry for entry in entries if not entry.stored.done()]
            await self._store_kind(entries, Complete, self._jobs.complete)
            await self._store_kind(entries, Advance, self._jobs.advance)
            await self._store_kind(entries, Snooze, self._jobs.snooze)
            if not self._entries:
                self._outage.over("settling")

    async def _store_kind(
        self,
        entries: Sequence[_Entry],
        kind: type[T],
        statement: Callable[[Sequence[tuple[Job, T]]], Awaitable[set[int]]],
    ) -> None:
        chosen = [entry for entry in entries if isinstance(entry.transition, kind)]
        steps = [(entry.job, entry.transition) for entry in chosen]
        if not steps:
            return
        try:
            refused = await statement(cast("Sequence[tuple[Job, T]]", steps))
        except DatabaseUnreachable as error:
            # Kept, and tried again: the work is done, and the lease may outlast the outage.
            # Whoever's lease doesn't is cancelled by its worker, and dropped above.
            self._outage.failed("settling", error)
            self._entries.extend(chosen)
            asyncio.get_running_loop().call_later(RETRY_AFTER.total_seconds(), self._filled.set)
            return
        for entry in chosen:
            if entry.stored.done():
                continue
            if entry.job.id in refused:
                entry.stored.set_exception(
                    LeaseLost(f"job {entry.job.id} is held by somebody else now")
                )
            else:
                entry.stored.set_result(None)
