"""Plain SQL is a first-class interface (sql/README.md)."""

from __future__ import annotations

import asyncio
import re
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import asyncpg
import pytest

from pgworker.db.listen import CHANNEL
from pgworker.errors import BadConfiguration, LeaseLost, NotRetryable, PgworkerError, UnknownClient
from pgworker.models import ErrorKind, JobStatus
from tests.support.jobs import PHASES
from tests.support.workers import within

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from uuid import UUID

    from tests.support.jobs import JobsInTest

RESET = "update client_provisioning_jobs set attempts = 0, claimed_at = null where client_id = $1"
BULK = "insert into client_provisioning_jobs (client_id) select id from clients"


@asynccontextmanager
async def heard(dsn: str) -> AsyncIterator[list[str]]:
    """Collect the payloads that are sent meanwhile; complete once the block has ended."""
    connection = await asyncpg.connect(dsn)
    payloads: list[str] = []
    done = asyncio.Event()

    def on_notify(_: object, _pid: int, _channel: str, payload: object) -> None:
        if payload == "the end":
            done.set()
        else:
            payloads.append(str(payload))

    await connection.add_listener(CHANNEL, on_notify)
    try:
        yield payloads
        # Notifications arrive in the order of the commits: behind this one comes none.
        await connection.execute(f"notify {CHANNEL}, 'the end'")
        await within(done.wait())
    finally:
        await connection.close()


# -- inserting --------------------------------------------------------------------------------


async def test_a_client_inserted_with_auto_provision_has_its_job_in_the_same_transaction(
    jobs: JobsInTest,
) -> None:
    async with jobs.pool.acquire() as connection, connection.transaction():
        client_id = await connection.fetchval(
            "insert into clients (name, auto_provision) values ('Acme', true) returning id"
        )
        row = await connection.fetchrow(
            "select * from client_provisioning_jobs where client_id = $1", client_id
        )
        assert row is not None
        assert (row["status"], row["job_type"], row["attempts"]) == ("queued", PHASES[0], 0)
        assert await connection.fetchval("select provisioning_status from clients") == "queued"


async def test_a_client_inserted_with_auto_provision_is_written_once(jobs: JobsInTest) -> None:
    async with jobs.pool.acquire() as connection, connection.transaction():
        status = await connection.fetchval(
            "insert into clients (name, auto_provision) values ('Acme', true)"
            " returning provisioning_status"
        )
        updates = await connection.fetchval(
            "select n_tup_upd from pg_stat_xact_user_tables where relname = 'clients'"
        )

    assert status == "queued"
    assert updates == 0


async def test_a_rolled_back_client_leaves_no_job_and_no_event(jobs: JobsInTest) -> None:
    async with jobs.pool.acquire() as connection:
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute("insert into clients (name, auto_provision) values ('A', true)")
        await transaction.rollback()

    assert await jobs.pool.fetchval("select count(*) from client_provisioning_jobs") == 0
    assert await jobs.pool.fetchval("select count(*) from pgworker.events") == 0


async def test_a_client_inserted_without_auto_provision_has_no_job(jobs: JobsInTest) -> None:
    await jobs.add_client()

    assert await jobs.pool.fetchval("select count(*) from client_provisioning_jobs") == 0
    assert await jobs.pool.fetchval("select provisioning_status from clients") == "not_provisioned"


@pytest.mark.parametrize(
    "statement",
    [
        "insert into clients (name, auto_provision) select 'A', true from generate_series(1, 50)",
        BULK,
    ],
)
async def test_a_bulk_insert_enqueues_all_and_notifies_once(
    jobs: JobsInTest, database: str, statement: str
) -> None:
    if statement == BULK:
        for _ in range(50):
            await jobs.add_client()

    async with heard(database) as payloads:
        await jobs.pool.execute(statement)

    assert payloads == ["enqueued"]
    assert len(await jobs.claim(100)) == 50


async def test_each_statement_notifies(jobs: JobsInTest, database: str) -> None:
    async with heard(database) as payloads:
        await jobs.add()
        await jobs.add()

    assert payloads == ["enqueued", "enqueued"]


async def test_an_insert_of_no_row_sends_no_notification(jobs: JobsInTest, database: str) -> None:
    async with heard(database) as payloads:
        await jobs.pool.execute(BULK)

    assert payloads == []


async def test_a_job_inserted_for_later_waits_until_then(jobs: JobsInTest) -> None:
    client_id = await jobs.add_client()
    job_id = await jobs.pool.fetchval(
        "insert into client_provisioning_jobs (client_id, run_at)"
        " values ($1, now() + interval '1 hour') returning id",
        client_id,
    )

    assert await jobs.fetch_status(job_id) is JobStatus.WAITING
    assert await jobs.claim() == []
    await jobs.let_wait_end(job_id)
    assert (await jobs.claim_one()).id == job_id


async def test_a_client_has_one_live_job_at_most(jobs: JobsInTest) -> None:
    for status in (JobStatus.QUEUED, JobStatus.WAITING, JobStatus.RUNNING):
        job_id = await jobs.add_with_status(status)
        client_id = (await jobs.fetch_row(job_id))["client_id"]
        with pytest.raises(PgworkerError, match="client_provisioning_jobs_one_live"):
            await jobs.pool.execute(
                "insert into client_provisioning_jobs (client_id) values ($1)", client_id
            )
        await jobs.commands.cancel(client_id)


async def test_a_new_job_supersedes_the_failed_one(jobs: JobsInTest) -> None:
    failed = await jobs.add_with_status(JobStatus.FAILED)
    client_id = (await jobs.fetch_row(failed))["client_id"]

    new = await jobs.pool.fetchval(
        "insert into client_provisioning_jobs (client_id) values ($1) returning id", client_id
    )

    assert await jobs.fetch_status(failed) is JobStatus.CANCELLED
    last = (await jobs.fetch_events(failed))[-1]
    assert (last["event"], last["from_status"], last["to_status"]) == (
        "cancelled",
        "failed",
        "cancelled",
    )
    assert (await jobs.fetch_client(new))["provisioning_error"] is None
    # A reset that comes late can't bring it back beside the new one.
    await jobs.reset(failed)
    assert await jobs.fetch_status(failed) is JobStatus.CANCELLED


async def test_a_client_with_jobs_cannot_be_deleted(jobs: JobsInTest) -> None:
    await jobs.add()

    with pytest.raises(PgworkerError, match="client_provisioning_jobs_client_id_fkey"):
        await jobs.pool.execute("delete from clients")


# -- the reset that people type ---------------------------------------------------------------


async def test_a_reset_queues_a_failed_job_again_at_its_phase(
    jobs: JobsInTest, database: str
) -> None:
    job = await jobs.add_claimed()
    await jobs.advance(job, "schema_sync")
    await jobs.fail(job, retry=False)

    async with heard(database) as payloads:
        await jobs.pool.execute(RESET, job.client_id)

    row = await jobs.fetch_row(job.id)
    assert (row["status"], row["job_type"], row["attempts"]) == ("queued", "schema_sync", 0)
    assert row["finished_at"] is None
    assert (await jobs.fetch_client(job.id))["provisioning_status"] == "queued"
    assert payloads == ["retried"]
    assert (await jobs.fetch_event_names(job.id))[-1] == "retried"
    assert (await jobs.claim_one()).job_type == "schema_sync"


async def test_the_holder_of_a_job_that_was_reset_loses_the_fence(jobs: JobsInTest) -> None:
    job = await jobs.add_claimed()

    await jobs.pool.execute(RESET, job.client_id)

    assert await jobs.fetch_status(job.id) is JobStatus.QUEUED
    assert await jobs.heartbeat(job) == {job.id}
    assert await jobs.complete(job) == {job.id}
    with pytest.raises(LeaseLost):
        await jobs.fail(job)
    assert (await jobs.claim_one()).claim_token > job.claim_token


async def test_a_reset_makes_a_waiting_job_due_now(jobs: JobsInTest) -> None:
    job_id = await jobs.add_with_status(JobStatus.WAITING)

    await jobs.reset(job_id)

    assert (await jobs.claim_one()).id == job_id


@pytest.mark.parametrize("status", [JobStatus.SUCCEEDED, JobStatus.CANCELLED])
async def test_a_reset_does_not_queue_a_job_that_is_over(
    jobs: JobsInTest, status: JobStatus
) -> None:
    job_id = await jobs.add_with_status(status)

    await jobs.reset(job_id)

    assert await jobs.fetch_status(job_id) is status


# -- functions for people ---------------------------------------------------------------------


async def test_enqueue_returns_the_live_job_if_there_is_one(jobs: JobsInTest) -> None:
    client_id = await jobs.add_client()

    first = await jobs.pool.fetchval("select pgworker.enqueue($1)", client_id)
    second = await jobs.pool.fetchval("select pgworker.enqueue($1)", client_id)

    assert first == second
    assert await jobs.pool.fetchval("select count(*) from client_provisioning_jobs") == 1


async def test_two_enqueues_at_once_make_one_job(jobs: JobsInTest) -> None:
    client_id = await jobs.add_client()

    ids = await asyncio.gather(
        *(jobs.pool.fetchval("select pgworker.enqueue($1)", client_id) for _ in range(6))
    )

    assert len(set(ids)) == 1


async def test_enqueue_takes_every_argument_by_name(jobs: JobsInTest) -> None:
    client_id = await jobs.add_client()
    traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

    job_id = await jobs.pool.fetchval(
        "select pgworker.enqueue(p_client_id => $1, p_workflow => 'provision',"
        " p_priority => 7::smallint, p_run_at => now() + interval '1 hour',"
        " p_max_attempts => 3, p_trace_context => $2)",
        client_id,
        traceparent,
    )

    row = await jobs.fetch_row(job_id)
    assert (row["priority"], row["max_attempts"], row["trace_context"], row["status"]) == (
        7,
        3,
        traceparent,
        "waiting",
    )


async def test_retry_resumes_a_failed_job_at_its_phase(jobs: JobsInTest) -> None:
    job = await jobs.add_claimed()
    await jobs.advance(job, "schema_sync")
    await jobs.fail(job, retry=False)

    assert await jobs.commands.retry(job.client_id) == job.id

    row = await jobs.fetch_row(job.id)
    assert (row["status"], row["job_type"], row["attempts"]) == ("queued", "schema_sync", 0)


async def test_retry_of_a_cancelled_client_makes_a_new_job(jobs: JobsInTest) -> None:
    job_id = await jobs.add_with_status(JobStatus.CANCELLED)
    client_id = (await jobs.fetch_row(job_id))["client_id"]

    assert await jobs.commands.retry(client_id) > job_id


@pytest.mark.parametrize(
    "status", [JobStatus.QUEUED, JobStatus.RUNNING, JobStatus.WAITING, JobStatus.SUCCEEDED]
)
async def test_retry_refuses_a_client_without_a_failed_job(
    jobs: JobsInTest, status: JobStatus
) -> None:
    job_id = await jobs.add_with_status(status)

    with pytest.raises(NotRetryable, match=status):
        await jobs.commands.retry((await jobs.fetch_row(job_id))["client_id"])


@pytest.mark.parametrize(
    "status", [JobStatus.QUEUED, JobStatus.RUNNING, JobStatus.WAITING, JobStatus.FAILED]
)
async def test_cancel_ends_a_live_job(jobs: JobsInTest, status: JobStatus) -> None:
    job_id = await jobs.add_with_status(status)
    before = await jobs.fetch_row(job_id)

    assert await jobs.commands.cancel(before["client_id"]) == 1

    after = await jobs.fetch_row(job_id)
    assert after["status"] == "cancelled"
    assert after["claim_token"] > before["claim_token"]
    assert (await jobs.fetch_client(job_id))["provisioning_status"] == "cancelled"


async def test_cancel_does_not_change_a_job_that_is_over(jobs: JobsInTest) -> None:
    job_id = await jobs.add_with_status(JobStatus.SUCCEEDED)

    assert await jobs.commands.cancel((await jobs.fetch_row(job_id))["client_id"]) == 0
    assert (await jobs.fetch_client(job_id))["provisioning_status"] == "ready"


@pytest.mark.parametrize("scope", ["all", "provision"])
async def test_nothing_is_claimed_while_paused(jobs: JobsInTest, database: str, scope: str) -> None:
    await jobs.add()

    assert await jobs.commands.pause(scope)
    assert not await jobs.commands.pause(scope)
    assert await jobs.claim() == []
    async with heard(database) as payloads:
        assert await jobs.commands.resume(scope)
    assert not await jobs.commands.resume(scope)

    assert payloads == ["resumed"]
    assert len(await jobs.claim()) == 1


async def test_a_pause_of_another_workflow_stops_no_job_here(jobs: JobsInTest) -> None:
    await jobs.add()
    await jobs.pool.execute("select pgworker.pause('seed')")

    assert len(await jobs.claim()) == 1


# -- SQLSTATEs (sql/README.md) ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("statement", "sqlstate"),
    [
        ("select pgworker.check_claim(1, 1)", "PW001"),
        ("select pgworker.fail(1, 1, 'transient', '', true, '1 s', '1 s')", "PW001"),
        ("select pgworker.retry(id) from clients", "PW002"),
        ("select pgworker.retry(gen_random_uuid())", "PW003"),
        ("select pgworker.cancel(gen_random_uuid())", "PW003"),
        ("select pgworker.enqueue(gen_random_uuid())", "PW003"),
        ("select pgworker.enqueue(id, 'dance') from clients", "PW004"),
        ("update pgworker.event_log set actor = 'another'", "PW005"),
        ("delete from pgworker.event_log", "PW005"),
        ("truncate pgworker.event_log", "PW005"),
    ],
)
async def test_every_refusal_has_its_own_sqlstate(
    jobs: JobsInTest, statement: str, sqlstate: str
) -> None:
    await jobs.add_client()

    async with jobs.pool.acquire() as connection:
        with pytest.raises(asyncpg.PostgresError) as refusal:
            await connection.execute(statement)

    assert refusal.value.sqlstate == sqlstate
    assert "\n" not in str(refusal.value)


async def test_an_unknown_client_is_named(jobs: JobsInTest) -> None:
    unknown = uuid4()

    with pytest.raises(UnknownClient, match=str(unknown)):
        await jobs.commands.retry(unknown)


# -- security ---------------------------------------------------------------------------------


async def test_every_table_of_ours_has_row_level_security_without_policies(
    jobs: JobsInTest,
) -> None:
    open_tables = await jobs.pool.fetch(
        "select relname from pg_class where relkind in ('r', 'p') and not relrowsecurity"
        " and relnamespace in ('pgworker'::regnamespace, 'public'::regnamespace)"
    )

    assert open_tables == []
    assert await jobs.pool.fetchval("select count(*) from pg_policies") == 0


async def test_every_function_pins_its_search_path(jobs: JobsInTest) -> None:
    unpinned = await jobs.pool.fetch(
        "select proname from pg_proc where pronamespace = 'pgworker'::regnamespace"
        " and array_position(proconfig, 'search_path=pg_catalog, pg_temp') is null"
    )

    assert unpinned == []


async def test_only_trigger_functions_run_with_the_rights_of_their_owner(
    jobs: JobsInTest,
) -> None:
    definers = await jobs.pool.fetch(
        "select proname, prorettype::regtype::text as returns from pg_proc"
        " where pronamespace = 'pgworker'::regnamespace and prosecdef order by proname"
    )

    assert {row["proname"]: row["returns"] for row in definers} == {
        "clients_inserted": "trigger",
        "event_log_watched": "trigger",
        "job_reset": "trigger",
        "jobs_inserted": "trigger",
    }


@pytest.fixture
async def service_role(jobs: JobsInTest) -> AsyncIterator[str]:
    """A role as Supabase's service_role: rights on the two tables, none on our schema."""
    role = f"service_role_{uuid4().hex[:8]}"
    await jobs.pool.execute(f"create role {role} nologin bypassrls")
    await jobs.pool.execute(
        f"grant select, insert, update on public.clients, public.client_provisioning_jobs to {role}"
    )
    yield role
    await jobs.pool.execute(f"drop owned by {role}")
    await jobs.pool.execute(f"drop role {role}")


async def test_a_role_with_rights_on_the_two_tables_only_can_do_all_of_it(
    jobs: JobsInTest, service_role: str, database: str
) -> None:
    async def as_service_role(statement: str, *arguments: object) -> Any:
        async with jobs.pool.acquire() as connection, connection.transaction():
            await connection.execute(f"set local role {service_role}")
            return await connection.fetchval(statement, *arguments)

    async with heard(database) as payloads:
        first: UUID = await as_service_role(
            "insert into clients (name, auto_provision) values ('Acme', true) returning id"
        )
        second: UUID = await as_service_role(
            "insert into clients (name) values ('Bolt') returning id"
        )
        await as_service_role(f"{BULK} where id = $1", second)
        for job in await jobs.claim(10):
            await jobs.fail(job, retry=False)
        await as_service_role(RESET, first)

    assert payloads == ["enqueued", "enqueued", "retried"]
    assert [job.client_id for job in await jobs.claim(10)] == [first]
    with pytest.raises(BadConfiguration, match="permission denied for schema pgworker"):
        await as_service_role("select count(*) from pgworker.tenant_secrets")


async def test_a_role_of_the_data_api_sees_nothing(jobs: JobsInTest) -> None:
    await jobs.add()
    role = f"anon_{uuid4().hex[:8]}"
    async with jobs.pool.acquire() as connection:
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute(f"create role {role} nologin")
        # As the default privileges of a Supabase project grant.
        await connection.execute(f"grant all on all tables in schema public to {role}")
        await connection.execute(f"set local role {role}")
        assert await connection.fetchval("select count(*) from clients") == 0
        assert await connection.fetchval("select count(*) from client_provisioning_jobs") == 0
        await transaction.rollback()


# -- views ------------------------------------------------------------------------------------


async def test_client_status_shows_everything_about_a_client(jobs: JobsInTest) -> None:
    job = await jobs.add_claimed(worker="host:1")
    await jobs.fail(job)

    (row,) = await jobs.status.list_clients()

    assert row.status == "creating_project"
    assert row.phase == "create_project"
    assert row.job_status == "waiting"
    assert row.attempts == 1
    assert row.last_error == "it did not work"
    assert row.next_try_at is not None
    assert row.claimed_by is None


async def test_client_status_says_why_a_client_does_not_move(jobs: JobsInTest) -> None:
    async def blocked(client_id: UUID) -> tuple[str | None, str | None]:
        row = await jobs.pool.fetchrow(
            "select blocked_code, blocked_because from pgworker.client_status where client_id = $1",
            client_id,
        )
        assert row is not None
        return row["blocked_code"], row["blocked_because"]

    idle = await jobs.add_client()
    assert await blocked(idle) == ("not_requested", "no job: provisioning was never requested")
    job_id = await jobs.add()
    client_id = (await jobs.fetch_row(job_id))["client_id"]
    assert await blocked(client_id) == ("no_worker", "no worker is alive: start pgworker run")
    await jobs.pool.execute("select pgworker.register_worker('w', 'host', 1, '0', 20, '30 s')")
    assert await blocked(client_id) == ("no_free_worker", "waiting for a free worker")
    await jobs.commands.pause("all")
    code, sentence = await blocked(client_id)
    assert code == "paused"
    assert re.fullmatch(r"paused by sql:\w+: pgworker resume", sentence or "")
    await jobs.commands.resume("all")
    job = await jobs.claim_one(worker="w")
    assert await blocked(client_id) == (None, None)
    await jobs.let_lease_expire(job_id)
    assert await blocked(client_id) == (
        "lease_expired",
        "worker w stopped sending heartbeats; the next claim takes the job over",
    )
    await jobs.snooze(job)
    assert await blocked(client_id) == ("waiting", "the project")
    await jobs.reset(job_id)
    await jobs.fail(await jobs.claim_one(), retry=False)
    assert await blocked(client_id) == (
        "failed",
        "it failed and needs a person: fix the cause, then retry",
    )
    await jobs.commands.cancel(client_id)
    assert await blocked(client_id) == (None, None)


async def test_client_status_names_the_refused_credential_that_a_client_waits_for(
    jobs: JobsInTest,
) -> None:
    job = await jobs.add_claimed()
    await jobs.pool.execute("select pgworker.open_breaker('supabase:0123abcd', 'no', '30 s')")
    await jobs.pool.execute(
        "select pgworker.snooze(array[$1::bigint], array[$2::bigint], '{30 s}', '{a credential}',"
        " '{null}', '{auth}', '{no}', '{supabase:0123abcd}')",
        job.id,
        job.claim_token,
    )

    row = await jobs.pool.fetchrow(
        "select blocked_code, blocked_because from pgworker.client_status"
    )

    assert row is not None
    assert row["blocked_code"] == "breaker_open"
    assert "supabase:0123abcd" in row["blocked_because"]


async def test_client_status_names_a_pause_before_a_missing_worker(jobs: JobsInTest) -> None:
    await jobs.add()
    await jobs.commands.pause("provision")

    assert await jobs.pool.fetchval("select blocked_code from pgworker.client_status") == "paused"


async def test_failed_jobs_are_listed_newest_first_with_advice(jobs: JobsInTest) -> None:
    first = await jobs.add_with_status(JobStatus.FAILED)
    second = await jobs.add_with_status(JobStatus.FAILED)

    rows = await jobs.pool.fetch("select * from pgworker.failed_jobs")

    assert [row["id"] for row in rows] == [second, first]
    assert rows[0]["error_kind"] == "permanent"
    assert f"pgworker retry {rows[0]['client_id']}" in rows[0]["what_helps"]


async def test_each_kind_of_error_has_advice_of_its_own_and_ends_in_a_command(
    jobs: JobsInTest,
) -> None:
    kinds = [*ErrorKind, None]
    advice = [await jobs.pool.fetchval("select pgworker.remedy($1)", kind) for kind in kinds]
    assert len(set(advice)) == len(kinds)
    assert all(text.endswith(" retry") for text in advice)
    job_id = await jobs.add_with_status(JobStatus.FAILED)
    client_id = (await jobs.fetch_row(job_id))["client_id"]

    for kind, text in zip(kinds, advice, strict=True):
        await jobs.update(job_id, error_kind=kind)
        # One cause stops all jobs of these kinds: they are retried together.
        several = kind in {ErrorKind.QUOTA, ErrorKind.AUTH}
        command = f"pgworker retry {f'--failed --kind {kind}' if several else client_id}"
        assert await jobs.pool.fetchval("select what_helps from pgworker.failed_jobs") == (
            f"{text}: {command}"
        )


async def test_queue_health_counts_in_one_row(jobs: JobsInTest) -> None:
    (empty,) = await jobs.pool.fetch("select * from pgworker.queue_health")
    assert (empty["queued"], empty["due_now"], empty["oldest_due_age"]) == (0, 0, None)
    assert empty["oldest_due_seconds"] == 0
    for status in ("succeeded", "failed", "waiting", "running", "queued"):
        await jobs.add_with_status(status)
    queued = await jobs.add()
    await jobs.update(queued, run_at=await jobs.pool.fetchval("select now() - interval '90 s'"))
    await jobs.commands.pause("provision")
    await jobs.pool.execute("select pgworker.register_worker('w', 'host', 1, '0', 20, '30 s')")

    health = await jobs.status.get_health()

    assert health == health._replace(
        queued=2,
        running=1,
        waiting=1,
        failed=1,
        due_now=2,
        lease_expired=0,
        workers_alive=1,
        paused=True,
        breakers_open=0,
        limits_used_up=0,
    )
    assert 90 <= health.oldest_due_seconds < 150


async def test_queue_health_shows_how_old_the_oldest_of_each_is(jobs: JobsInTest) -> None:
    (empty,) = await jobs.pool.fetch("select * from pgworker.queue_health")
    ages = [name for name in empty.keys() if name.startswith("oldest_")]  # noqa: SIM118  # a Record
    assert all(not empty[name] for name in ages)
    failed, running = await jobs.add_with_status("failed"), await jobs.add_with_status("running")
    client_id = (await jobs.fetch_client(failed))["id"]
    hour = timedelta(hours=1)
    now = await jobs.pool.fetchval("select now()")
    await jobs.update(failed, finished_at=now - hour)
    await jobs.update(running, lease_expires_at=now - 2 * hour, created_at=now - 3 * hour)
    await jobs.pool.execute("select pgworker.open_breaker('c', 'refused', interval '30 s')")
    await jobs.pool.execute("update pgworker.breakers set opened_at = $1", now - 4 * hour)
    await jobs.pool.execute(
        "insert into pgworker.intents (client_id, provider, name) values ($1, 'supabase', 'n')",
        client_id,
    )
    await jobs.pool.execute(
        "insert into pgworker.steps (client_id, step, target, intended_at)"
        " values ($1, 'create_project', 'n', $2)",
        client_id,
        now - 5 * hour,
    )
    await jobs.pool.execute("select pgworker.register_worker('w', 'host', 1, '0', 20, '30 s')")
    await jobs.pool.execute("update pgworker.workers set last_seen_at = $1", now - hour)

    health = await jobs.status.get_health()

    hours = {name: getattr(health, name) // 3600 for name in ages if name != "oldest_due_age"}
    assert hours == {
        "oldest_due_seconds": 0,
        "oldest_failed_seconds": 1,
        "oldest_lease_expired_seconds": 2,
        "oldest_unfinished_seconds": 3,
        "oldest_breaker_seconds": 4,
        "oldest_unanswered_seconds": 5,
    }
    assert (health.creates_unanswered, health.workers_silent) == (1, 1)


async def test_phase_latency_is_of_the_last_day(jobs: JobsInTest) -> None:
    await jobs.add_with_status(JobStatus.SUCCEEDED)

    (row,) = await jobs.pool.fetch("select * from pgworker.phase_latency")

    assert (row["workflow"], row["phase"], row["count"]) == ("provision", PHASES[0], 1)
    assert 0 <= row["p50_seconds"] <= row["p95_seconds"] <= row["max_seconds"] < 60


async def test_worker_status_shows_which_workers_are_alive(jobs: JobsInTest) -> None:
    for worker in ("alive", "silent"):
        await jobs.pool.execute(
            "select pgworker.register_worker($1, 'host', 1, '0', 20, '30 s')", worker
        )
    await jobs.pool.execute(
        "update pgworker.workers set last_seen_at = now() - interval '1 minute' where id = 'silent'"
    )
    await jobs.add_claimed(worker="alive")

    rows = {row.id: row for row in await jobs.status.list_workers()}

    assert (rows["alive"].alive, rows["alive"].jobs) == (True, 1)
    assert not rows["silent"].alive


async def test_job_status_shows_every_job(jobs: JobsInTest) -> None:
    ids = {await jobs.add_with_status(status) for status in ("succeeded", "failed", "queued")}

    rows = await jobs.status.list_jobs()

    assert {row.id for row in rows} == ids
    assert {row.phase_number for row in rows} == {1}
    assert {row.phase_count for row in rows} == {4}


# -- the audit trail --------------------------------------------------------------------------


async def test_every_transition_is_in_the_audit_trail_with_its_actor_and_reason(
    jobs: JobsInTest,
) -> None:
    job = await jobs.add_claimed(worker="host:1")
    await jobs.snooze(job)
    await jobs.let_wait_end(job.id)
    job = await jobs.claim_one(worker="host:2")
    await jobs.advance(job)
    await jobs.fail(job, retry=False)
    await jobs.commands.retry(job.client_id)
    await jobs.release(await jobs.claim_one(worker="host:3"))
    await jobs.commands.cancel(job.client_id)

    events = await jobs.fetch_events(job.id)

    shown = [(each["event"], each["from_status"], each["to_status"]) for each in events]
    assert shown == [
        ("enqueued", None, "queued"),
        ("claimed", "queued", "running"),
        ("snoozed", "running", "waiting"),
        ("claimed", "waiting", "running"),
        ("advanced", "running", "running"),
        ("failed", "running", "failed"),
        ("retried", "failed", "queued"),
        ("claimed", "queued", "running"),
        ("released", "running", "queued"),
        ("cancelled", "queued", "cancelled"),
    ]
    assert [each["actor"] for each in events[1:6]] == ["host:1"] * 2 + ["host:2"] * 3
    assert all(each["actor"].startswith("sql:") for each in (events[0], events[6], events[9]))
    assert (events[5]["error"], events[5]["error_kind"]) == ("it did not work", "transient")
    assert (events[4]["from_phase"], events[4]["to_phase"]) == PHASES[:2]


@pytest.mark.parametrize(
    ("interface", "person", "actor"),
    [
        ("sql", None, "sql:{role}"),
        ("sql", "alice", "sql:{role} for alice"),
        ("cli", None, "cli:{role}"),
        ("cli", "alice", "cli:{role} for alice"),
        # It can't pass for a worker, whose events bear its id alone.
        ("host:1", None, "sql:{role}"),
    ],
)
async def test_an_actor_is_an_interface_a_role_and_a_person_for_one_transaction(
    jobs: JobsInTest, interface: str, person: str | None, actor: str
) -> None:
    role = await jobs.pool.fetchval("select session_user")
    async with jobs.pool.acquire() as connection:
        async with connection.transaction():
            await connection.execute("select pgworker.act_for($1, $2)", person, interface)
            await connection.execute("select pgworker.open_breaker('c', 'refused', '30 s')")
            await connection.execute("select pgworker.close_breaker('c')")
            await connection.execute("select pgworker.pause()")
        assert await connection.fetchval("select pgworker.actor()") == f"sql:{role}"

    events = await jobs.pool.fetch("select event, actor from pgworker.events order by id")

    assert [row["event"] for row in events] == ["breaker_opened", "breaker_closed", "paused"]
    assert {row["actor"] for row in events} == {actor.format(role=role)}


async def test_a_rolled_back_transition_leaves_no_event(jobs: JobsInTest) -> None:
    job = await jobs.add_claimed()
    before = await jobs.fetch_event_names(job.id)

    async with jobs.pool.acquire() as connection:
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute(RESET, job.client_id)
        await transaction.rollback()

    assert await jobs.fetch_event_names(job.id) == before
    assert await jobs.fetch_status(job.id) is JobStatus.RUNNING
    assert await jobs.heartbeat(job) == set()


async def test_the_values_that_the_provider_gave_are_merged_into_the_settings(
    jobs: JobsInTest,
) -> None:
    client_id = await jobs.pool.fetchval(
        "insert into clients (name, auto_provision, additional_settings)"
        """ values ('A', true, '{"region": "x", "theme": "dark", "provisioning": {"a": 1}}')"""
        " returning id"
    )
    job = await jobs.claim_one()
    await jobs.pool.execute(
        "select pgworker.advance(array[$1::bigint], array[$2::bigint], '{await_project}',"
        """ array['{"provisioning": {"b": 2}}'::jsonb], array['{}'::jsonb], '30 s')""",
        job.id,
        job.claim_token,
    )

    client = await jobs.status.get_client(client_id)

    assert client.settings == {"region": "x", "theme": "dark", "provisioning": {"a": 1, "b": 2}}


async def test_the_wait_for_a_start_time_shows_in_the_views(jobs: JobsInTest) -> None:
    client_id = await jobs.add_client()
    await jobs.pool.fetchval(
        "select pgworker.enqueue($1, p_run_at => now() + $2)", client_id, timedelta(hours=1)
    )
    await jobs.pool.execute("select pgworker.register_worker('w', 'host', 1, '0', 20, '30 s')")

    (row,) = await jobs.status.list_clients()

    assert row.blocked_because == "its start time"
    assert row.status == "queued"
