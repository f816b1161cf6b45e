"""Times of an adopted `clients` without a time zone: UTC, whatever the session's time zone is."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest

from pgworker.db.migrate import migrate, read_plan
from pgworker.db.pool import connected
from pgworker.models import ErrorKind
from pgworker.status.commands import ClientRequest
from tests.support.jobs import JobsInTest, jobs_in
from tests.support.stack import running_stack

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

TIMES = ("created_at", "updated_at", "provisioning_started_at", "provisioning_completed_at")
ADOPTED = """
    create table clients (
        id uuid primary key default gen_random_uuid(),
        name text not null,
        created_at {type} default {now},
        updated_at {type},
        provisioning_started_at {type},
        provisioning_completed_at {type}
    )
"""
ZONE = "Asia/Kolkata"  # five and a half hours ahead of UTC


@pytest.fixture(params=["timestamp", "timestamptz"])
async def dsn(request: pytest.FixtureRequest, empty_database: str) -> str:
    """A migrated database whose sessions, all of them, have a time zone of their own."""
    now = "(now() at time zone 'UTC')" if request.param == "timestamp" else "now()"
    async with connected(empty_database) as connection:
        await connection.execute(ADOPTED.format(type=request.param, now=now))
        await connection.execute(
            "do $$ begin execute format('alter database %I set timezone = %L',"
            f" current_database(), '{ZONE}'); end $$"
        )
        await migrate(connection)
    return empty_database


@pytest.fixture
async def jobs(dsn: str) -> AsyncIterator[JobsInTest]:
    async with jobs_in(dsn) as opened:
        assert await opened.pool.fetchval("show timezone") == ZONE
        yield opened


def is_now(value: Any) -> bool:
    """Tell whether a time, in UTC where it has no zone, is of this minute."""
    aware: datetime = value if value.tzinfo is not None else value.replace(tzinfo=UTC)
    return abs(datetime.now(UTC) - aware) < timedelta(minutes=1)


async def set_long_ago(jobs: JobsInTest) -> None:
    await jobs.pool.execute("update clients set updated_at = '2001-01-01'")


async def test_every_transition_writes_utc(jobs: JobsInTest) -> None:
    """Whatever writes to the client, the time that it leaves is of now."""
    await jobs.commands.create_client(ClientRequest("Acme"))
    job = await jobs.claim_one()
    assert is_now((await jobs.fetch_client(job.id))["created_at"])
    assert is_now((await jobs.fetch_client(job.id))["provisioning_started_at"])

    async def changed(what: str) -> None:
        assert is_now((await jobs.fetch_client(job.id))["updated_at"]), what
        await set_long_ago(jobs)

    await changed("claim")
    await jobs.advance(job)
    await changed("advance")
    await jobs.fail(job, kind=ErrorKind.PERMANENT, retry=False)
    await changed("fail")
    await jobs.commands.retry(job.client_id)
    await changed("retry")
    await jobs.commands.set_schema_version(job.client_id, "1")
    await changed("set_schema_version")
    job = await jobs.claim_one()
    await changed("claim again")
    await jobs.complete(job)
    assert is_now((await jobs.fetch_client(job.id))["provisioning_completed_at"])
    await changed("complete")
    await jobs.pool.execute("select pgworker.enqueue($1)", job.client_id)
    await changed("enqueue")
    await jobs.commands.cancel(job.client_id)
    await changed("cancel")


async def test_every_view_and_list_reads_utc(jobs: JobsInTest) -> None:
    await jobs.pool.execute("insert into clients (name, auto_provision) values ('Acme', true)")
    job = await jobs.claim_one()
    await jobs.complete(job)

    (row,) = await jobs.status.list_clients()

    for value in (row.created_at, row.provisioning_started_at, row.provisioning_completed_at):
        assert value is not None
        assert value.tzinfo is not None
        assert is_now(value)
    client = await jobs.status.get_client(job.client_id)
    assert client.created_at is not None
    assert is_now(client.created_at)
    age = await jobs.pool.fetchval("select age from pgworker.client_status")
    assert timedelta(0) <= age < timedelta(minutes=1)


async def test_pages_of_clients_follow_each_other(jobs: JobsInTest) -> None:
    await jobs.pool.execute(
        "insert into clients (name, created_at)"
        " select n::text, '2026-01-01'::timestamp + n * interval '1 hour'"
        " from generate_series(1, 7) n"
    )
    page = (
        "select page.id, client.created_at, client.client_name from"
        " pgworker.client_page(null, null, null, null, $1, $2, 3) as page (id)"
        " inner join pgworker.client_status as client on client.client_id = page.id"
        " order by client.created_at desc"
    )
    names, place = [], (None, None)
    while rows := await jobs.pool.fetch(page, *place):
        names += [row["client_name"] for row in rows]
        place = (rows[-1]["created_at"], rows[-1]["id"])

    assert names == ["7", "6", "5", "4", "3", "2", "1"]


async def test_a_whole_provisioning(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with running_stack(dsn, monkeypatch, simulated={}) as stack:
        client_id = await stack.add()
        await stack.run_until_empty()

        client = await stack.fetch_client(client_id)
        assert client["provisioning_status"] == "ready"
        assert is_now(client["provisioning_completed_at"])
        assert stack.log.find("phase_crashed") == []


async def test_the_plan_says_how_such_times_are_read_and_what_their_default_does(
    empty_database: str,
) -> None:
    async with connected(empty_database) as connection:
        await connection.execute(ADOPTED.format(type="timestamp", now="now()"))
        plan = await read_plan(connection)

        assert plan.objections == ()
        created, updated = plan.notices
        assert created.startswith("column clients.created_at has no time zone: it is read and")
        assert updated == (
            "column clients.updated_at has no time zone: it is read and written as UTC"
        )
        # The advice is usable, and then there is none.
        await connection.execute(created.rpartition(": ")[2])
        assert "default" not in (await read_plan(connection)).notices[0]


async def test_what_is_pinned_is_all_that_writes_to_clients(connection: asyncpg.Connection) -> None:
    unpinned = await connection.fetch(
        "select proname from pg_proc where pronamespace = 'pgworker'::regnamespace"
        " and prosrc ~ '(update|insert into) public\\.clients\\M'"
        " and coalesce(array_position(proconfig, 'TimeZone=UTC'), 0) = 0"
    )

    assert unpinned == []


@pytest.fixture
async def connection(database: str) -> AsyncIterator[asyncpg.Connection]:
    async with connected(database) as opened:
        yield opened
