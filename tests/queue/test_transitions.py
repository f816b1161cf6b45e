"""Every arrow of the state diagram: its good path, its refused path, its race."""

from __future__ import annotations

import asyncio
import re
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest

from pgworker.errors import LeaseLost
from pgworker.models import (
    Advance,
    ClientPatch,
    Complete,
    Done,
    ErrorKind,
    Failure,
    Job,
    JobStatus,
    Snooze,
)
from pgworker.queue.jobs import JOB_QUERIES
from tests.support.jobs import BACKOFF, BACKOFF_CAP, LEASE, JobsInTest, lost_of
from tests.support.polling import wait_until
from tests.support.workers import within

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from uuid import UUID

    from pgworker.db.pool import Connection
    from pgworker.queue.jobs import Jobs

CLAIM = "select id from pgworker.claim('worker', 1000, '30 s')"

# What the holder of a claim can do, by name; each returns the refused ids or raises LeaseLost.
WRITES: dict[str, Callable[[JobsInTest, Job], Awaitable[object]]] = {
    "heartbeat": JobsInTest.heartbeat,
    "advance": JobsInTest.advance,
    "complete": JobsInTest.complete,
    "snooze": JobsInTest.snooze,
    "release": JobsInTest.release,
    "fail": JobsInTest.fail,
}

# The same over several jobs.
MANY: dict[str, Callable[[Jobs, list[Job]], Awaitable[set[int]]]] = {
    "heartbeat": lost_of,
    "advance": lambda jobs, held: jobs.advance(
        [(job, Advance("await_project", Done())) for job in held]
    ),
    "complete": lambda jobs, held: jobs.complete([(job, Complete(Done())) for job in held]),
    "snooze": lambda jobs, held: jobs.snooze(
        [(job, Snooze(timedelta(minutes=1), reason="the project")) for job in held]
    ),
    "release": lambda jobs, held: jobs.release(held),
}
# The event of each.
PAST = {"advance": "advanced", "complete": "succeeded"}
LOCK_JOB = "select id from client_provisioning_jobs where id = $1 for update nowait"


async def refused(jobs: JobsInTest, write: str, job: Job) -> bool:
    """Return whether the write was refused because the job isn't held with that token."""
    try:
        outcome = await WRITES[write](jobs, job)
    except LeaseLost:
        return True
    return outcome == {job.id}


# -- good paths -------------------------------------------------------------------------------


async def test_a_claim_takes_the_job_for_one_lease(jobs: JobsInTest) -> None:
    job_id = await jobs.add()

    job = await jobs.claim_one(worker="host:1")

    row = await jobs.fetch_row(job_id)
    assert job.id == job_id
    assert (row["status"], row["claimed_by"], row["claim_token"]) == ("running", "host:1", 1)
    assert row["lease_expires_at"] - row["claimed_at"] == LEASE
    client = await jobs.fetch_client(job_id)
    assert client["provisioning_status"] == "creating_project"
    assert client["provisioning_started_at"] is not None


async def test_advance_begins_the_next_phase_under_the_same_claim(jobs: JobsInTest) -> None:
    job = await jobs.add_claimed(attempts=3)
    done = Done(ClientPatch(project_ref="ref", project_url="url"), checkpoint={"a": 1})

    assert await jobs.as_worker("w").advance([(job, Advance("await_project", done))]) == set()

    row = await jobs.fetch_row(job.id)
    assert (row["status"], row["job_type"], row["claim_token"]) == ("running", "await_project", 1)
    assert (row["attempts"], row["crashes"]) == (0, 0)
    assert row["checkpoint"] == {"a": 1}
    client = await jobs.fetch_client(job.id)
    assert client["provisioning_status"] == "waiting_for_project"
    assert (client["project_ref"], client["project_url"]) == ("ref", "url")


async def test_an_advance_that_is_repeated_changes_nothing(jobs: JobsInTest) -> None:
    job = await jobs.add_claimed()
    await jobs.advance(job)
    before = await jobs.fetch_event_names(job.id)

    assert await jobs.advance(job) == set()

    assert await jobs.fetch_event_names(job.id) == before
    assert (await jobs.fetch_row(job.id))["job_type"] == "await_project"


async def test_time_in_a_phase_counts_from_its_beginning_whatever_waits_were_in_it(
    jobs: JobsInTest,
) -> None:
    job = await jobs.add_claimed()
    await jobs.snooze(job)
    await jobs.update(job.id, phase_began_at=datetime.now(UTC) - timedelta(hours=1))
    await jobs.let_wait_end(job.id)
    again = await jobs.claim_one()
    assert timedelta(minutes=59) < again.in_phase < timedelta(minutes=61)

    await jobs.advance(again)
    await jobs.let_lease_expire(job.id)
    assert (await jobs.claim_one()).in_phase < timedelta(minutes=1)


async def test_time_in_a_phase_counts_from_the_last_time_a_person_put_the_job_there(
    jobs: JobsInTest,
) -> None:
    job = await jobs.add_claimed()
    await jobs.update(job.id, phase_began_at=datetime.now(UTC) - timedelta(hours=1))

    await jobs.pool.execute("update client_provisioning_jobs set attempts = 0, claimed_at = null")

    assert (await jobs.claim_one()).in_phase < timedelta(minutes=1)


async def test_complete_makes_the_client_ready_and_forgets_its_error(jobs: JobsInTest) -> None:
    job = await jobs.add_claimed()
    await jobs.fail(job)
    await jobs.let_wait_end(job.id)
    job = await jobs.claim_one()
    done = Done(ClientPatch(schema_version="20260101"), checkpoint={"b": 2})

    assert await jobs.as_worker("w").complete([(job, Complete(done))]) == set()

    row = await jobs.fetch_row(job.id)
    assert (row["status"], row["last_error"], row["error_kind"]) == ("succeeded", None, None)
    assert row["finished_at"] is not None
    assert row["claimed_by"] is None
    client = await jobs.fetch_client(job.id)
    assert (client["provisioning_status"], client["provisioning_error"]) == ("ready", None)
    assert client["provisioning_completed_at"] is not None
    assert client["schema_version"] == "20260101"


async def test_a_snooze_sleeps_without_an_attempt_or_a_lease(jobs: JobsInTest) -> None:
    job = await jobs.add_claimed(attempts=2)

    assert await jobs.snooze(job, timedelta(minutes=10)) == set()

    row = await jobs.fetch_row(job.id)
    assert (row["status"], row["attempts"], row["waiting_for"]) == ("waiting", 2, "the project")
    assert row["lease_expires_at"] is None
    assert await jobs.claim() == []
    await jobs.let_wait_end(job.id)
    assert (await jobs.claim_one()).attempts == 2


async def test_a_snooze_because_of_an_error_shows_it(jobs: JobsInTest) -> None:
    job = await jobs.add_claimed()
    snooze = Snooze(
        timedelta(minutes=1), "the rate limit", error_kind=ErrorKind.THROTTLED, error="429"
    )

    await jobs.as_worker("w").snooze([(job, snooze)])

    row = await jobs.fetch_row(job.id)
    assert (row["error_kind"], row["last_error"], row["attempts"]) == ("throttled", "429", 0)
    assert (await jobs.fetch_client(job.id))["provisioning_error"] == "429"


async def test_a_release_gives_the_job_back_unburnt(jobs: JobsInTest) -> None:
    job = await jobs.add_claimed(attempts=2)

    assert await jobs.release(job) == set()

    row = await jobs.fetch_row(job.id)
    assert (row["status"], row["attempts"], row["crashes"]) == ("queued", 2, 0)
    assert (await jobs.claim_one(worker="another")).id == job.id


async def test_a_heartbeat_makes_the_lease_longer(jobs: JobsInTest) -> None:
    job = await jobs.add_claimed()
    before = (await jobs.fetch_row(job.id))["lease_expires_at"]

    assert await jobs.heartbeat(job) == set()

    assert (await jobs.fetch_row(job.id))["lease_expires_at"] > before


async def begin_long_step(jobs: JobsInTest, job: Job) -> datetime:
    """Record a step whose request may take longer than a lease; return when the lease ends now."""
    await jobs.pool.execute(
        "select pgworker.begin_step($1, $2, $3, 'create_project', 'a', '75 s')",
        job.client_id,
        job.id,
        job.claim_token,
    )
    lease_expires_at: datetime = (await jobs.fetch_row(job.id))["lease_expires_at"]
    return lease_expires_at


async def test_a_heartbeat_does_not_shorten_a_lease_that_a_step_has_made_longer(
    jobs: JobsInTest,
) -> None:
    job = await jobs.add_claimed()
    held_until = await begin_long_step(jobs, job)

    assert await jobs.heartbeat(job) == set()

    row = await jobs.fetch_row(job.id)
    assert row["lease_expires_at"] == held_until
    assert held_until - row["claimed_at"] > timedelta(seconds=70) > LEASE


async def test_the_next_phase_begins_with_a_lease_of_the_usual_length(jobs: JobsInTest) -> None:
    """A step holds the lease for its request, and the phase that sent it has ended."""
    job = await jobs.add_claimed()
    held_until = await begin_long_step(jobs, job)

    assert await jobs.advance(job) == set()

    assert (await jobs.fetch_row(job.id))["lease_expires_at"] < held_until - LEASE


@pytest.mark.parametrize("write", WRITES)
async def test_a_lease_that_ran_out_but_was_not_claimed_by_another_worker_is_still_good(
    jobs: JobsInTest, write: str
) -> None:
    job = await jobs.add_claimed()
    await jobs.let_lease_expire(job.id)

    assert not await refused(jobs, write, job)


async def test_many_transitions_of_one_statement_fare_each_on_its_own(jobs: JobsInTest) -> None:
    await jobs.add_many(3)
    first, second, third = await jobs.claim(3)
    await jobs.reset(second.id)

    done = Complete(Done())
    assert await jobs.as_worker("w").complete([(first, done), (second, done), (third, done)]) == {
        second.id
    }

    assert await jobs.fetch_status(first.id) is JobStatus.SUCCEEDED
    assert await jobs.fetch_status(second.id) is JobStatus.QUEUED
    assert await jobs.fetch_status(third.id) is JobStatus.SUCCEEDED


async def test_no_statement_of_a_transition_needs_a_scan_that_is_switched_off(
    jobs: JobsInTest, database: str
) -> None:
    """Before PostgreSQL 18 such a plan seems so expensive that JIT compiles it, at each call."""
    await jobs.pool.execute("select pgworker.pause('another workflow')")
    plans: list[str] = []
    connection = await asyncpg.connect(database)
    try:
        try:
            await connection.execute("load 'auto_explain'")
        except asyncpg.UndefinedFileError:
            pytest.skip("the server has no auto_explain")
        connection.add_log_listener(lambda _, message: plans.append(message.message))
        await connection.execute(
            "set client_min_messages = log; set auto_explain.log_min_duration = 0;"
            "set auto_explain.log_nested_statements = on"
        )
        for statement in (
            "insert into clients (name, auto_provision) values ('Acme', true)",
            CLAIM,
            "select pgworker.heartbeat('worker', '30 s', '{1}', '{1}')",
            (
                "select pgworker.snooze('{1}', '{1}', '{0 s}', '{the project}', '{null}', '{null}',"
                " '{null}', '{credential}')"
            ),
            CLAIM,
            "select pgworker.advance('{1}', '{2}', '{await_project}', '{null}', '{null}', '0 s')",
            CLAIM,
            "select pgworker.complete('{1}', '{3}', '{null}', '{null}')",
            "select pgworker.complete('{1}', '{2}', '{null}', '{null}')",
        ):
            await connection.execute(statement)
    finally:
        await connection.close()
    assert await jobs.fetch_status(1) is JobStatus.SUCCEEDED

    # "Disabled" since PostgreSQL 18, a cost of 1e10 and more before.
    assert [plan for plan in plans if re.search(r"Disabled: true|cost=\d{11}", plan)] == []
    assert sum("Query Text" in plan for plan in plans) > 30


# -- refused paths ----------------------------------------------------------------------------


STALE = [
    (write, how)
    for write in WRITES
    for how in ("rescued", "reset", "cancelled", "completed")
    if (write, how) != ("complete", "completed")  # a repeat, see below
]


@pytest.mark.parametrize(("write", "how"), STALE)
async def test_a_write_with_a_stale_token_changes_nothing(
    jobs: JobsInTest, write: str, how: str
) -> None:
    stale = await jobs.add_claimed(worker="slow")
    match how:
        case "rescued":
            await jobs.let_lease_expire(stale.id)
            await jobs.claim_one(worker="fast")
        case "reset":
            await jobs.reset(stale.id)
        case "cancelled":
            await jobs.commands.cancel(stale.client_id)
        case "completed":
            await jobs.complete(stale)
    job, client = await jobs.fetch_row(stale.id), await jobs.fetch_client(stale.id)
    events = await jobs.fetch_event_names(stale.id)

    assert await refused(jobs, write, stale)

    assert await jobs.fetch_row(stale.id) == job
    assert await jobs.fetch_client(stale.id) == client
    assert await jobs.fetch_event_names(stale.id) == events


@pytest.mark.parametrize("write", ["complete", "snooze", "fail"])
async def test_a_repeat_after_an_answer_that_got_lost_is_not_a_lost_lease(
    jobs: JobsInTest, write: str
) -> None:
    job = await jobs.add_claimed()
    assert not await refused(jobs, write, job)
    row, client = await jobs.fetch_row(job.id), await jobs.fetch_client(job.id)
    events = await jobs.fetch_event_names(job.id)

    assert not await refused(jobs, write, job)

    assert await jobs.fetch_row(job.id) == row
    assert await jobs.fetch_client(job.id) == client
    assert await jobs.fetch_event_names(job.id) == events


@pytest.mark.parametrize("write", ["snooze", "fail"])
async def test_a_repeat_is_refused_once_the_job_has_been_claimed_again(
    jobs: JobsInTest, write: str
) -> None:
    job = await jobs.add_claimed()
    assert not await refused(jobs, write, job)
    await jobs.let_wait_end(job.id)
    await jobs.claim_one(worker="another")

    assert await refused(jobs, write, job)


# -- races of two connections -----------------------------------------------------------------


# These don't wait for a row that is locked: one such row must not hold up the others.
SKIPPING = {"heartbeat", "release"}


@pytest.mark.parametrize("write", sorted(WRITES.keys() - SKIPPING))
async def test_a_write_that_waits_for_a_cancel_is_refused(jobs: JobsInTest, write: str) -> None:
    job = await jobs.add_claimed()
    async with AsyncExitStack() as stack:
        connection = await stack.enter_async_context(jobs.pool.acquire())
        async with connection.transaction():
            await connection.execute("select pgworker.cancel($1)", job.client_id)
            writing = asyncio.create_task(refused(jobs, write, job))
            await wait_until_blocking(connection)

    assert await within(writing)
    assert await jobs.fetch_status(job.id) is JobStatus.CANCELLED


@pytest.mark.parametrize("write", ["advance", "complete"])
async def test_a_repeat_that_overtakes_its_first_try_is_not_a_lost_lease(
    jobs: JobsInTest, write: str
) -> None:
    job = await jobs.add_claimed()
    query = (
        {
            "advance": "select pgworker.advance(array[$1], array[$2], '{await_project}', '{null}',"
            " '{null}', '30 s')",
            "complete": "select pgworker.complete(array[$1], array[$2], '{null}', '{null}')",
        }[write]
        .replace("$1", str(job.id))
        .replace("$2", str(job.claim_token))
    )
    async with jobs.pool.acquire() as connection:
        async with connection.transaction():
            await connection.execute(query)
            repeating = asyncio.create_task(refused(jobs, write, job))
            await wait_until_blocking(connection)

        assert not await within(repeating)
    assert (await jobs.fetch_event_names(job.id)).count(PAST[write]) == 1


@pytest.mark.parametrize("write", ["advance", "complete", "snooze"])
async def test_a_write_of_several_jobs_locks_them_by_their_ids(
    jobs: JobsInTest, write: str
) -> None:
    await jobs.add_many(2)
    first, second = sorted(await jobs.claim(2), key=lambda job: job.id)
    async with jobs.pool.acquire() as connection:
        async with connection.transaction():
            await connection.execute(LOCK_JOB, first.id)
            writing = asyncio.ensure_future(MANY[write](jobs.as_worker("worker"), [second, first]))
            await wait_until_blocking(connection)

            # It would have this one if it took them as they came, and we would wait for each other.
            assert await connection.fetchval(LOCK_JOB, second.id) == second.id

        assert await within(writing) == set()


async def test_a_locked_job_is_not_renewed_and_not_lost_and_holds_up_no_other(
    jobs: JobsInTest,
) -> None:
    await jobs.add_many(2)
    free, locked = await jobs.claim(2)
    for job in (free, locked):
        await jobs.let_lease_expire(job.id)
    async with jobs.pool.acquire() as connection, connection.transaction():
        await connection.execute(LOCK_JOB, locked.id)
        not_renewed = await within(
            jobs.as_worker("worker").heartbeat([free, locked], timeout=timedelta(seconds=60))
        )

    assert not_renewed == {locked.id: False}
    assert (await jobs.fetch_row(free.id))["lease_expires_at"] > datetime.now(UTC)
    assert await jobs.heartbeat(locked) == set()


async def test_a_rescue_does_not_wait_for_a_holder_that_is_writing(jobs: JobsInTest) -> None:
    job = await jobs.add_claimed()
    await jobs.let_lease_expire(job.id)
    async with jobs.pool.acquire() as connection, connection.transaction():
        await connection.execute("select pgworker.check_claim($1, $2)", job.id, job.claim_token)
        assert await within(jobs.claim()) == []


async def test_claimers_never_wait_for_each_other_and_never_share(jobs: JobsInTest) -> None:
    await jobs.add_many(10)
    async with jobs.pool.acquire() as connection, connection.transaction():
        rows = await connection.fetch("select id from pgworker.claim('first', 4, '30 s')")
        others = await within(jobs.claim(10, worker="second"))

    first, second = {row["id"] for row in rows}, {job.id for job in others}
    assert (len(first), len(second)) == (4, 6)
    assert not first & second


async def test_many_claimers_at_once_claim_each_job_once(jobs: JobsInTest) -> None:
    await jobs.add_many(60)

    batches = await asyncio.gather(*(jobs.claim(7, worker=f"w{n}") for n in range(12)))

    ids = [job.id for batch in batches for job in batch]
    assert len(ids) == len(set(ids)) == 60


async def test_two_retries_at_once_queue_the_job_once(jobs: JobsInTest) -> None:
    job_id = await jobs.add_with_status(JobStatus.FAILED)
    client_id = (await jobs.fetch_row(job_id))["client_id"]

    outcomes = await asyncio.gather(
        jobs.commands.retry(client_id), jobs.commands.retry(client_id), return_exceptions=True
    )

    assert job_id in outcomes
    assert (await jobs.fetch_event_names(job_id)).count("retried") == 1


async def wait_until_blocking(connection: Connection) -> None:
    """Return once another connection waits for a lock of this one."""
    await wait_until(
        connection,
        "select exists (select 1 from pg_locks"
        " where not granted and pg_backend_pid() = any(pg_blocking_pids(pid)))",
    )


# -- the order of claims ----------------------------------------------------------------------


async def test_claims_come_by_priority_then_age(jobs: JobsInTest) -> None:
    old = await jobs.add(priority=0)
    new = await jobs.add(priority=0)
    urgent = await jobs.add(priority=5)
    waited = await jobs.add(priority=9)
    await jobs.update(waited, status="waiting")

    assert [(await jobs.claim_one()).id for _ in range(4)] == [waited, urgent, old, new]


async def test_jobs_that_are_claimed_together_come_by_priority_then_age(jobs: JobsInTest) -> None:
    old = await jobs.add(priority=0)
    urgent = await jobs.add(priority=5)
    waited = await jobs.add(priority=9)
    await jobs.update(waited, status="waiting")

    assert [job.id for job in await jobs.claim(3)] == [waited, urgent, old]
    assert {event["from_status"] for event in await claims_of(jobs)} == {"queued", "waiting"}


async def claims_of(jobs: JobsInTest) -> list[Any]:
    return await jobs.pool.fetch("select * from pgworker.events where event = 'claimed'")


async def test_the_audit_trail_names_the_worker_that_completes_a_job(jobs: JobsInTest) -> None:
    by_worker, by_hand = await jobs.add_claimed(), await jobs.add_claimed()

    await jobs.as_worker("the holder").complete([(by_worker, Complete(Done()))])
    await jobs.pool.execute(
        "select pgworker.complete(array[$1::bigint], array[$2::bigint], '{null}', '{null}')",
        by_hand.id,
        by_hand.claim_token,
    )

    assert (await jobs.fetch_events(by_worker.id))[-1]["actor"] == "the holder"
    assert (await jobs.fetch_events(by_hand.id))[-1]["actor"].startswith("sql:")


async def test_a_claim_takes_only_workflows_that_the_worker_knows(jobs: JobsInTest) -> None:
    job_id = await jobs.add()

    assert await jobs.as_worker("w").claim(1, ["other"]) == []
    assert [job.id for job in await jobs.as_worker("w").claim(1, ["other", "provision"])] == [
        job_id
    ]


# -- crashes ----------------------------------------------------------------------------------


async def test_an_expired_lease_is_taken_over_and_the_crash_is_counted(jobs: JobsInTest) -> None:
    silent = await jobs.add_claimed(worker="silent")
    assert await jobs.claim() == []
    await jobs.let_lease_expire(silent.id)

    rescuer = await jobs.claim_one(worker="rescuer")

    row = await jobs.fetch_row(silent.id)
    assert rescuer.claim_token == silent.claim_token + 1
    assert (row["crashes"], row["attempts"], row["claimed_by"]) == (1, 0, "rescuer")
    event = (await jobs.fetch_events(silent.id))[-1]
    assert (event["event"], event["detail"]) == ("rescued", {"silent_worker": "silent"})


async def test_the_fifth_crash_in_one_phase_fails_the_job(jobs: JobsInTest) -> None:
    job = await jobs.add_claimed()
    for _ in range(4):
        await jobs.let_lease_expire(job.id)
        job = await jobs.claim_one()
    await jobs.let_lease_expire(job.id)

    assert await jobs.claim() == []

    row = await jobs.fetch_row(job.id)
    assert (row["status"], row["crashes"], row["error_kind"]) == ("failed", 5, "permanent")
    assert "fell silent 5 times in phase create_project" in row["last_error"]
    client = await jobs.fetch_client(job.id)
    assert client["provisioning_status"] == "failed"
    assert client["provisioning_error"] == row["last_error"]
    assert (await jobs.fetch_event_names(job.id))[-1] == "failed"
    assert await refused(jobs, "complete", job)


async def test_crashes_are_counted_for_each_phase(jobs: JobsInTest) -> None:
    job = await jobs.add_claimed()
    await jobs.update(job.id, crashes=4)
    await jobs.advance(job)
    await jobs.let_lease_expire(job.id)

    await jobs.claim_one()

    assert (await jobs.fetch_row(job.id))["crashes"] == 1


async def test_a_poisonous_job_of_another_workflow_leaves_a_ready_client_ready(
    jobs: JobsInTest,
) -> None:
    job_id = await jobs.add_with_status(JobStatus.SUCCEEDED)
    client_id = (await jobs.fetch_row(job_id))["client_id"]
    other = await held_in_other_workflow(jobs, client_id)
    await jobs.update(other.id, crashes=4)
    await jobs.let_lease_expire(other.id)

    await jobs.as_worker("w").claim(1, ["other"])

    assert await jobs.fetch_status(other.id) is JobStatus.FAILED
    assert (await jobs.fetch_client(job_id))["provisioning_status"] == "ready"


async def test_the_end_of_another_workflow_stores_its_result_and_takes_its_error_back(
    jobs: JobsInTest,
) -> None:
    job_id = await jobs.add_with_status(JobStatus.SUCCEEDED)
    before = await jobs.fetch_client(job_id)
    other = await held_in_other_workflow(jobs, before["id"])
    await jobs.fail(other)
    assert (await jobs.fetch_client(job_id))["provisioning_error"] == "it did not work"
    await jobs.let_wait_end(other.id)
    (other,) = await jobs.as_worker("w").claim(1, ["other"])

    await jobs.as_worker("w").complete([(other, Complete(Done(ClientPatch(schema_version="2"))))])

    after = await jobs.fetch_client(job_id)
    assert (after["provisioning_status"], after["provisioning_error"]) == ("ready", None)
    assert after["schema_version"] == "2"
    assert after["provisioning_completed_at"] == before["provisioning_completed_at"]


async def held_in_other_workflow(jobs: JobsInTest, client_id: UUID) -> Job:
    await jobs.pool.execute("insert into pgworker.phases values ('other', 'only', null, 1)")
    await jobs.pool.execute("select pgworker.enqueue($1, 'other')", client_id)
    (job,) = await jobs.as_worker("w").claim(1, ["other"])
    return job


# -- attempts and back-off --------------------------------------------------------------------


async def test_only_failures_count_as_attempts(jobs: JobsInTest) -> None:
    job = await jobs.add_claimed()
    await jobs.snooze(job)
    await jobs.let_wait_end(job.id)
    job = await jobs.claim_one()
    await jobs.release(job)
    job = await jobs.claim_one()
    await jobs.let_lease_expire(job.id)
    job = await jobs.claim_one()
    assert job.attempts == 0

    assert await jobs.fail(job) == "waiting"

    assert (await jobs.fetch_row(job.id))["attempts"] == 1


async def test_the_last_attempt_fails_the_job(jobs: JobsInTest) -> None:
    job = await jobs.add_claimed(attempts=9)

    assert await jobs.fail(job) == "failed"

    row = await jobs.fetch_row(job.id)
    assert (row["attempts"], row["error_kind"]) == (10, "transient")
    assert row["last_error"] == "gave up after 10 attempts: it did not work"
    assert (await jobs.fetch_client(job.id))["provisioning_status"] == "failed"


async def test_a_failure_that_no_retry_can_mend_fails_the_job_at_once(jobs: JobsInTest) -> None:
    job = await jobs.add_claimed()

    assert await jobs.fail(job, kind=ErrorKind.QUOTA, retry=False) == "failed"

    row = await jobs.fetch_row(job.id)
    assert (row["error_kind"], row["last_error"]) == ("quota", "it did not work")
    assert (await jobs.fetch_client(job.id))["provisioning_error"] == "it did not work"


@pytest.mark.parametrize("attempts", [0, 1, 3, 7, 8, 40, 2_000_000_000])
async def test_the_backoff_is_a_random_part_of_a_wait_that_doubles_up_to_the_cap(
    jobs: JobsInTest, attempts: int
) -> None:
    longest = min(BACKOFF_CAP, BACKOFF * 2 ** min(attempts, 30))
    await jobs.add_many(40)
    waits = []
    for job in await jobs.claim(40):
        await jobs.update(job.id, attempts=attempts, max_attempts=2_147_483_647)
        assert await jobs.fail(job) == "waiting"
        row = await jobs.fetch_row(job.id)
        waits.append(row["run_at"] - row["updated_at"])

    assert all(timedelta(0) <= wait <= longest for wait in waits)
    # Full jitter: the chance that 40 of them all lie in one half is below one in 10^11.
    assert min(waits) < longest / 2 < max(waits)


async def test_any_text_of_the_other_side_can_be_stored_as_an_error(jobs: JobsInTest) -> None:
    job = await jobs.add_claimed()
    failure = Failure(ErrorKind.TRANSIENT, "a\0b \ud800 c", retry=True)

    await jobs.as_worker("w").fail(job, failure, backoff=BACKOFF, backoff_cap=BACKOFF_CAP)

    assert (await jobs.fetch_row(job.id))["last_error"] == "a\ufffdb ? c"


# -- what statements cost beside many rows ----------------------------------------------------


@pytest.fixture
async def crowded(jobs: JobsInTest) -> JobsInTest:
    """Beside 20,000 waiting and 20,000 finished jobs."""
    async with jobs.pool.acquire() as connection, connection.transaction():
        # Triggers are not what is measured here.
        await connection.execute("set local session_replication_role = replica")
        await connection.execute(
            "insert into clients (name)"
            " select 'client ' || number from generate_series(1, 40000) as number"
        )
        await connection.execute(
            "insert into client_provisioning_jobs (client_id, status, run_at, finished_at)"
            " select id, case when odd then 'waiting' else 'succeeded' end,"
            " now() + interval '1 hour', case when not odd then now() end"
            " from (select id, row_number() over () % 2 = 1 as odd from clients) as client"
        )
    await jobs.pool.execute("vacuum analyze client_provisioning_jobs")
    return jobs


@pytest.mark.parametrize(
    ("statement", "most_rows"),
    [
        (CLAIM, 100),
        (JOB_QUERIES.seconds_until_due, 10),
        (
            "select pgworker.heartbeat('w', '30 s', array_agg(id), array_agg(1::bigint)) from held",
            100,
        ),
        ("select * from pgworker.failed_jobs", 10),
    ],
)
async def test_a_statement_reads_no_more_rows_than_those_of_its_jobs(
    crowded: JobsInTest, statement: str, most_rows: int
) -> None:
    await crowded.add_many(20)
    held = await crowded.claim(10)
    ids = ", ".join(f"({job.id}::bigint)" for job in held)

    read = await rows_read(crowded, f"with held (id) as (values {ids}) {statement}")

    assert read["seq_scan"] == 0
    assert read["rows"] <= most_rows


async def test_a_claim_among_many_that_have_waited_looks_at_the_earliest_hundred(
    crowded: JobsInTest,
) -> None:
    await crowded.pool.execute(
        "update client_provisioning_jobs set run_at = now() where status = 'waiting'"
    )

    read = await rows_read(crowded, "select id from pgworker.claim('worker', 20, '30 s')")

    assert read["seq_scan"] == 0
    # Each of them twice: in the order of their times, and then in the order of the line.
    assert read["rows"] <= 300


@pytest.mark.parametrize(
    "statement", [JOB_QUERIES.outstanding, "select * from pgworker.queue_health"]
)
async def test_counts_read_no_finished_jobs(crowded: JobsInTest, statement: str) -> None:
    read = await rows_read(crowded, statement)

    assert read["seq_scan"] == 0
    assert read["rows"] <= 20_100


async def test_when_a_crowd_is_claimed_the_indexes_of_clients_stay_as_they_are(
    jobs: JobsInTest,
) -> None:
    await jobs.add_many(200)
    within_their_pages = (
        "select coalesce(n_tup_hot_upd, 0) from pg_stat_xact_user_tables"
        " where schemaname = 'public' and relname = 'clients'"
    )

    async with jobs.pool.acquire() as connection, connection.transaction():
        before: int = await connection.fetchval(within_their_pages)
        await connection.execute("select pgworker.claim('worker', 200, '30 s')")
        updates: int = await connection.fetchval(within_their_pages) - before

    assert updates == 200


async def rows_read(jobs: JobsInTest, statement: str) -> dict[str, Any]:
    """Return how the statement, functions included, reads the table of jobs.

    PostgreSQL's own counters of the transaction see through functions, as EXPLAIN doesn't.
    """
    counters = (
        "select seq_scan, coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0) as rows"
        " from pg_stat_xact_user_tables where relname = 'client_provisioning_jobs'"
    )
    async with jobs.pool.acquire() as connection, connection.transaction():
        before = await connection.fetchrow(counters)
        await connection.fetch(statement)
        after = await connection.fetchrow(counters)
    assert before is not None
    assert after is not None
    return {name: after[name] - before[name] for name in after.keys()}  # noqa: SIM118  # a Record
