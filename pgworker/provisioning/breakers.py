"""Credentials that the provider refuses, known to all workers."""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, NamedTuple

from pgworker.db.queries import load
from pgworker.errors import CredentialRefused, JobError
from pgworker.models import ErrorKind, Snooze
from pgworker.telemetry import get_logger

if TYPE_CHECKING:
    from pgworker.db.pool import Pool
    from pgworker.models import Job
    from pgworker.providers.base import Provider


class BreakerQueries(NamedTuple):
    """The statements of `sql/queries/breakers.sql`."""

    admit: str
    open_breaker: str
    close_breaker: str


BREAKER_QUERIES = load(BreakerQueries, "queries/breakers.sql")

PROBE_EVERY = timedelta(seconds=30)

log = get_logger()


@dataclass(frozen=True, slots=True)
class Admission:
    """Whether a phase may use a credential now.

    Attributes:
        wait: None when it may.
        doubt: why the breaker is open, for the one that tries whether it can close; else None.
    """

    wait: Snooze | None
    doubt: str | None


# No credential at all is refused.
ADMITTED = Admission(None, None)


class Breakers:
    """One breaker for each credential, in `pgworker.breakers`."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def admit(self, credential: str, job: Job) -> Admission:
        """Ask before a job uses a credential."""
        row = await self._pool.fetchrow(
            BREAKER_QUERIES.admit, credential, job.id, job.claim_token, PROBE_EVERY
        )
        assert row is not None
        wait: timedelta | None = row["wait"]
        if wait is None:
            return Admission(None, row["reason"] if row["is_probe"] else None)
        return Admission(_parked(credential, wait, row["reason"]), None)

    async def prove(self, provider: Provider, doubt: str) -> Snooze | None:
        """Let the provider say whether it takes its credential; return how to wait otherwise.

        A phase may end well without ever having asked, so its end proves nothing.

        Args:
            provider: whose breaker this job is the probe of.
            doubt: why the breaker is open.

        Raises:
            CredentialRefused: it still doesn't.
        """
        try:
            await provider.check_credential()
        except CredentialRefused:
            raise
        except JobError as error:
            # It didn't say. That is no attempt of this job's, which only went first.
            log.info("probe_unanswered", credential=provider.credential, error=str(error))
            return _parked(provider.credential, PROBE_EVERY, doubt)
        return None

    async def open(self, credential: str, reason: str) -> None:
        """Park the users of this credential; one probe at a time tries again."""
        newly = await self._pool.fetchval(
            BREAKER_QUERIES.open_breaker, credential, reason, PROBE_EVERY
        )
        if newly:
            log.error("breaker_opened", credential=credential, error=reason)

    async def close(self, credential: str) -> None:
        """Let everybody through again, and wake those who are parked."""
        was_open = await self._pool.fetchval(BREAKER_QUERIES.close_breaker, credential)
        if was_open:
            log.info("breaker_closed", credential=credential)


def _parked(credential: str, wait: timedelta, reason: str) -> Snooze:
    return Snooze(
        # Spread, so that a parked crowd doesn't come back in one instant.
        wait * (1 + 0.2 * random.random()),  # noqa: S311  # jitter
        reason="a credential that the provider accepts",
        error_kind=ErrorKind.AUTH,
        error=reason,
        credential=credential,
    )
