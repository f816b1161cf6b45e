"""The state diagram of the docs shows what the SQL functions do: no arrow more, none less."""

from __future__ import annotations

import re
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import asyncpg

from pgworker.errors import LeaseLost, NotRetryable, PgworkerError
from pgworker.models import ErrorKind, Job, JobStatus
from tests.support.jobs import JobsInTest, jobs_in

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

DIAGRAM = Path(__file__).parents[1] / "docs" / "job-states.md"
NOTHING = "[*]"

Arrow = tuple[str, str, str]


async def insert(jobs: JobsInTest, job: Job, later: timedelta = timedelta(0)) -> None:
    try:
        await jobs.pool.execute(
            "insert into client_provisioning_jobs (client_id, run_at) values ($1, now() + $2)",
            job.client_id,
            later,
        )
    except PgworkerError as error:
        # Beside a live job it is refused: that is no arrow then.
        if not isinstance(error.__cause__, asyncpg.UniqueViolationError):
            raise


async def enqueue(jobs: JobsInTest, job: Job, later: timedelta = timedelta(0)) -> None:
    await jobs.pool.fetchval(
        "select pgworker.enqueue($1, p_run_at => now() + $2)", job.client_id, later
    )


async def insert_for_later(jobs: JobsInTest, job: Job) -> None:
    await insert(jobs, job, timedelta(hours=1))


async def enqueue_for_later(jobs: JobsInTest, job: Job) -> None:
    await enqueue(jobs, job, timedelta(hours=1))


async def claim_what_is_due(jobs: JobsInTest, job: Job) -> None:
    await jobs.let_wait_end(job.id)
    await jobs.claim()


async def claim_what_was_left_behind(jobs: JobsInTest, job: Job) -> None:
    await jobs.let_lease_expire(job.id)
    await jobs.claim()


async def claim_what_kills_workers(jobs: JobsInTest, job: Job) -> None:
    await jobs.update(job.id, crashes=4)
    await claim_what_was_left_behind(jobs, job)


async def make_due(jobs: JobsInTest, job: Job) -> None:
    """Let it be claimed, by a claim that changes its client."""
    await jobs.let_wait_end(job.id)
    await jobs.let_lease_expire(job.id)
    await jobs.pool.execute(
        "update clients set provisioning_status = 'queued' where id = $1", job.client_id
    )


async def claim_beside_a_lock(jobs: JobsInTest, job: Job) -> None:
    await make_due(jobs, job)
    async with jobs.pool.acquire() as other, other.transaction():
        await other.execute("select 1 from clients where id = $1 for update", job.client_id)
        await jobs.claim()


async def claim_with_a_client_that_refuses(jobs: JobsInTest, job: Job, sqlstate: str) -> None:
    await make_due(jobs, job)
    await jobs.pool.execute(
        "create function refuse() returns trigger language plpgsql as $$ begin"
        f" raise exception 'no' using errcode = '{sqlstate}'; end $$"
    )
    await jobs.pool.execute(
        "create trigger refuse before update on clients for each row execute function refuse()"
    )
    try:
        await jobs.claim()
    finally:
        await jobs.pool.execute("drop function refuse cascade")


async def claim_with_a_client_that_is_read_only(jobs: JobsInTest, job: Job) -> None:
    await claim_with_a_client_that_refuses(jobs, job, "P0001")


async def claim_with_a_client_in_a_conflict(jobs: JobsInTest, job: Job) -> None:
    await claim_with_a_client_that_refuses(jobs, job, "40001")


async def fail_for_good(jobs: JobsInTest, job: Job) -> None:
    await jobs.fail(job, kind=ErrorKind.PERMANENT, retry=False)


async def retry(jobs: JobsInTest, job: Job) -> None:
    await jobs.commands.retry(job.client_id)


async def cancel(jobs: JobsInTest, job: Job) -> None:
    await jobs.commands.cancel(job.client_id)


async def reset(jobs: JobsInTest, job: Job) -> None:
    await jobs.reset(job.id)


# Everything that can be called, in every way that makes a difference, by the name of the arrow.
CALLS: tuple[tuple[str, Callable[[JobsInTest, Job], Awaitable[object]]], ...] = (
    ("insert", insert),
    ("insert", insert_for_later),
    ("enqueue", enqueue),
    ("enqueue", enqueue_for_later),
    ("claim", claim_what_is_due),
    ("claim", claim_what_was_left_behind),
    ("claim", claim_what_kills_workers),
    ("claim", claim_beside_a_lock),
    ("claim", claim_with_a_client_that_is_read_only),
    ("claim", claim_with_a_client_in_a_conflict),
    ("heartbeat", JobsInTest.heartbeat),
    ("advance", JobsInTest.advance),
    ("complete", JobsInTest.complete),
    ("snooze", JobsInTest.snooze),
    ("release", JobsInTest.release),
    ("fail", JobsInTest.fail),
    ("fail", fail_for_good),
    ("retry", retry),
    ("cancel", cancel),
    ("reset", reset),
)


def drawn() -> set[Arrow]:
    """Return the arrows of the diagram: from, to, and each of the calls it is labelled with."""
    (mermaid,) = re.findall(r"```mermaid\n(.*?)```", DIAGRAM.read_text(encoding="utf-8"), re.DOTALL)
    arrows = re.findall(r"^\s*(\S+) --> (\S+): (.+)$", mermaid, re.MULTILINE)
    assert len(arrows) == mermaid.count("-->"), "an arrow has no label"
    return {
        (source, target, call.strip())
        for source, target, calls in arrows
        for call in calls.split(",")
    }


async def arrows_of(jobs: JobsInTest, status: JobStatus) -> set[Arrow]:
    """Return what every call does to a job of this status, as the audit trail records it."""
    found = set()
    for name, call in CALLS:
        job = await job_in(jobs, status)
        before = await jobs.pool.fetchval("select coalesce(max(id), 0) from pgworker.events")
        # Refused: that is no arrow then.
        with suppress(LeaseLost, NotRetryable):
            await call(jobs, job)
        rows = await jobs.pool.fetch(
            "select from_status, to_status from pgworker.events where id > $1", before
        )
        found |= {(row["from_status"] or NOTHING, row["to_status"], name) for row in rows}
        # What is recorded is what happened.
        for job_id in await jobs.pool.fetch(
            "select id from client_provisioning_jobs where client_id = $1", job.client_id
        ):
            last = (await jobs.fetch_events(job_id["id"]))[-1]
            assert last["to_status"] == await jobs.fetch_status(job_id["id"])
        await jobs.commands.cancel(job.client_id)
    return found


async def job_in(jobs: JobsInTest, status: JobStatus) -> Job:
    """Return a job of this status, as the holder of its present token would know it."""
    job_id = await jobs.add_with_status(status)
    row = await jobs.fetch_row(job_id)
    return Job(
        id=job_id,
        client_id=row["client_id"],
        workflow=row["workflow"],
        job_type=row["job_type"],
        attempts=row["attempts"],
        max_attempts=row["max_attempts"],
        claim_token=row["claim_token"],
        checkpoint={},
        trace_context=None,
        created_at=row["created_at"],
    )


async def test_the_diagram_shows_exactly_what_the_functions_do(database: str) -> None:
    done: set[Arrow] = set()
    async with jobs_in(database) as jobs:
        for status in JobStatus:
            done |= await arrows_of(jobs, status)

    assert done - drawn() == set(), "arrows that the diagram lacks"
    assert drawn() - done == set(), "arrows that no function makes"
