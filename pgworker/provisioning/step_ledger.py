"""The steps of one job, in `pgworker.steps`."""

from __future__ import annotations

import time
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, NamedTuple

from pgworker.db.queries import load
from pgworker.errors import JobError, OutcomeUnknown
from pgworker.tenants.connection import StatementError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from uuid import UUID

    from pgworker.db.pool import Pool
    from pgworker.models import Job
    from pgworker.tenants.steps import Step


class StepQueries(NamedTuple):
    """The statements of `sql/queries/steps.sql`."""

    begin_step: str
    end_step: str
    confirm_steps: str


STEP_QUERIES = load(StepQueries, "queries/steps.sql")

# From the moment at which the lease was asked for.
MUST_LEAVE_WITHIN = timedelta(seconds=10)


class StepLedger:
    """`Steps` in the platform's database. One statement before each step, one after the last.

    That a step has happened is recorded with the beginning of the next one, with its result
    (`Ledger.record_ref`), or by `flush`. A worker that dies in between leaves the step as intended,
    and the next attempt looks outside for what it did.
    """

    def __init__(self, pool: Pool, client_id: UUID, job: Job | None) -> None:
        """Take the job that is held; None for what a person does."""
        self._pool = pool
        self._who = (client_id, job and job.id, job and job.claim_token)
        self._done: list[int] = []

    @asynccontextmanager
    async def record(
        self,
        step: Step,
        target: str,
        *,
        time_limit: timedelta | None = None,
        confirmed: Sequence[str] = (),
    ) -> AsyncIterator[float]:
        """As `Steps.record`."""
        # Before the statement: the database counts the lease from a later moment, so the deadline
        # that is derived from this one is never too late.
        asked_at = time.monotonic()
        hold_for = None if time_limit is None else MUST_LEAVE_WITHIN + time_limit
        step_id: int = await self._pool.fetchval(
            STEP_QUERIES.begin_step,
            *self._who,
            step,
            target,
            hold_for,
            self._done,
            list(confirmed),
        )
        # Only after the statement: if it failed, the next one has to record them.
        self._done = []
        try:
            yield asked_at + MUST_LEAVE_WITHIN.total_seconds()
        except OutcomeUnknown:
            # Before `JobError`, of which it is one.
            await self._end([step_id], "unknown")
            raise
        except (JobError, StatementError):
            await self._end([step_id], "refused")
            raise
        # Any other error (a bug, a cancellation, a lost lease) leaves the step as intended: it
        # isn't known whether the request was sent, so the next attempt has to look.
        self._done = [step_id]

    async def confirm(self, step: Step, targets: Sequence[str]) -> None:
        """As `Steps.confirm`."""
        await self._pool.execute(STEP_QUERIES.confirm_steps, *self._who, step, list(targets))

    def drain_completed(self) -> list[int]:
        """As `Steps.drain_completed`."""
        done, self._done = self._done, []
        return done

    async def flush(self) -> None:
        """Record what has happened and isn't recorded yet."""
        if done := self.drain_completed():
            await self._end(done, "done")

    async def _end(self, step_ids: Sequence[int], state: str) -> None:
        await self._pool.execute(STEP_QUERIES.end_step, *self._who, list(step_ids), state)
