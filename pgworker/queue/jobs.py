"""Jobs: one method for each SQL function that a worker calls."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from pgworker.db.queries import load
from pgworker.db.translation import concerns_rows
from pgworker.errors import PgworkerError
from pgworker.models import Job

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import timedelta

    from pgworker.db.pool import Pool
    from pgworker.models import Advance, Complete, Failure, Snooze


class JobQueries(NamedTuple):
    """The statements of `sql/queries/jobs.sql`."""

    claim: str
    claim_each: str
    heartbeat: str
    advance: str
    complete: str
    snooze: str
    fail: str
    release: str
    seconds_until_due: str
    outstanding: str


JOB_QUERIES = load(JobQueries, "queries/jobs.sql")


@dataclass(frozen=True, slots=True)
class Outstanding:
    """How many jobs are not finished (`live`), and how many need a person (`failed`)."""

    live: int
    failed: int


class Jobs:
    """The queue, as a worker sees it.

    Methods over several jobs return the ids that were refused, because another worker holds
    those jobs now. Every method may raise `DatabaseUnreachable`.

    Attributes:
        lease: how long a claim lasts; what follows from it is in `lease_timing`.
    """

    def __init__(self, pool: Pool, *, worker: str, lease: timedelta) -> None:
        self._pool = pool
        self._worker = worker
        self.lease = lease

    async def claim(
        self,
        limit: int,
        workflows: Sequence[str],
        *,
        in_hand: int = 0,
    ) -> list[Job]:
        """Claim up to `limit` due jobs of these workflows.

        A client's row that can't be changed, or that another session has locked, holds up its own
        job only: the server is asked once more then, job by job.

        Args:
            limit: jobs at most.
            workflows: those that the caller knows.
            in_hand: how many jobs the caller holds; with none it may get a suspect, alone.
        """
        arguments = (self._worker, limit, self.lease, list(workflows), in_hand)
        try:
            rows = await self._pool.fetch(JOB_QUERIES.claim, *arguments)
        except PgworkerError as error:
            if not concerns_rows(error):
                raise
            # Slower, so not tried first: a savepoint for each job.
            rows = await self._pool.fetch(JOB_QUERIES.claim_each, *arguments)
        # In the order of the columns that the block names.
        return [Job._make(row) for row in rows]

    async def heartbeat(self, jobs: Sequence[Job], *, timeout: timedelta) -> dict[int, bool]:
        """Renew the leases of these jobs; return the ids of those that weren't renewed.

        True stands for a job that is lost. False stands for one whose row another session has
        locked: it is still ours for as long as its lease was before.

        Args:
            jobs: those in hand.
            timeout: for each of getting a connection, the statement, giving the connection back.
        """
        seconds = timeout.total_seconds()
        # The time-out of `acquire` holds for giving the connection back, too: asyncpg would
        # wait long there for a server that doesn't answer.
        async with self._pool.acquire(timeout=seconds) as connection:
            rows = await connection.fetch(
                JOB_QUERIES.heartbeat,
                self._worker,
                self.lease,
                [job.id for job in jobs],
                [job.claim_token for job in jobs],
                timeout=seconds,
            )
        return {row["job_id"]: row["is_lost"] for row in rows}

    async def advance(self, steps: Sequence[tuple[Job, Advance]]) -> set[int]:
        """End the phases of these jobs and begin their next ones, under the same claims."""
        return await self._batch(
            JOB_QUERIES.advance,
            [job for job, _ in steps],
            [advance.next_phase for _, advance in steps],
            # Null for nothing to set: the functions leave such a column alone.
            [advance.done.patch.as_json() or None for _, advance in steps],
            [advance.done.checkpoint or None for _, advance in steps],
            self.lease,
        )

    async def complete(self, steps: Sequence[tuple[Job, Complete]]) -> set[int]:
        """End these jobs well."""
        return await self._batch(
            JOB_QUERIES.complete,
            [job for job, _ in steps],
            [complete.done.patch.as_json() or None for _, complete in steps],
            [complete.done.checkpoint or None for _, complete in steps],
            self._worker,
        )

    async def snooze(self, steps: Sequence[tuple[Job, Snooze]]) -> set[int]:
        """Let these jobs wait, without a slot and without counting an attempt."""
        return await self._batch(
            JOB_QUERIES.snooze,
            [job for job, _ in steps],
            [snooze.delay for _, snooze in steps],
            [make_storable(snooze.reason) for _, snooze in steps],
            [snooze.checkpoint or None for _, snooze in steps],
            [snooze.error_kind for _, snooze in steps],
            [None if snooze.error is None else make_storable(snooze.error) for _, snooze in steps],
            [snooze.credential for _, snooze in steps],
        )

    async def fail(
        self, job: Job, failure: Failure, *, backoff: timedelta, backoff_cap: timedelta
    ) -> str:
        """Count a failed attempt; return the status the job is in now, waiting or failed.

        Raises:
            LeaseLost: another worker holds the job now.
        """
        status: str = await self._pool.fetchval(
            JOB_QUERIES.fail,
            job.id,
            job.claim_token,
            failure.kind,
            make_storable(failure.error),
            failure.retry,
            backoff,
            backoff_cap,
        )
        return status

    async def release(self, jobs: Sequence[Job]) -> set[int]:
        """Give these jobs back unburnt."""
        return await self._batch(JOB_QUERIES.release, jobs)

    async def seconds_until_due(self) -> float | None:
        """Return how long until a job falls due; zero or less when one is due, None without any."""
        seconds: float | None = await self._pool.fetchval(JOB_QUERIES.seconds_until_due)
        return seconds

    async def outstanding(self) -> Outstanding:
        """Return how many jobs are left, in all workflows, for all workers."""
        row = await self._pool.fetchrow(JOB_QUERIES.outstanding)
        assert row is not None
        return Outstanding(**dict(row))

    async def _batch(self, query: str, jobs: Sequence[Job], *arguments: object) -> set[int]:
        # Parallel arrays: one plan for any number of jobs, which an `in (…)` list wouldn't have.
        rows = await self._pool.fetch(
            query, [job.id for job in jobs], [job.claim_token for job in jobs], *arguments
        )
        return {row["refused"] for row in rows}


def make_storable(message: str) -> str:
    """Return the message as PostgreSQL can store it: no U+0000, no half of a surrogate pair.

    Messages quote the provider and the tenant's server, whose texts may hold anything.
    """
    return message.replace("\0", "\ufffd").encode(errors="replace").decode()
