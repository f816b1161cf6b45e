"""What phases know before they begin."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from pgworker.db.pool import Pool
from pgworker.errors import DatabaseUnreachable
from pgworker.provisioning import prefetch as briefings_module
from pgworker.provisioning.breakers import Breakers
from pgworker.provisioning.prefetch import PREFETCH_QUERIES, Briefing, Briefings
from tests.support.workers import within

if TYPE_CHECKING:
    from pgworker.models import Job
    from tests.support.jobs import JobsInTest


class PoolThatWaits(Pool):
    """Counts the statements, and answers when it may; or fails, as a server that is away."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self.statements = 0
        self.asked = asyncio.Event()
        self.may_answer = asyncio.Event()
        self.is_away = False

    async def fetch(self, query: str, *arguments: object) -> list[Any]:
        self.statements += 1
        self.asked.set()
        await self.may_answer.wait()
        if self.is_away:
            raise DatabaseUnreachable("away")
        return await self._pool.fetch(query, *arguments)


async def claimed(jobs: JobsInTest, count: int) -> list[Job]:
    await jobs.add_many(count)
    return await jobs.claim(count)


async def test_those_who_ask_while_a_statement_is_under_way_share_the_next_one(
    jobs: JobsInTest,
) -> None:
    held = await claimed(jobs, 20)
    pool = PoolThatWaits(jobs.pool)
    briefings = Briefings(pool)

    async with asyncio.TaskGroup() as tasks:
        first = tasks.create_task(briefings.of(held[0]))
        await within(pool.asked.wait())
        others = [tasks.create_task(briefings.of(job)) for job in held[1:]]
        await asyncio.sleep(0)
        pool.may_answer.set()

    assert pool.statements == 2
    told: list[Briefing] = [first.result(), *(task.result() for task in others)]
    assert [briefing.client.id for briefing in told] == [job.client_id for job in held]


async def test_jobs_that_were_claimed_together_are_briefed_with_one_statement(
    jobs: JobsInTest,
) -> None:
    held = await claimed(jobs, 20)
    pool = PoolThatWaits(jobs.pool)
    pool.may_answer.set()
    briefings = Briefings(pool)

    await briefings.read_ahead(held)
    told = [await briefings.of(job) for job in held]

    assert pool.statements == 1
    assert [briefing.client.id for briefing in told] == [job.client_id for job in held]


async def test_what_was_read_ahead_serves_the_phase_that_begins_and_no_later_one(
    jobs: JobsInTest,
) -> None:
    (job,) = await claimed(jobs, 1)
    briefings = Briefings(jobs.pool)
    await briefings.read_ahead([job])
    await jobs.pool.execute("update clients set name = 'renamed' where id = $1", job.client_id)

    first = await briefings.of(job)
    again = await briefings.of(job)
    await briefings.read_ahead([job])
    await jobs.pool.execute("update clients set name = 'anew' where id = $1", job.client_id)
    of_another_claim = await briefings.of(job._replace(claim_token=job.claim_token + 1))

    assert first.client.name != "renamed"
    assert again.client.name == "renamed"
    assert of_another_claim.client.name == "anew"


async def test_a_job_that_begins_late_is_briefed_anew(
    jobs: JobsInTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(briefings_module, "FRESH_FOR", timedelta(0))
    (job,) = await claimed(jobs, 1)
    briefings = Briefings(jobs.pool)
    await briefings.read_ahead([job])
    await jobs.pool.execute("update clients set name = 'renamed' where id = $1", job.client_id)

    assert (await briefings.of(job)).client.name == "renamed"


async def test_one_who_leaves_while_it_reads_for_all_leaves_none_unbriefed(
    jobs: JobsInTest,
) -> None:
    held = await claimed(jobs, 3)
    pool = PoolThatWaits(jobs.pool)
    briefings = Briefings(pool)
    asking = [asyncio.create_task(briefings.of(job)) for job in held]
    await within(pool.asked.wait())

    asking[0].cancel()
    await asyncio.wait([asking[0]])
    pool.may_answer.set()
    told = await within(asyncio.gather(*asking[1:]))

    assert asking[0].cancelled()
    assert [briefing.client.id for briefing in told] == [job.client_id for job in held[1:]]


async def test_who_asks_while_the_database_is_away_is_told_so(jobs: JobsInTest) -> None:
    held = await claimed(jobs, 2)
    pool = PoolThatWaits(jobs.pool)
    pool.is_away = True
    pool.may_answer.set()
    briefings = Briefings(pool)
    # They aren't told before they begin.
    await briefings.read_ahead(held)

    for job in held:
        with pytest.raises(DatabaseUnreachable):
            await within(briefings.of(job))

    pool.is_away = False
    assert (await within(briefings.of(held[0]))).client.id == held[0].client_id


async def test_it_tells_who_makes_the_tenant_and_whether_a_credential_is_refused(
    jobs: JobsInTest,
) -> None:
    (job,) = await claimed(jobs, 1)
    briefings = Briefings(jobs.pool)
    before = await briefings.of(job)

    await jobs.pool.execute(
        "insert into pgworker.intents (client_id, provider, name) values ($1, 'postgres', 'x')",
        job.client_id,
    )
    await Breakers(jobs.pool).open("somebody's", "401")
    after = await briefings.of(job)

    assert (before.provider, before.some_are_refused) == (None, False)
    assert (after.provider, after.some_are_refused) == ("postgres", True)


async def test_a_briefing_costs_the_same_beside_many_clients(jobs: JobsInTest) -> None:
    held = await claimed(jobs, 100)
    await jobs.pool.execute(
        "insert into clients (name) select 'other ' || n from generate_series(1, 3000) n"
    )
    await jobs.pool.execute("analyze clients")
    async with jobs.pool.acquire() as connection, connection.transaction():
        read = "select seq_tup_read from pg_stat_xact_user_tables where relname = 'clients'"
        before = await connection.fetchval(read)
        await connection.fetch(
            PREFETCH_QUERIES.briefings, [job.id for job in held], [job.client_id for job in held]
        )
        assert await connection.fetchval(read) == before
