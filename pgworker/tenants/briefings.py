"""What a phase must know before it begins, read for many jobs with one statement."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pgworker.db.sqlstate import translated
from pgworker.models import Client, client_status
from pgworker.tenants.ledger import TENANT_QUERIES

if TYPE_CHECKING:
    from pgworker.db.pool import Pool
    from pgworker.models import Job


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


class Briefings:
    """Reads briefings.

    While a statement is under way, those who ask wait; the next statement reads for all of them.
    So a lone job is briefed at once, and ten thousand that look at their projects every few
    seconds cost a statement for each handful of them.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._asking: dict[asyncio.Future[Briefing], Job] = {}
        self._one_at_a_time = asyncio.Lock()

    async def of(self, job: Job) -> Briefing:
        """Return the job's briefing.

        Raises:
            DatabaseUnreachable: it can't be read now.
        """
        briefing: asyncio.Future[Briefing] = asyncio.get_running_loop().create_future()
        self._asking[briefing] = job
        try:
            async with self._one_at_a_time:
                # Whoever had the turn before us may have read ours, too.
                if not briefing.done():
                    await self._read()
        finally:
            self._asking.pop(briefing, None)
        return briefing.result()

    async def _read(self) -> None:
        asked = dict(self._asking)
        jobs = list(asked.values())
        with translated():
            rows = await self._pool.fetch(
                TENANT_QUERIES.briefings, [job.id for job in jobs], [job.client_id for job in jobs]
            )
        found = {}
        for row in rows:
            values = dict(row)
            job_id = values.pop("job_id")
            provider, some_are_refused = values.pop("provider"), values.pop("some_are_refused")
            client = Client(**(values | {"status": client_status(values["status"])}))
            found[job_id] = Briefing(client, provider, some_are_refused)
        for briefing, job in asked.items():
            # A client can't be deleted while it has a job.
            if not briefing.done():
                briefing.set_result(found[job.id])
