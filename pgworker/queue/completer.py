"""Stores what became of jobs, many with one statement."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar, cast

from pgworker.errors import DatabaseUnreachable, LeaseLost
from pgworker.models import Advance, Complete, Snooze
from pgworker.queue.batching import Pace

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from pgworker.db.outage import Outage
    from pgworker.models import Job
    from pgworker.queue.jobs import Jobs

Batched = Advance | Complete | Snooze
T = TypeVar("T", Advance, Complete, Snooze)

RETRY_AFTER = timedelta(seconds=0.5)
# A statement for more would keep the slots of all for as long as it takes for all.
STORED_AT_ONCE = 500


@dataclass(slots=True)
class Settlement:
    """A transition on its way into the database.

    Attributes:
        then: called once it is committed, with None; or, with the error, once it is refused,
            because somebody else holds the job now and nothing was written.
        is_dropped: nobody waits for it any more; it isn't tried again, and `then` isn't called.
    """

    job: Job
    transition: Batched
    then: Callable[[LeaseLost | None], None]
    is_dropped: bool = False


class Settling:
    """Collects transitions while a statement is under way; the next one carries them all.

    So a lone transition is stored at once, and a crowd costs one round trip and one commit
    for each kind of transition. While most of a crowd is still on its way, the first of them
    wait for a moment.
    """

    def __init__(self, jobs: Jobs, outage: Outage, *, in_hand: Callable[[], int]) -> None:
        """Take the queue; `in_hand` tells how many jobs may hand something in."""
        self._jobs = jobs
        self._outage = outage
        self._in_hand = in_hand
        self._pace = Pace()
        self._settlements: list[Settlement] = []
        self._filled = asyncio.Event()

    def hand_in(
        self, job: Job, transition: Batched, then: Callable[[LeaseLost | None], None]
    ) -> Settlement:
        """Have the transition stored; return at once."""
        settlement = Settlement(job, transition, then)
        self._settlements.append(settlement)
        self._filled.set()
        return settlement

    async def store(self, job: Job, transition: Batched) -> None:
        """Return when the transition is committed.

        Raises:
            LeaseLost: somebody else holds the job now; nothing was written.
        """
        stored: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def then(error: LeaseLost | None) -> None:
            if error is None:
                stored.set_result(None)
            else:
                stored.set_exception(error)

        settlement = self.hand_in(job, transition, then)
        try:
            await stored
        finally:
            settlement.is_dropped = True

    async def run(self) -> None:
        """Store what is handed in, until cancelled."""
        while True:
            await self._filled.wait()
            await self._pace.keep(
                self._settlements.__len__, lambda: min(self._in_hand(), STORED_AT_ONCE)
            )
            self._filled.clear()
            handed_in = self._settlements[:STORED_AT_ONCE]
            del self._settlements[:STORED_AT_ONCE]
            # Who dropped one has lost its lease, or is about to release the job.
            handed_in = [each for each in handed_in if not each.is_dropped]
            stored = [
                await self._store_kind(handed_in, Complete, self._jobs.complete),
                await self._store_kind(handed_in, Advance, self._jobs.advance),
                await self._store_kind(handed_in, Snooze, self._jobs.snooze),
            ]
            self._pace.mark()
            if not self._settlements:
                self._outage.over("settling")
            elif all(stored):
                self._filled.set()

    async def _store_kind(
        self,
        handed_in: Sequence[Settlement],
        kind: type[T],
        statement: Callable[[Sequence[tuple[Job, T]]], Awaitable[set[int]]],
    ) -> bool:
        """Store those of one kind; return False when they must be tried again, later."""
        chosen = [each for each in handed_in if isinstance(each.transition, kind)]
        if not chosen:
            return True
        steps = [(each.job, each.transition) for each in chosen]
        try:
            refused = await statement(cast("Sequence[tuple[Job, T]]", steps))
        except DatabaseUnreachable as error:
            # Kept, and tried again: the work is done, and the lease may outlast the outage.
            # Whoever's lease doesn't is stopped by its worker, which drops it.
            self._outage.failed("settling", error)
            self._settlements.extend(chosen)
            asyncio.get_running_loop().call_later(RETRY_AFTER.total_seconds(), self._filled.set)
            return False
        for each in chosen:
            if each.is_dropped:
                continue
            is_refused = each.job.id in refused
            each.then(
                LeaseLost(f"job {each.job.id} is held by somebody else now") if is_refused else None
            )
        return True
