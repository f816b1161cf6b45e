"""What a phase must know before it starts, read for many jobs with one statement."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final, NamedTuple

from pgworker.db.queries import load
from pgworker.errors import DatabaseUnreachable, Permanent
from pgworker.models import Client, parse_client_status

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pgworker.db.pool import Pool
    from pgworker.models import Job


class PrefetchQueries(NamedTuple):
    """The statements of `sql/queries/prefetch.sql`."""

    find_phase_inputs: str


PREFETCH_QUERIES = load(PrefetchQueries, "queries/prefetch.sql")

# A job that was claimed with many others may have to wait until a slot is free for it.
FRESH_FOR: Final = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class PhaseInput:
    """What is known of a job's client when its phase starts.

    Attributes:
        client: the row of `clients`.
        provider: name of the provider of its tenant; None while no intent is recorded.
        any_breaker_is_open: some credential is refused; whether it is this job's is a second query.
    """

    client: Client
    provider: str | None
    any_breaker_is_open: bool


@dataclass(frozen=True, slots=True)
class _Prefetched:
    job: Job
    phase_input: PhaseInput
    fresh_until: float  # time.monotonic()


class PhaseInputLoader:
    """Reads phase inputs, in batches.

    Those of jobs that were just claimed are prefetched with one statement. The others are
    collected: while a statement runs, further calls wait, and the next statement reads for all of
    them. So a lone job is served at once, and a crowd costs one statement for each batch.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._prefetched: dict[int, _Prefetched] = {}
        self._pending: dict[asyncio.Future[PhaseInput], Job] = {}
        self._one_at_a_time = asyncio.Lock()

    async def prefetch(self, jobs: Sequence[Job]) -> None:
        """Read the inputs of jobs that are about to start."""
        try:
            found = await self._read(jobs)
        except DatabaseUnreachable:
            # `get` asks again for each of them, and raises if it still can't be read.
            return
        now = time.monotonic()
        # A job that was lost before it started never calls `get`: its entry goes when it is stale.
        fresh = {each.job.id: each for each in self._prefetched.values() if each.fresh_until > now}
        fresh_until = now + FRESH_FOR.total_seconds()
        for job in jobs:
            if job.id in found:
                fresh[job.id] = _Prefetched(job, found[job.id], fresh_until)
        self._prefetched = fresh

    async def get(self, job: Job) -> PhaseInput:
        """Return the job's input; a prefetched one serves once.

        Raises:
            DatabaseUnreachable: it can't be read now.
            Permanent: the client is there, and we may not see it.
        """
        known = self._prefetched.pop(job.id, None)
        # By identity: another claim, or another phase, is another `Job`.
        if known is not None and known.job is job and time.monotonic() < known.fresh_until:
            return known.phase_input
        result: asyncio.Future[PhaseInput] = asyncio.get_running_loop().create_future()
        self._pending[result] = job
        try:
            async with self._one_at_a_time:
                # The task that held the lock before us may have read our input, too.
                if not result.done():
                    await self._read_pending()
        finally:
            self._pending.pop(result, None)
        return result.result()

    async def _read_pending(self) -> None:
        pending = dict(self._pending)
        found = await self._read(list(pending.values()))
        for result, job in pending.items():
            # One that is done was cancelled meanwhile, with the task that waited for it.
            if result.done():
                continue
            if job.id in found:
                result.set_result(found[job.id])
            else:
                result.set_exception(
                    Permanent(
                        f"client {job.client_id} is hidden from the worker's role by row level "
                        "security: pgworker doctor names the policy"
                    )
                )

    async def _read(self, jobs: Sequence[Job]) -> dict[int, PhaseInput]:
        """Return one input for each job whose client we may see.

        All are there: a client can't be deleted while it has a job.
        """
        rows = await self._pool.fetch(
            PREFETCH_QUERIES.find_phase_inputs,
            [job.id for job in jobs],
            [job.client_id for job in jobs],
        )
        # Unpacked in the order of the columns in `find_phase_inputs`.
        return {
            job_id: PhaseInput(
                Client(client_id, name, parse_client_status(status), *others),
                provider,
                any_breaker_is_open,
            )
            for job_id, client_id, name, status, *others, provider, any_breaker_is_open in rows
        }
