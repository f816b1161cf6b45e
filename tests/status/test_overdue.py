"""What is older than it should be is found, and nothing else is."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest

from pgworker.models import JobStatus
from pgworker.settings import Settings
from pgworker.status.overdue import ADVICE, Overdue, OverdueKind, find_overdue
from tests.support.jobs import JobsInTest

# The default of PGWORKER_PROJECT_TIMEOUT_SECONDS, and a little more.
TOO_LONG = timedelta(seconds=1205)
MOMENT = timedelta(minutes=1)


async def overdue(jobs: JobsInTest) -> tuple[Overdue, ...]:
    return await find_overdue(jobs.pool, Settings(_env_file=None))


async def the_only(jobs: JobsInTest, kind: OverdueKind, age: timedelta) -> Overdue:
    (found,) = await overdue(jobs)
    assert found.kind is kind
    assert age <= found.age < age + MOMENT
    return found


@asynccontextmanager
async def standing_still(jobs: JobsInTest) -> AsyncIterator[JobsInTest]:
    """Let no time pass: the database's clock is that of the block's transaction."""
    async with jobs.pool.acquire() as connection, connection.transaction():
        yield JobsInTest(connection)


async def let_events_age(jobs: JobsInTest, by: timedelta) -> None:
    await jobs.pool.execute(
        "update client_provisioning_jobs set phase_began_at = phase_began_at - $1::interval", by
    )
    await jobs.pool.execute("alter table pgworker.event_log disable trigger user")
    await jobs.pool.execute("update pgworker.event_log set at = at - $1::interval", by)
    await jobs.pool.execute("alter table pgworker.event_log enable trigger user")


async def test_jobs_of_every_status_that_got_there_just_now_are_not_overdue(
    jobs: JobsInTest,
) -> None:
    for status in ("succeeded", "cancelled", "waiting", "running", "queued"):
        await jobs.add_with_status(status)
    await jobs.pool.execute("select pgworker.register_worker('w', 'host', 1, '0', 20, '30 s')")
    await jobs.add_client("never requested")
    assert await overdue(jobs) == ()


# -- jobs -------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [JobStatus.RUNNING, JobStatus.WAITING])
async def test_a_job_that_stays_in_its_phase_is_overdue_with_its_client_and_age(
    jobs: JobsInTest, status: JobStatus
) -> None:
    job_id = await jobs.add_with_status(status)
    await let_events_age(jobs, TOO_LONG)

    found = await the_only(jobs, OverdueKind.PHASE, TOO_LONG)

    client = await jobs.fetch_client(job_id)
    assert found.oldest == f"{client['name']} ({client['id']}) in create_project"
    assert found.number == 1


async def test_each_phase_has_its_own_time(jobs: JobsInTest) -> None:
    job = await jobs.add_claimed()
    await let_events_age(jobs, TOO_LONG)
    await jobs.advance(job)
    assert await overdue(jobs) == ()


async def test_a_job_that_a_person_retried_starts_its_time_again(jobs: JobsInTest) -> None:
    job_id = await jobs.add_with_status(JobStatus.FAILED)
    await let_events_age(jobs, TOO_LONG)
    await jobs.commands.retry((await jobs.fetch_client(job_id))["id"])
    await jobs.claim_one()
    assert await overdue(jobs) == ()


async def test_a_job_that_was_enqueued_for_later_is_not_overdue_when_it_starts(
    jobs: JobsInTest,
) -> None:
    client_id = await jobs.add_client()
    await jobs.pool.execute(
        "select pgworker.enqueue($1, p_run_at => now() + interval '1 week')", client_id
    )
    await let_events_age(jobs, timedelta(weeks=1))
    assert await overdue(jobs) == ()
    await jobs.pool.execute("update client_provisioning_jobs set run_at = now()")
    await jobs.claim_one()
    assert await overdue(jobs) == ()


@pytest.mark.parametrize("status", [JobStatus.QUEUED, JobStatus.WAITING])
async def test_a_due_job_that_no_worker_claims_is_overdue_unless_a_person_paused_it(
    jobs: JobsInTest, status: JobStatus
) -> None:
    await jobs.add_with_status(status)
    async with standing_still(jobs) as still:
        since = "update client_provisioning_jobs set run_at = now() - $1::interval"
        await still.pool.execute(since, timedelta(seconds=60))
        assert await overdue(still) == ()
        await still.pool.execute(since, timedelta(seconds=61))
        await the_only(still, OverdueKind.DUE, timedelta(seconds=61))

    await jobs.commands.pause("provision")
    assert await overdue(jobs) == ()


async def test_a_lease_that_is_over_is_overdue_and_names_its_holder(jobs: JobsInTest) -> None:
    job = await jobs.add_claimed(worker="host:1")
    await jobs.let_lease_expire(job.id)
    found = await the_only(jobs, OverdueKind.LEASE_EXPIRED, timedelta(seconds=1))
    assert "held by host:1" in found.oldest


async def test_failed_jobs_are_named_by_the_one_that_waits_longest_for_a_person(
    jobs: JobsInTest,
) -> None:
    oldest, _ = [await jobs.add_with_status(JobStatus.FAILED) for _ in range(2)]
    await jobs.pool.execute(
        "update client_provisioning_jobs set finished_at = finished_at - interval '2 days'"
        " where id = $1",
        oldest,
    )
    found = await the_only(jobs, OverdueKind.FAILED, timedelta(days=2))
    assert found.number == 2
    assert str((await jobs.fetch_client(oldest))["id"]) in found.oldest


# -- clients, creates, workers ----------------------------------------------------------------


async def test_a_client_that_shows_a_phase_without_a_job_is_abandoned(jobs: JobsInTest) -> None:
    job_id = await jobs.add_with_status(JobStatus.RUNNING)
    client = await jobs.fetch_client(job_id)
    await jobs.pool.execute("update clients set provisioning_status = 'waiting_for_project'")
    assert await overdue(jobs) == ()
    await jobs.pool.execute("delete from client_provisioning_jobs")
    await jobs.pool.execute("update clients set updated_at = now() - interval '3 hours'")

    found = await the_only(jobs, OverdueKind.ABANDONED, timedelta(hours=3))
    assert str(client["id"]) in found.oldest

    # The advice works.
    await jobs.pool.execute(f"select pgworker.enqueue('{client['id']}')")
    assert await overdue(jobs) == ()


async def test_a_create_without_an_outcome_is_overdue_once_no_job_looks_for_it(
    jobs: JobsInTest,
) -> None:
    job_id = await jobs.add_with_status(JobStatus.WAITING)
    client_id = (await jobs.fetch_client(job_id))["id"]
    await jobs.pool.execute(
        "insert into pgworker.intents (client_id, provider, name) values ($1, 'supabase', 'n')",
        client_id,
    )
    await jobs.pool.execute(
        "insert into pgworker.steps (client_id, step, target, state, intended_at)"
        " values ($1, 'create_project', 'n', 'unknown', now() - interval '1 hour')",
        client_id,
    )
    assert await overdue(jobs) == (), "its job looks for it"
    await jobs.commands.cancel(client_id)
    async with standing_still(jobs) as still:
        await still.pool.execute("update pgworker.steps set intended_at = now() - interval '120 s'")
        assert await overdue(still) == (), "it may still show up"
        await still.pool.execute("update pgworker.steps set intended_at = now() - interval '121 s'")
        await the_only(still, OverdueKind.UNCONFIRMED, timedelta(seconds=121))

    await jobs.pool.execute("update pgworker.intents set ref = 'found'")
    assert await overdue(jobs) == ()


async def test_a_lost_worker_is_overdue_and_one_that_signed_off_is_not(
    jobs: JobsInTest,
) -> None:
    for worker in ("silent", "stopped"):
        await jobs.pool.execute(
            "select pgworker.register_worker($1, 'host', 1, '0', 20, '30 s')", worker
        )
    await jobs.pool.execute(
        "update pgworker.workers set last_seen_at = now() - interval '5 min',"
        " state = case id when 'stopped' then 'stopped' else state end"
    )
    found = await the_only(jobs, OverdueKind.WORKER_LOST, timedelta(minutes=5))
    assert (found.number, found.oldest) == (1, "silent")


def test_the_doctor_has_advice_for_everything_that_can_be_overdue() -> None:
    assert ADVICE.keys() == set(OverdueKind)
