"""The ledger of steps: before and after each effect outside, by the worker that holds the job."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING
from uuid import UUID

import pytest

from pgworker.db.pool import open_pool
from pgworker.errors import LeaseLost, OutcomeUnknown, Permanent
from pgworker.models import Job
from pgworker.provisioning.step_ledger import StepLedger
from pgworker.queue.jobs import Jobs
from pgworker.tenants.connection import StatementError
from pgworker.tenants.steps import Step

if TYPE_CHECKING:
    from pgworker.db.pool import Pool

LEASE = timedelta(seconds=30)


@dataclass
class Held:
    """A client whose job is claimed, and the ledger of its steps."""

    pool: Pool
    client_id: UUID
    job: Job
    steps: StepLedger

    async def lose_job(self) -> None:
        await self.pool.execute(
            "update client_provisioning_jobs set lease_expires_at = now() - interval '1 s'"
        )
        (taken,) = await Jobs(self.pool, worker="fast", lease=LEASE).claim(1, ["provision"])
        assert taken.claim_token == self.job.claim_token + 1

    async def rows(self) -> list[tuple[str, str, str]]:
        rows = await self.pool.fetch("select step, target, state from pgworker.steps order by id")
        return [tuple(row) for row in rows]


@pytest.fixture
async def held(database: str) -> AsyncIterator[Held]:
    async with open_pool(database, max_size=2) as pool:
        client_id = await pool.fetchval(
            "insert into clients (name, auto_provision) values ('Acme', true) returning id"
        )
        (job,) = await Jobs(pool, worker="slow", lease=LEASE).claim(1, ["provision"])
        yield Held(pool, client_id, job, StepLedger(pool, client_id, job))


async def test_a_step_is_recorded_before_it_is_taken_and_after_it_has_happened(held: Held) -> None:
    async with held.steps.record(Step.CREATE_PROJECT, "a"):
        assert await held.rows() == [("create_project", "a", "intended")]
    await held.steps.flush()

    assert await held.rows() == [("create_project", "a", "done")]


async def test_the_start_of_the_next_step_records_that_the_last_one_has_happened(
    held: Held,
) -> None:
    async with held.steps.record(Step.APPLY_MIGRATION, "1"):
        pass
    async with held.steps.record(Step.APPLY_MIGRATION, "2"):
        assert await held.rows() == [
            ("apply_migration", "1", "done"),
            ("apply_migration", "2", "intended"),
        ]


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (OutcomeUnknown("timed out"), "unknown"),
        (Permanent("no"), "refused"),
        (StatementError("no", sqlstate="42601"), "refused"),
        (RuntimeError("a bug"), "intended"),
        (LeaseLost("too late"), "intended"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
async def test_a_step_records_how_it_ended(held: Held, error: Exception, state: str) -> None:
    with pytest.raises(type(error)):
        async with held.steps.record(Step.CREATE_PROJECT, "a"):
            raise error

    assert await held.rows() == [("create_project", "a", state)]


async def test_a_worker_that_lost_the_job_gets_lease_lost_instead_of_taking_the_step(
    held: Held,
) -> None:
    await held.lose_job()
    taken = False

    with pytest.raises(LeaseLost):
        async with held.steps.record(Step.CREATE_PROJECT, "a"):
            taken = True

    assert not taken
    assert await held.rows() == []


async def test_a_worker_that_loses_the_job_during_a_step_leaves_it_as_intended(held: Held) -> None:
    async with held.steps.record(Step.CREATE_PROJECT, "a"):
        await held.lose_job()
    with pytest.raises(LeaseLost):
        await held.steps.flush()
    with pytest.raises(LeaseLost):
        await held.steps.confirm(Step.CREATE_PROJECT, ["a"])

    assert await held.rows() == [("create_project", "a", "intended")]


@pytest.mark.parametrize("died", [True, False], ids=["died", "lost its answer"])
async def test_a_step_without_an_outcome_is_done_once_a_look_has_found_it(
    held: Held, died: bool
) -> None:
    with pytest.raises((RuntimeError, OutcomeUnknown)):
        async with held.steps.record(Step.CREATE_PROJECT, "a"):
            raise RuntimeError if died else OutcomeUnknown("timed out")

    await held.steps.confirm(Step.CREATE_PROJECT, ["b", "a"])

    assert await held.rows() == [("create_project", "a", "done")]


async def test_the_start_of_a_step_records_what_a_look_has_found_before(held: Held) -> None:
    for target in ("1", "2"):
        with pytest.raises(OutcomeUnknown):
            async with held.steps.record(Step.APPLY_MIGRATION, target):
                raise OutcomeUnknown("timed out")

    async with held.steps.record(Step.APPLY_MIGRATION, "2", confirmed=["0", "1"]):
        assert await held.rows() == [
            ("apply_migration", "1", "done"),
            ("apply_migration", "2", "repeated"),
            ("apply_migration", "2", "intended"),
        ]


async def test_a_step_that_is_taken_again_shows_that_the_first_one_was_not_found(
    held: Held,
) -> None:
    for target in ("a", "b", "a"):
        with pytest.raises(OutcomeUnknown):
            async with held.steps.record(Step.CREATE_PROJECT, target):
                raise OutcomeUnknown("timed out")

    assert await held.rows() == [
        ("create_project", "a", "repeated"),
        ("create_project", "b", "unknown"),
        ("create_project", "a", "unknown"),
    ]


async def test_the_recorded_end_of_a_step_is_never_changed(held: Held) -> None:
    with pytest.raises(Permanent):
        async with held.steps.record(Step.CREATE_PROJECT, "a"):
            raise Permanent("no")

    await held.steps.confirm(Step.CREATE_PROJECT, ["a"])

    assert await held.rows() == [("create_project", "a", "refused")]


@pytest.mark.parametrize("limit", [timedelta(seconds=75), timedelta(seconds=1)])
async def test_the_lease_outlasts_a_step_whose_request_is_sent_in_time(
    held: Held, limit: timedelta
) -> None:
    async with held.steps.record(Step.CREATE_PROJECT, "a", time_limit=limit) as latest:
        assert time.monotonic() < latest
        left = await held.pool.fetchval(
            "select lease_expires_at - now() from client_provisioning_jobs"
        )
        lease_is_over = time.monotonic() + left.total_seconds()

    assert latest + limit.total_seconds() <= lease_is_over


async def test_a_persons_step_needs_no_job_and_touches_no_other_clients(held: Held) -> None:
    other = await held.pool.fetchval("insert into clients (name) values ('Other') returning id")
    with pytest.raises(OutcomeUnknown):
        async with held.steps.record(Step.APPLY_MIGRATION, "1"):
            raise OutcomeUnknown("timed out")

    persons = StepLedger(held.pool, other, None)
    await persons.confirm(Step.APPLY_MIGRATION, ["1"])
    async with persons.record(Step.APPLY_MIGRATION, "1"):
        pass
    await persons.flush()

    assert await held.rows() == [
        ("apply_migration", "1", "unknown"),
        ("apply_migration", "1", "done"),
    ]
