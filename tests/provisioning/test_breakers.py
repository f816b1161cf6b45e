"""Breakers of refused credentials: one probe at a time, proof before any other job goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from structlog.testing import capture_logs

from pgworker.errors import CredentialRefused
from pgworker.models import Job, Snooze
from pgworker.providers.postgres.provider import PostgresProvider
from pgworker.provisioning.breakers import Breakers
from pgworker.queue.jobs import Jobs
from pgworker.simulator.faults import Answer
from tests.support.jobs import JobsInTest
from tests.support.polling import wait_for_lock
from tests.support.stack import TO_NEXT_PROBE_SECONDS, Stack, running_stack
from tests.support.workers import within

Open = Callable[..., AbstractAsyncContextManager[Stack]]

CREDENTIAL = "supabase:0123abcd"
REASON = "401: check SUPABASE_ACCESS_TOKEN"


@pytest.fixture
def supabase(database: str, monkeypatch: pytest.MonkeyPatch) -> Open:
    def opened(**settings: Any) -> Any:
        return running_stack(
            database, monkeypatch, simulated={}, invalid_answers=True, settings=settings
        )

    return opened


async def let_probe_be_due(pool: Any) -> None:
    await pool.execute("update pgworker.breakers set probe_at = now()")


async def find_probes(jobs: JobsInTest, held: list[Job]) -> list[Job]:
    """Let all of these jobs ask at once; return those that were admitted as probes."""
    breakers = Breakers(jobs.pool)
    admissions = await within(asyncio.gather(*(breakers.admit(CREDENTIAL, job) for job in held)))
    assert all((each.wait is None) == (each.open_reason is not None) for each in admissions)
    return [job for job, each in zip(held, admissions, strict=True) if each.open_reason == REASON]


# -- one probe at a time ----------------------------------------------------------------------


async def test_of_many_jobs_that_ask_at_once_exactly_one_is_the_probe(jobs: JobsInTest) -> None:
    await jobs.add_many(20)
    held = await jobs.claim(20)
    await Breakers(jobs.pool).open(CREDENTIAL, REASON)
    assert await find_probes(jobs, held) == []

    for _ in range(3):
        await let_probe_be_due(jobs.pool)
        (probe,) = await find_probes(jobs, held)
        await jobs.snooze(probe)
        held.remove(probe)


async def test_no_other_probe_starts_while_one_runs_however_long_it_takes(
    jobs: JobsInTest,
) -> None:
    await jobs.add_many(5)
    held = await jobs.claim(5)
    await Breakers(jobs.pool).open(CREDENTIAL, REASON)
    await let_probe_be_due(jobs.pool)
    (probe,) = await find_probes(jobs, held)

    await let_probe_be_due(jobs.pool)
    assert await find_probes(jobs, held) == []
    parked = await Breakers(jobs.pool).admit(CREDENTIAL, held[0])
    assert parked.wait is not None
    assert parked.wait.delay >= timedelta(seconds=30), "it would look every second"

    # Its worker dies, and its lease runs out.
    await jobs.let_lease_expire(probe.id)
    assert len(await find_probes(jobs, [job for job in held if job.id != probe.id])) == 1


async def test_another_claim_of_the_probes_job_is_not_the_probe(jobs: JobsInTest) -> None:
    await jobs.add_many(2)
    held = await jobs.claim(2)
    await Breakers(jobs.pool).open(CREDENTIAL, REASON)
    await let_probe_be_due(jobs.pool)
    (probe,) = await find_probes(jobs, held)
    (other,) = [job for job in held if job.id != probe.id]

    await jobs.let_lease_expire(probe.id)
    (again,) = await jobs.claim(1, worker="another")
    assert again.id == probe.id
    await let_probe_be_due(jobs.pool)
    assert await find_probes(jobs, [other]) == [other]


@pytest.mark.parametrize("workers", [1, 3])
async def test_each_probe_asks_once_however_many_workers_share_the_refused_token(
    supabase: Open, workers: int
) -> None:
    async with supabase() as stack, AsyncExitStack() as exits:
        order = stack.faults.order(operation="*", fault=Answer(401), times=None)
        await stack.add_many(12)
        daemons = [await exits.enter_async_context(stack.running()) for _ in range(workers)]
        waits = await stack.wait_until_snoozed(12)

        for _ in range(3):
            asked = order.hits
            await stack.let_time_pass(seconds=TO_NEXT_PROBE_SECONDS)
            waits = await stack.wait_until_snoozed(12, after=waits)
            assert order.hits == asked + 1

        order.release()
        await stack.let_time_pass(seconds=TO_NEXT_PROBE_SECONDS)
        await asyncio.gather(*daemons)

        assert await stack.count("select max(attempts) from client_provisioning_jobs") == 0
        events = "select count(*) from pgworker.event_log where event = $1"
        assert await stack.count(events, "breaker_opened") == 1
        assert await stack.count(events, "breaker_closed") == 1
        ready = "select count(*) from clients where provisioning_status = 'ready'"
        assert await stack.count(ready) == 12
        assert stack.count_creates() == 12


# -- opening ----------------------------------------------------------------------------------


async def read_log(jobs: JobsInTest) -> list[str]:
    """Return the events of breakers, oldest first."""
    rows = await jobs.pool.fetch(
        "select event from pgworker.event_log where event like 'breaker%' order by id"
    )
    return [row["event"] for row in rows]


async def test_of_two_jobs_refused_in_the_same_moment_one_opens_the_breaker(
    jobs: JobsInTest,
) -> None:
    """The first one's transaction is still open when the other one starts."""
    with capture_logs() as logged:
        async with jobs.pool.acquire() as ahead, asyncio.TaskGroup() as tasks, ahead.transaction():
            await Breakers(ahead).open(CREDENTIAL, REASON)
            tasks.create_task(within(Breakers(jobs.pool).open(CREDENTIAL, "401: so it is")))
            await wait_for_lock(jobs.pool)

    assert [entry["event"] for entry in logged] == ["breaker_opened"]
    assert await read_log(jobs) == ["breaker_opened"]
    (breaker,) = await jobs.status.list_open_breakers()
    assert breaker.reason == "401: so it is"


@pytest.mark.parametrize("close", ["has begun", "comes in between"])
async def test_a_breaker_that_closes_in_the_moment_of_another_refusal_opens_again(
    jobs: JobsInTest, close: str
) -> None:
    await Breakers(jobs.pool).open(CREDENTIAL, REASON)
    async with jobs.pool.acquire() as ahead, asyncio.TaskGroup() as tasks, ahead.transaction():
        if close == "has begun":
            await Breakers(ahead).close(CREDENTIAL)
        else:
            # Found open, and not yet written to.
            await ahead.execute("select from pgworker.breakers for update")
        tasks.create_task(within(Breakers(jobs.pool).open(CREDENTIAL, REASON)))
        await wait_for_lock(jobs.pool)
        if close == "comes in between":
            await Breakers(ahead).close(CREDENTIAL)

    assert await read_log(jobs) == ["breaker_opened", "breaker_closed", "breaker_opened"]
    assert len(await jobs.status.list_open_breakers()) == 1


# -- proof ------------------------------------------------------------------------------------

SILENT = """
from datetime import timedelta
from pgworker.models import ClientStatus, Done
from pgworker.provisioning.workflow import Workflow


class SendsNothing:
    name = "create_project"
    client_status = ClientStatus.CREATING_PROJECT

    async def run(self, ctx):
        return Done()


silent = Workflow("provision", (SendsNothing(),))
"""


@pytest.fixture
def silent_workflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the setting for a workflow whose phase sends no request."""
    name = f"silent_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(SILENT)
    monkeypatch.syspath_prepend(str(tmp_path))
    return f"{name}:silent"


async def open_the_breaker(stack: Stack) -> None:
    credential = stack.platform.providers.default.credential
    await Breakers(stack.platform.pool).open(credential, REASON)
    await let_probe_be_due(stack.platform.pool)


async def test_a_probe_whose_phase_sends_no_request_proves_nothing_by_succeeding(
    supabase: Open, silent_workflow: str
) -> None:
    async with supabase(PGWORKER_WORKFLOW=silent_workflow) as stack:
        order = stack.faults.order(operation="*", fault=Answer(401), times=None)
        await open_the_breaker(stack)
        client_id = await stack.add()
        async with stack.running() as daemon:
            await stack.wait_until_snoozed(1)
            assert order.hits == 1
            assert await stack.count("select count(*) from pgworker.breakers") == 1
            assert (await stack.fetch_job(client_id))["attempts"] == 0

            order.release()
            await stack.let_time_pass(seconds=TO_NEXT_PROBE_SECONDS)
            await daemon
        assert [entry.operation for entry in stack.ledger.entries] == ["get_organization"] * 2
        assert (await stack.fetch_client(client_id))["provisioning_status"] == "ready"
        assert await stack.count("select count(*) from pgworker.breakers") == 0


@pytest.mark.parametrize("status", [429, 503])
async def test_a_probe_without_an_answer_leaves_the_breaker_open_and_costs_no_attempt(
    supabase: Open, status: int
) -> None:
    async with supabase() as stack:
        stack.faults.order(operation="get_organization", fault=Answer(status))
        await open_the_breaker(stack)
        client_id = await stack.add()
        async with stack.running(until_empty=False):
            await stack.wait_until_snoozed(1)

            assert await stack.count("select count(*) from pgworker.breakers") == 1
            job = await stack.fetch_job(client_id)
            assert (job["attempts"], job["error_kind"], job["last_error"]) == (0, "auth", REASON)
            assert len(stack.ledger.entries) == 1


@pytest.mark.parametrize("status", [404, 402])
async def test_an_answer_about_something_else_proves_that_the_token_is_accepted(
    supabase: Open, status: int
) -> None:
    async with supabase() as stack:
        stack.faults.order(operation="get_organization", fault=Answer(status))
        await open_the_breaker(stack)
        client_id = await stack.add()
        await stack.run_until_empty()

        assert (await stack.fetch_client(client_id))["provisioning_status"] == "ready"
        assert len(stack.log.find("breaker_closed")) == 1


async def test_a_token_that_is_accepted_but_may_not_create_keeps_its_breaker_open(
    supabase: Open,
) -> None:
    async with supabase() as stack:
        stack.faults.order(operation="create_project", fault=Answer(403), times=None)
        await stack.add_many(3)
        async with stack.running(until_empty=False):
            waits = await stack.wait_until_snoozed(3)
            await stack.let_time_pass(seconds=TO_NEXT_PROBE_SECONDS)
            await stack.wait_until_snoozed(3, after=waits)

        assert len(stack.log.find("breaker_opened")) == 1
        assert stack.log.find("breaker_closed") == []


async def test_a_probe_that_fails_for_another_reason_lets_the_others_go_on(
    supabase: Open,
) -> None:
    async with supabase() as stack:
        await open_the_breaker(stack)
        failing = await stack.add(region="atlantis")
        async with stack.running(until_empty=False):
            await stack.log.wait_for("job_failed")

        assert (await stack.fetch_job(failing))["error_kind"] == "permanent"
        assert len(stack.log.find("breaker_closed")) == 1


async def test_a_login_that_may_not_create_databases_proves_nothing(server_dsn: str) -> None:
    provider = PostgresProvider(server_dsn)
    await provider.check_credential()
    await provider.aclose()

    role = "pgworker_test_powerless"
    admin = await asyncpg.connect(server_dsn)
    try:
        await admin.execute(f"drop role if exists {role}")
        await admin.execute(f"create role {role} login password 'powerless' nocreatedb")
        login = f"{role}:powerless@{server_dsn.rpartition('@')[2]}"
        for url in (f"postgresql://{login}", f"postgresql://{login}".replace(":powerless", ":no")):
            powerless = PostgresProvider(url)
            with pytest.raises(CredentialRefused) as caught:
                await powerless.check_credential()
            assert caught.value.credential == powerless.credential
            await powerless.aclose()
    finally:
        await admin.execute(f"drop role if exists {role}")
        await admin.close()


# -- parking while it closes ------------------------------------------------------------------


def parking(job: Job, credential: str = CREDENTIAL) -> list[tuple[Job, Snooze]]:
    wait = Snooze.for_credential(timedelta(seconds=36), credential=credential, error=REASON)
    return [(job, wait)]


async def is_due(jobs: JobsInTest, job: Job) -> bool:
    row = await jobs.pool.fetchval(
        "select status = 'waiting' and run_at <= now() from client_provisioning_jobs where id = $1",
        job.id,
    )
    return bool(row)


async def test_a_job_parks_while_the_breaker_is_open(jobs: JobsInTest) -> None:
    job = await jobs.add_claimed()
    await Breakers(jobs.pool).open(CREDENTIAL, REASON)
    await jobs.as_worker("any").snooze(parking(job))

    assert not await is_due(jobs, job)
    await Breakers(jobs.pool).close(CREDENTIAL)
    assert await is_due(jobs, job)


async def test_a_job_that_parks_after_the_breaker_closed_is_due_at_once(jobs: JobsInTest) -> None:
    job, other = await jobs.add_claimed(), await jobs.add_claimed()
    breakers = Breakers(jobs.pool)
    await breakers.open("supabase:another0", REASON)
    await breakers.open(CREDENTIAL, REASON)
    assert (await breakers.admit(CREDENTIAL, job)).wait is not None
    await breakers.close(CREDENTIAL)

    await jobs.as_worker("any").snooze(parking(job) + parking(other, "supabase:another0"))

    assert await is_due(jobs, job)
    assert not await is_due(jobs, other), "its own breaker is open still"


@pytest.mark.parametrize("first", ["parks", "closes"])
async def test_a_job_that_parks_in_the_moment_in_which_the_breaker_closes_is_due(
    jobs: JobsInTest, first: str
) -> None:
    """The first one's transaction is still open when the other one starts."""
    job = await jobs.add_claimed()
    await Breakers(jobs.pool).open(CREDENTIAL, REASON)

    async def park(pool: Any) -> None:
        await Jobs(pool, worker="any", lease=timedelta(seconds=30)).snooze(parking(job))

    async def close(pool: Any) -> None:
        await Breakers(pool).close(CREDENTIAL)

    one, two = (park, close) if first == "parks" else (close, park)
    async with jobs.pool.acquire() as ahead, asyncio.TaskGroup() as tasks, ahead.transaction():
        await one(ahead)
        tasks.create_task(within(two(jobs.pool)))
        await wait_for_lock(jobs.pool)

    assert await is_due(jobs, job)


# -- what is shown ----------------------------------------------------------------------------


async def test_a_breaker_that_no_job_asks_for_any_more_is_not_shown(jobs: JobsInTest) -> None:
    await Breakers(jobs.pool).open(CREDENTIAL, REASON)
    assert len(await jobs.status.list_open_breakers()) == 1
    assert (await jobs.status.get_health()).breakers_open == 1

    # The token was replaced, and the workers restarted: nothing tries the old one.
    await jobs.pool.execute("update pgworker.breakers set probe_at = now() - interval '11 min'")
    assert await jobs.status.list_open_breakers() == []
    assert (await jobs.status.get_health()).breakers_open == 0
