"""One client's row that can't be changed, or is locked, holds up no other job."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest

from pgworker.errors import PgworkerError
from pgworker.models import Advance, ClientPatch, Complete, Done, Snooze
from tests.support.polling import eventually
from tests.support.workers import PhaseInTest, within, working

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

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


async def reaches(jobs: JobsInTest, job_id: int, *statuses: str) -> None:
    async def is_there() -> bool:
        return await jobs.fetch_status(job_id) in statuses

    await eventually(is_there)


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

    bad = await jobs.fetch_row(ids["bad"])
    assert (bad["status"], bad["error_kind"]) == ("failed", "permanent")
    assert bad["last_error"].startswith("its row in clients can't be changed: ")
    assert [event["event"] for event in await jobs.fetch_events(ids["bad"])][-1] == "failed"


@pytest.mark.parametrize("sqlstate", SQLSTATES)
async def test_whatever_the_refusal_is_called_the_others_are_claimed(
    jobs: JobsInTest, sqlstate: str
) -> None:
    ids = await three_clients(jobs)
    await jobs.pool.execute(TRIGGER.format(sqlstate=sqlstate))

    assert await names(jobs, await jobs.claim(10)) == ["good 1", "good 2"]

    bad = await jobs.fetch_row(ids["bad"])
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

    assert (await jobs.fetch_row(ids["bad"]))["status"] == "failed"


async def test_a_missing_right_on_the_table_fails_no_job(jobs: JobsInTest, database: str) -> None:
    ids = await three_clients(jobs)
    await jobs.pool.execute(
        "create table kept as select * from clients limit 0;"
        "alter table clients rename column provisioning_started_at to hidden"
    )

    with pytest.raises(PgworkerError):
        await jobs.claim(10)

    for job_id in ids.values():
        assert (await jobs.fetch_row(job_id))["status"] == "queued"


async def test_an_update_that_a_trigger_swallows_holds_up_no_job(jobs: JobsInTest) -> None:
    await three_clients(jobs)
    await jobs.pool.execute(SWALLOWED)

    claimed = await jobs.claim(10)

    assert await names(jobs, claimed) == ["bad", "good 1", "good 2"]
    assert (
        await jobs.as_worker("any").complete([(job, Complete(Done())) for job in claimed]) == set()
    )


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
        events = [event["event"] for event in await jobs.fetch_events(ids["bad"])]
        assert events == ["enqueued", "snoozed"]

    await jobs.let_wait_end(ids["bad"])
    assert await names(jobs, await jobs.claim(10)) == ["bad"]
    row = await jobs.fetch_row(ids["bad"])
    assert (row["wait_code"], row["attempts"], row["crashes"]) == (None, 0, 0)


# -- results ----------------------------------------------------------------------------------

# As CHECK and TRIGGER, for clients that have been claimed: what ends their phases is refused.
RESULT_TRIGGER = """
create function refuse_result() returns trigger language plpgsql as $$
begin
    raise exception 'this client is frozen' using errcode = '{sqlstate}';
end
$$;
create trigger refuse_result before update on clients for each row
when (old.name = 'bad' and old.provisioning_status = 'creating_project')
execute function refuse_result();
"""


def ending(kind: str) -> Callable[[Job], Any]:
    """Return what a phase of that kind of transition ends with, once for each job."""
    patch = ClientPatch(project_ref="ref")

    def outcome(job: Job) -> Any:
        if kind == "advance" and job.job_type == "create_project":
            return Advance("await_project", Done(patch=patch))
        if kind == "snooze" and not job.checkpoint:
            return Snooze(
                timedelta(hours=1), reason="the project", error="slow", checkpoint={"seen": True}
            )
        return Complete(Done(patch=patch))

    return outcome


@pytest.mark.parametrize("kind", ["advance", "complete", "snooze"])
@pytest.mark.parametrize("sqlstate", SQLSTATES)
async def test_a_result_that_cannot_be_stored_fails_its_job_and_no_other(
    jobs: JobsInTest, kind: str, sqlstate: str
) -> None:
    ids = await three_clients(jobs)
    await jobs.pool.execute(RESULT_TRIGGER.format(sqlstate=sqlstate))
    outcome = ending(kind)

    async def phase(job: Job) -> Any:
        return outcome(job)

    good = "waiting" if kind == "snooze" else "succeeded"
    async with working(jobs.pool, phase):
        for name in ("good 1", "good 2"):
            await reaches(jobs, ids[name], good)
        if sqlstate == "55P03":
            return
        await reaches(jobs, ids["bad"], "failed", "waiting")

    row = await jobs.fetch_row(ids["bad"])
    assert "this client is frozen" in row["last_error"]


@pytest.mark.parametrize("kind", ["advance", "complete", "snooze"])
async def test_a_result_for_a_locked_client_holds_up_no_other_and_is_stored_once_it_is_free(
    jobs: JobsInTest, database: str, kind: str
) -> None:
    ids = await three_clients(jobs)
    outcome = ending(kind)
    all_began = asyncio.Barrier(4)

    async def phase(job: Job) -> Any:
        if not job.checkpoint and job.job_type == "create_project":
            await all_began.wait()
            await all_began.wait()
        return outcome(job)

    good = "waiting" if kind == "snooze" else "succeeded"
    async with working(jobs.pool, phase):
        await within(all_began.wait())
        async with locked(jobs, database):
            await within(all_began.wait())
            for name in ("good 1", "good 2"):
                await reaches(jobs, ids[name], good)
            assert await jobs.fetch_status(ids["bad"]) == "running"
        await reaches(jobs, ids["bad"], good)

    assert (await jobs.fetch_row(ids["bad"]))["attempts"] == 0


# -- crashes ----------------------------------------------------------------------------------


async def all_but(jobs: JobsInTest, *ids: int) -> list[int]:
    rows = await jobs.pool.fetch(
        "select id from client_provisioning_jobs where id <> all($1::bigint[])", list(ids)
    )
    return [row["id"] for row in rows]


async def silence(jobs: JobsInTest, *claimed: Job) -> None:
    for job in claimed:
        await jobs.let_lease_expire(job.id)


async def test_a_job_whose_holders_fell_silent_twice_is_claimed_alone(jobs: JobsInTest) -> None:
    await jobs.add_many(5)
    for worker in ("first", "second"):
        await silence(jobs, *await jobs.claim(5, worker=worker))

    for number in range(5):
        (suspect,) = await jobs.claim(5, worker=f"worker {number}")
        assert suspect.is_suspect
        assert await jobs.claim(5, worker="busy", in_hand=1) == []


async def test_beside_a_suspect_that_is_due_others_are_claimed(jobs: JobsInTest) -> None:
    suspect = await jobs.add()
    await jobs.update(suspect, crashes=2)
    await jobs.add_many(3)
    others = await all_but(jobs, suspect)

    claimed = await jobs.claim(5, in_hand=1)

    assert sorted(job.id for job in claimed) == sorted(others)


async def test_a_worker_that_is_never_idle_gets_no_more_once_a_suspect_is_overdue(
    jobs: JobsInTest,
) -> None:
    suspect = await jobs.add()
    await jobs.update(suspect, crashes=2)
    await jobs.pool.execute(
        "update client_provisioning_jobs set run_at = now() - interval '1 hour' where id = $1",
        suspect,
    )
    await jobs.add_many(3)

    assert await jobs.claim(5, in_hand=1) == []
    assert [job.id for job in await jobs.claim(5)] == [suspect]


async def test_a_neighbour_in_the_same_hands_is_never_failed_as_the_cause(
    jobs: JobsInTest,
) -> None:
    await jobs.add_many(2)
    ids = await all_but(jobs)
    for job_id in ids:
        await jobs.update(job_id, crashes=4)
    # As a worker before this release, or a person, may have claimed them.
    await jobs.pool.execute(
        "update client_provisioning_jobs set status = 'running', claimed_by = 'w',"
        " claim_token = claim_token + 1, lease_expires_at = now() - interval '1 s'"
    )

    (one,) = await jobs.claim(5, worker="next")

    assert one.is_suspect
    assert {await jobs.fetch_status(job_id) for job_id in ids} == {"running"}


async def test_the_last_of_a_silent_worker_s_jobs_to_be_rescued_was_not_alone(
    jobs: JobsInTest,
) -> None:
    for worker in ("w", "next"):
        await jobs.pool.execute(
            "select pgworker.register_worker($1, 'host', 1, '0', 20, '30 s')", worker
        )
    await jobs.add_many(2)
    first, last = await jobs.claim(2, worker="w")
    await jobs.update(last.id, crashes=4)
    await silence(jobs, first)
    assert await jobs.claim(1, worker="next", in_hand=1) != []

    await silence(jobs, last)
    await jobs.claim(1, worker="next", in_hand=1)

    assert await jobs.fetch_status(last.id) == "running"


async def test_a_job_is_not_blamed_while_workers_fall_that_never_held_it(
    jobs: JobsInTest,
) -> None:
    for worker in ("w", "other"):
        await jobs.pool.execute(
            "select pgworker.register_worker($1, 'host', 1, '0', 20, '30 s')", worker
        )
    job = await jobs.add_claimed(worker="w")
    await jobs.update(job.id, crashes=4)
    elsewhere = await jobs.add_claimed(worker="other")
    await silence(jobs, elsewhere)
    await jobs.claim_one(worker="next")
    await silence(jobs, job)

    (again,) = await jobs.claim(worker="third")
    assert (again.id, again.crashes) == (job.id, 5)

    await jobs.update(job.id, crashes=9)
    await silence(jobs, again)
    assert await jobs.claim(worker="fourth") == []
    assert await jobs.fetch_status(job.id) == "failed"


async def test_a_worker_claims_nothing_beside_a_suspect_until_it_has_survived_its_phase(
    jobs: JobsInTest,
) -> None:
    suspect = await jobs.add()
    await jobs.update(suspect, crashes=2)
    phase = PhaseInTest()
    async with working(jobs.pool, phase) as worker:
        assert (await phase.next_job()).id == suspect
        other = await jobs.add()
        worker.wake()
        assert await jobs.fetch_status(other) == "queued"
        phase.may_end.set()
        assert (await phase.next_job()).id == other
