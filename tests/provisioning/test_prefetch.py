"""What phases know before they start."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from pgworker.db.pool import Pool
from pgworker.errors import DatabaseUnreachable
from pgworker.provisioning import prefetch as prefetch_module
from pgworker.provisioning.breakers import Breakers
from pgworker.provisioning.prefetch import PREFETCH_QUERIES, PhaseInput, PhaseInputLoader
from tests.support.workers import within

if TYPE_CHECKING:
    from pgworker.models import Job
    from tests.support.jobs import JobsInTest


class PoolThatWaits(Pool):
    """Counts the statements, and answers when it may; or fails, as an unreachable server."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self.statements = 0
        self.asked = asyncio.Event()
        self.may_answer = asyncio.Event()
        self.is_unreachable = False

    async def fetch(self, query: str, *arguments: object) -> list[Any]:
        self.statements += 1
        self.asked.set()
        await self.may_answer.wait()
        if self.is_unreachable:
            raise DatabaseUnreachable("unreachable")
        return await self._pool.fetch(query, *arguments)


async def claimed(jobs: JobsInTest, count: int) -> list[Job]:
    await jobs.add_many(count)
    return await jobs.claim(count)


async def test_calls_made_while_a_statement_runs_share_the_next_one(
    jobs: JobsInTest,
) -> None:
    held = await claimed(jobs, 20)
    pool = PoolThatWaits(jobs.pool)
    loader = PhaseInputLoader(pool)

    async with asyncio.TaskGroup() as tasks:
        first = tasks.create_task(loader.get(held[0]))
        await within(pool.asked.wait())
        others = [tasks.create_task(loader.get(job)) for job in held[1:]]
        await asyncio.sleep(0)
        pool.may_answer.set()

    assert pool.statements == 2
    inputs: list[PhaseInput] = [first.result(), *(task.result() for task in others)]
    assert [each.client.id for each in inputs] == [job.client_id for job in held]


async def test_jobs_claimed_together_are_read_with_one_statement(
    jobs: JobsInTest,
) -> None:
    held = await claimed(jobs, 20)
    pool = PoolThatWaits(jobs.pool)
    pool.may_answer.set()
    loader = PhaseInputLoader(pool)

    await loader.prefetch(held)
    inputs = [await loader.get(job) for job in held]

    assert pool.statements == 1
    assert [each.client.id for each in inputs] == [job.client_id for job in held]


async def test_a_prefetched_input_serves_the_phase_that_starts_and_no_later_one(
    jobs: JobsInTest,
) -> None:
    (job,) = await claimed(jobs, 1)
    loader = PhaseInputLoader(jobs.pool)
    await loader.prefetch([job])
    await jobs.pool.execute("update clients set name = 'renamed' where id = $1", job.client_id)

    first = await loader.get(job)
    again = await loader.get(job)
    await loader.prefetch([job])
    await jobs.pool.execute(
        "update clients set name = 'renamed again' where id = $1", job.client_id
    )
    of_another_claim = await loader.get(job._replace(claim_token=job.claim_token + 1))

    assert first.client.name != "renamed"
    assert again.client.name == "renamed"
    assert of_another_claim.client.name == "renamed again"


async def test_a_job_that_starts_late_is_read_again(
    jobs: JobsInTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prefetch_module, "FRESH_FOR", timedelta(0))
    (job,) = await claimed(jobs, 1)
    loader = PhaseInputLoader(jobs.pool)
    await loader.prefetch([job])
    await jobs.pool.execute("update clients set name = 'renamed' where id = $1", job.client_id)

    assert (await loader.get(job)).client.name == "renamed"


async def test_a_call_cancelled_while_it_reads_for_all_leaves_none_of_the_others_unread(
    jobs: JobsInTest,
) -> None:
    held = await claimed(jobs, 3)
    pool = PoolThatWaits(jobs.pool)
    loader = PhaseInputLoader(pool)
    reading = [asyncio.create_task(loader.get(job)) for job in held]
    await within(pool.asked.wait())

    reading[0].cancel()
    await asyncio.wait([reading[0]])
    pool.may_answer.set()
    inputs = await within(asyncio.gather(*reading[1:]))

    assert reading[0].cancelled()
    assert [each.client.id for each in inputs] == [job.client_id for job in held[1:]]


async def test_while_the_database_is_unreachable_each_call_says_so(jobs: JobsInTest) -> None:
    held = await claimed(jobs, 2)
    pool = PoolThatWaits(jobs.pool)
    pool.is_unreachable = True
    pool.may_answer.set()
    loader = PhaseInputLoader(pool)
    # Prefetching itself raises nothing.
    await loader.prefetch(held)

    for job in held:
        with pytest.raises(DatabaseUnreachable):
            await within(loader.get(job))

    pool.is_unreachable = False
    assert (await within(loader.get(held[0]))).client.id == held[0].client_id


async def test_it_names_the_provider_of_the_tenant_and_says_whether_a_credential_is_refused(
    jobs: JobsInTest,
) -> None:
    (job,) = await claimed(jobs, 1)
    loader = PhaseInputLoader(jobs.pool)
    before = await loader.get(job)

    await jobs.pool.execute(
        "insert into pgworker.intents (client_id, provider, name) values ($1, 'postgres', 'x')",
        job.client_id,
    )
    await Breakers(jobs.pool).open("another credential", "401")
    after = await loader.get(job)

    assert (before.provider, before.any_breaker_is_open) == (None, False)
    assert (after.provider, after.any_breaker_is_open) == ("postgres", True)


async def test_an_input_costs_the_same_beside_many_clients(jobs: JobsInTest) -> None:
    held = await claimed(jobs, 100)
    await jobs.pool.execute(
        "insert into clients (name) select 'other ' || n from generate_series(1, 3000) n"
    )
    await jobs.pool.execute("analyze clients")
    async with jobs.pool.acquire() as connection, connection.transaction():
        read = "select seq_tup_read from pg_stat_xact_user_tables where relname = 'clients'"
        before = await connection.fetchval(read)
        await connection.fetch(
            PREFETCH_QUERIES.find_phase_inputs,
            [job.id for job in held],
            [job.client_id for job in held],
        )
        assert await connection.fetchval(read) == before
