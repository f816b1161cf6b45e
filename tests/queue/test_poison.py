"""One client's row that can't be changed, or is locked, holds up nobody else."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import asyncpg
import pytest

from pgworker.errors import PgworkerError
from pgworker.models import Complete, Done

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from pgworker.models import Job
    from tests.support.jobs import JobsInTest

# What a platform may have on its own table; each refuses to change the client named "bad".
TRIGGER = """
create function refuse_bad() returns trigger language plpgsql as $$
begin
    raise exception 'archived clients are read-only' using errcode = '{sqlstate}';
end
$$;
create trigger refuse_bad before update on clients
for each row when (old.name = 'bad') execute function refuse_bad();
"""
CHECK = """
alter table clients add constraint not_bad check (
    name <> 'bad' or provisioning_status in ('queued', 'not_provisioned')
);
"""
FOREIGN_KEY = """
create table allowed (name text, status text, primary key (name, status));
insert into allowed
select name, status
from unnest(array['good 1', 'good 2', 'bad']) as name, unnest(array[
    'not_provisioned', 'queued', 'creating_project', 'waiting_for_project', 'ready', 'failed'
]) as status
where name <> 'bad' or status in ('queued', 'not_provisioned');
alter table clients add foreign key (name, provisioning_status) references allowed (name, status);
"""
SWALLOWED = """
create function swallow_bad() returns trigger language plpgsql as $$
begin
    return null;
end
$$;
create trigger swallow_bad before update on clients
for each row when (old.name = 'bad') execute function swallow_bad();
"""
# One of each class that the server, or a person's trigger, may say.
SQLSTATES = (
    "P0001", "22023", "23505", "25006", "28000", "40001", "42501", "42P01", "53100", "55000",
    "55P03", "57014", "57P01", "08006", "XX000", "PW001", "P0004", "ZZ999",
)  # fmt: skip


async def three_clients(jobs: JobsInTest) -> dict[str, int]:
    rows = await jobs.pool.fetch(
        "insert into clients (name, auto_provision)"
        " select name, true from unnest(array['good 1', 'bad', 'good 2']) as name"
        " returning id, name"
    )
    return {
        row["name"]: await jobs.pool.fetchval(
            "select id from client_provisioning_jobs where client_id = $1", row["id"]
        )
        for row in rows
    }


@asynccontextmanager
async def locked(jobs: JobsInTest, dsn: str, name: str = "bad") -> AsyncIterator[None]:
    """Hold the client's row, as a person does who forgot to commit."""
    person = await asyncpg.connect(dsn, server_settings={"application_name": "psql of Ann"})
    try:
        async with person.transaction():
            await person.execute("update clients set name = name where name = $1", name)
            yield
    finally:
        await person.close()


async def names(jobs: JobsInTest, claimed: list[Job]) -> list[str]:
    rows = await jobs.pool.fetch(
        "select name from clients where id = any($1) order by name",
        [job.client_id for job in claimed],
    )
    return [row["name"] for row in rows]


@pytest.mark.parametrize("poison", [TRIGGER.format(sqlstate="P0001"), CHECK, FOREIGN_KEY])
async def test_a_client_that_cannot_be_changed_fails_alone_and_the_others_are_claimed(
    jobs: JobsInTest, poison: str
) -> None:
    ids = await three_clients(jobs)
    await jobs.pool.execute(poison)

    assert await names(jobs, await jobs.claim(10)) == ["good 1", "good 2"]

    bad = await jobs.row(ids["bad"])
    assert (bad["status"], bad["error_kind"]) == ("failed", "permanent")
    assert bad["last_error"].startswith("its row in clients can't be changed: ")
    assert [event["event"] for event in await jobs.events_of(ids["bad"])][-1] == "failed"


@pytest.mark.parametrize("sqlstate", SQLSTATES)
async def test_whatever_the_refusal_is_called_the_others_are_claimed(
    jobs: JobsInTest, sqlstate: str
) -> None:
    ids = await three_clients(jobs)
    await jobs.pool.execute(TRIGGER.format(sqlstate=sqlstate))

    assert await names(jobs, await jobs.claim(10)) == ["good 1", "good 2"]

    bad = await jobs.row(ids["bad"])
    assert bad["status"] in {"failed", "waiting"}
    assert (bad["status"], bad["attempts"]) != ("waiting", 0) or sqlstate == "55P03"


async def test_the_only_client_that_is_due_fails_by_its_own_trigger_whatever_it_raises(
    jobs: JobsInTest,
) -> None:
    ids = await three_clients(jobs)
    await jobs.pool.execute(TRIGGER.format(sqlstate="42501"))
    await jobs.pool.execute(
        "update client_provisioning_jobs set status = 'waiting', run_at = now() + interval '1 h'"
        " where id <> $1",
        ids["bad"],
    )

    assert await jobs.claim(10) == []

    assert (await jobs.row(ids["bad"]))["status"] == "failed"


async def test_a_missing_right_on_the_table_fails_no_job(jobs: JobsInTest, database: str) -> None:
    ids = await three_clients(jobs)
    await jobs.pool.execute(
        "create table kept as select * from clients limit 0;"
        "alter table clients rename column provisioning_started_at to hidden"
    )

    with pytest.raises(PgworkerError):
        await jobs.claim(10)

    for job_id in ids.values():
        assert (await jobs.row(job_id))["status"] == "queued"


async def test_an_update_that_a_trigger_swallows_holds_up_nobody(jobs: JobsInTest) -> None:
    await three_clients(jobs)
    await jobs.pool.execute(SWALLOWED)

    claimed = await jobs.claim(10)

    assert await names(jobs, claimed) == ["bad", "good 1", "good 2"]
    assert await jobs.of("any").complete([(job, Complete(Done())) for job in claimed]) == set()


async def test_a_locked_client_is_put_aside_and_named_and_claimed_once_it_is_free(
    jobs: JobsInTest, database: str
) -> None:
    ids = await three_clients(jobs)
    await jobs.pool.execute("select pgworker.register_worker('w', 'host', 1, '0', 20, '30 s')")

    async with locked(jobs, database):
        assert await names(jobs, await jobs.claim(10)) == ["good 1", "good 2"]

        (row,) = await jobs.pool.fetch(
            "select blocked_code, blocked_because from pgworker.client_status"
            " where client_name = 'bad'"
        )
        assert row["blocked_code"] == "client_locked"
        assert "psql of Ann (pid " in row["blocked_because"]
        await jobs.let_wait_end(ids["bad"])
        assert await jobs.claim(10) == []
        events = [event["event"] for event in await jobs.events_of(ids["bad"])]
        assert events == ["enqueued", "snoozed"]

    await jobs.let_wait_end(ids["bad"])
    assert await names(jobs, await jobs.claim(10)) == ["bad"]
    row = await jobs.row(ids["bad"])
    assert (row["wait_code"], row["attempts"], row["crashes"]) == (None, 0, 0)
