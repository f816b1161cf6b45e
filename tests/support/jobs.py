"""The queue in tests: adds jobs, claims them, moves their time and reads them."""

from __future__ import annotations

from contextlib import asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from pgworker.db.pool import open_pool
from pgworker.models import Advance, Complete, Done, ErrorKind, Failure, Job, JobStatus, Snooze
from pgworker.queue.jobs import Jobs
from pgworker.status.commands import Commands
from pgworker.status.queries import StatusReader
from tests.support.polling import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from uuid import UUID

    from pgworker.db.pool import Pool

LEASE = timedelta(seconds=30)
BACKOFF = timedelta(seconds=2)
BACKOFF_CAP = timedelta(seconds=300)
PHASES = ("create_project", "await_project", "schema_sync", "smoke_checks")


class JobsInTest:
    """Jobs in a fresh database, through the functions that a worker calls.

    Time passes only when a test moves a row's timestamps.
    """

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.commands = Commands(pool)
        self.status = StatusReader(pool)

    def as_worker(self, worker: str) -> Jobs:
        """Return the queue as this worker sees it."""
        return Jobs(self.pool, worker=worker, lease=LEASE)

    # -- making ---------------------------------------------------------------------------

    async def add_client(self, name: str = "Acme") -> UUID:
        """Insert a client without a job."""
        client_id: UUID = await self.pool.fetchval(
            "insert into clients (name) values ($1) returning id", name
        )
        return client_id

    async def add(self, name: str = "Acme", *, priority: int = 0) -> int:
        """Insert a client with a job; return the job's id."""
        client_id = await self.add_client(name)
        job_id: int = await self.pool.fetchval(
            "insert into client_provisioning_jobs (client_id, priority) values ($1, $2)"
            " returning id",
            client_id,
            priority,
        )
        return job_id

    async def add_many(self, count: int) -> None:
        """Insert clients with their jobs, by one statement."""
        await self.pool.execute(
            "insert into clients (name, auto_provision)"
            " select 'client ' || number, true from generate_series(1, $1) as number",
            count,
        )

    # -- acting ---------------------------------------------------------------------------

    async def claim(self, limit: int = 1, *, worker: str = "worker", in_hand: int = 0) -> list[Job]:
        return await self.as_worker(worker).claim(limit, ["provision"], in_hand=in_hand)

    async def claim_one(self, *, worker: str = "worker") -> Job:
        (job,) = await self.claim(worker=worker)
        return job

    async def add_claimed(self, *, worker: str = "worker", attempts: int = 0) -> Job:
        """Return a new job that this worker holds, after so many failed attempts."""
        job_id = await self.add()
        await self.update(job_id, attempts=attempts)
        return await self.claim_one(worker=worker)

    async def complete(self, job: Job) -> set[int]:
        return await self.as_worker("any").complete([(job, Complete(Done()))])

    async def advance(self, job: Job, next_phase: str = "await_project") -> set[int]:
        return await self.as_worker("any").advance([(job, Advance(next_phase, Done()))])

    async def snooze(self, job: Job, delay: timedelta = timedelta(minutes=1)) -> set[int]:
        return await self.as_worker("any").snooze([(job, Snooze(delay, reason="the project"))])

    async def release(self, job: Job) -> set[int]:
        return await self.as_worker("any").release([job])

    async def heartbeat(self, job: Job) -> set[int]:
        return await lost_of(self.as_worker("any"), [job])

    async def fail(
        self, job: Job, *, kind: ErrorKind = ErrorKind.TRANSIENT, retry: bool = True
    ) -> str:
        return await self.as_worker("any").fail(
            job,
            Failure(kind, "it did not work", retry=retry),
            backoff=BACKOFF,
            backoff_cap=BACKOFF_CAP,
        )

    async def reset(self, job_id: int) -> None:
        """Reset the job as a person does, in plain SQL."""
        await self.pool.execute(
            "update client_provisioning_jobs set attempts = 0, claimed_at = null where id = $1",
            job_id,
        )

    async def add_with_status(self, status: JobStatus | str) -> int:
        """Return a new job that reached this status by the queue's functions."""
        job_id = await self.add(f"a client to be {status}")
        if status == JobStatus.QUEUED:
            return job_id
        (job,) = await self.claim()
        assert job.id == job_id, "another job is due"
        match status:
            case JobStatus.WAITING:
                await self.snooze(job)
            case JobStatus.FAILED:
                await self.fail(job, kind=ErrorKind.PERMANENT, retry=False)
            case JobStatus.SUCCEEDED:
                await self.complete(job)
            case JobStatus.CANCELLED:
                await self.commands.cancel(job.client_id)
        return job_id

    # -- time -----------------------------------------------------------------------------

    async def update(self, job_id: int, **columns: object) -> None:
        """Set columns of a job without the queue's functions."""
        names = ", ".join(f"{name} = ${index}" for index, name in enumerate(columns, start=2))
        await self.pool.execute(
            f"update client_provisioning_jobs set {names} where id = $1", job_id, *columns.values()
        )

    async def let_lease_expire(self, job_id: int, *, claim_token: int | None = None) -> None:
        """End the job's lease; with `claim_token`, only if it belongs to that claim."""
        await self.pool.execute(
            "update client_provisioning_jobs set lease_expires_at = now() - interval '1 second'"
            " where id = $1 and claim_token = coalesce($2, claim_token)",
            job_id,
            claim_token,
        )

    async def let_wait_end(self, job_id: int) -> None:
        await self.pool.execute(
            "update client_provisioning_jobs set run_at = now() where id = $1", job_id
        )

    # -- looking --------------------------------------------------------------------------

    async def fetch_row(self, job_id: int) -> dict[str, Any]:
        row = await self.pool.fetchrow(
            "select * from client_provisioning_jobs where id = $1", job_id
        )
        assert row is not None
        return dict(row)

    async def fetch_status(self, job_id: int) -> JobStatus:
        return JobStatus((await self.fetch_row(job_id))["status"])

    async def wait_for_status(self, job_id: int, *statuses: JobStatus) -> JobStatus:
        """Return the job's status once it is one of these."""

        async def probe() -> JobStatus | None:
            status = await self.fetch_status(job_id)
            return status if status in statuses else None

        status = await eventually(probe)
        assert status is not None
        return status

    async def fetch_client(self, job_id: int) -> dict[str, Any]:
        row = await self.pool.fetchrow(
            "select client.* from clients as client"
            " inner join client_provisioning_jobs as job on client.id = job.client_id"
            " where job.id = $1",
            job_id,
        )
        assert row is not None
        return dict(row)

    async def fetch_events(self, job_id: int) -> list[dict[str, Any]]:
        return [
            dict(row)
            for row in await self.pool.fetch(
                "select * from pgworker.events where job_id = $1 order by id", job_id
            )
        ]

    async def fetch_event_names(self, job_id: int) -> list[str]:
        return [event["event"] for event in await self.fetch_events(job_id)]


@asynccontextmanager
async def jobs_in(
    dsn: str, *, max_size: int = 8, application_name: str = "the test"
) -> AsyncIterator[JobsInTest]:
    """Open a migrated database for a test."""
    async with open_pool(dsn, max_size=max_size, application_name=application_name) as pool:
        yield JobsInTest(pool)


async def lost_of(jobs: Jobs, held: Sequence[Job]) -> set[int]:
    """Renew leases; return the ids of the jobs that are lost."""
    not_renewed = await jobs.heartbeat(held, timeout=timedelta(seconds=60))
    return {job_id for job_id, is_lost in not_renewed.items() if is_lost}
