"""What a phase must know before it begins, read for many jobs with one statement."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final, NamedTuple

from pgworker.db.queries import load
from pgworker.errors import DatabaseUnreachable
from pgworker.models import Client, client_status

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pgworker.db.pool import Pool
    from pgworker.models import Job


class PrefetchQueries(NamedTuple):
    """The statements of `sql/queries/prefetch.sql`."""

    briefings: str


PREFETCH_QUERIES = load(PrefetchQueries, "queries/prefetch.sql")

# A job that was claimed with many others may have to wait until it begins.
FRESH_FOR: Final = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class Briefing:
    """What is known of a job's client.

    Attributes:
        provider: the name of who made its tenant, or is to make it; None while nothing is meant.
        some_are_refused: some credential's breaker is open; whether it is this job's must be asked.
    """

    client: Client
    provider: str | None
    some_are_refused: bool


@dataclass(frozen=True, slots=True)
class _Ahead:
    job: Job
    briefing: Briefing
    fresh_until: float


class Briefings:
    """Reads briefings.

    Those of jobs that were just claimed are read ahead, with one statement. For the others: while
    a statement is under way, those who ask wait; the next statement reads for all of them. So a
    lone job is briefed at once, and a crowd costs a statement for each handful of them.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._ahead: dict[int, _Ahead] = {}
        self._asking: dict[asyncio.Future[Briefing], Job] = {}
        self._one_at_a_time = asyncio.Lock()

    async def read_ahead(self, jobs: Sequence[Job]) -> None:
        """Read the briefings of jobs that are about to begin."""
        try:
            found = await self._read(jobs)
        except DatabaseUnreachable:
            # Each of them asks when it begins, and is told so.
            return
        now = time.monotonic()
        # Of a job that was lost before it began nobody asks.
        waiting = {each.job.id: each for each in self._ahead.values() if each.fresh_until > now}
        fresh_until = now + FRESH_FOR.total_seconds()
        for job in jobs:
            if job.id in found:
                waiting[job.id] = _Ahead(job, found[job.id], fresh_until)
        self._ahead = waiting

    async def of(self, job: Job) -> Briefing:
        """Return the job's briefing.

        Raises:
            DatabaseUnreachable: it can't be read now.
        """
        ahead = self._ahead.pop(job.id, None)
        # By identity: another claim, or another phase, is another job here.
        if ahead is not None and ahead.job is job and time.monotonic() < ahead.fresh_until:
            return ahead.briefing
        briefing: asyncio.Future[Briefing] = asyncio.get_running_loop().create_future()
        self._asking[briefing] = job
        try:
            async with self._one_at_a_time:
                # Whoever had the turn before us may have read ours, too.
                if not briefing.done():
                    await self._read_for_all()
        finally:
            self._asking.pop(briefing, None)
        return briefing.result()

    async def _read_for_all(self) -> None:
        asked = dict(self._asking)
        found = await self._read(list(asked.values()))
        for briefing, job in asked.items():
            if not briefing.done():
                briefing.set_result(found[job.id])

    async def _read(self, jobs: Sequence[Job]) -> dict[int, Briefing]:
        """Return a briefing for each: a client can't be deleted while it has a job."""
        rows = await self._pool.fetch(
            PREFETCH_QUERIES.briefings, [job.id for job in jobs], [job.client_id for job in jobs]
        )
        # In the order of the columns that the block names.
        return {
            job_id: Briefing(
                Client(client_id, name, client_status(status), *others), provider, some_are_refused
            )
            for job_id, client_id, name, status, *others, provider, some_are_refused in rows
        }
