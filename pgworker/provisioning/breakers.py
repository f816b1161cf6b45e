"""Circuit breakers for credentials that the provider refuses; all workers share them."""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, NamedTuple

from pgworker.db.queries import load
from pgworker.errors import CredentialRefused, JobError
from pgworker.models import CREDENTIAL_RECHECK, Snooze
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

PROBE_EVERY = CREDENTIAL_RECHECK

log = get_logger()


@dataclass(frozen=True, slots=True)
class Admission:
    """Whether a phase may use a credential now.

    Attributes:
        wait: None when it may.
        open_reason: why the breaker is open, when this job is the probe that finds out whether it
            can close; else None.
    """

    wait: Snooze | None
    open_reason: str | None


# No breaker at all is open.
ADMITTED = Admission(None, None)


class Breakers:
    """One breaker for each credential, in `pgworker.breakers`."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def admit(self, credential: str, job: Job) -> Admission:
        """Return whether the job may use a credential now, and whether it does so as the probe."""
        row = await self._pool.fetchrow(
            BREAKER_QUERIES.admit, credential, job.id, job.claim_token, PROBE_EVERY
        )
        assert row is not None
        wait: timedelta | None = row["wait"]
        if wait is None:
            return Admission(None, row["reason"] if row["is_probe"] else None)
        return Admission(_park(credential, wait, row["reason"]), None)

    async def probe(self, provider: Provider, open_reason: str) -> Snooze | None:
        """Ask the provider whether it accepts its credential; return how to wait if it didn't say.

        A phase may succeed without having sent a request, so its success proves nothing.

        Args:
            provider: the one whose breaker this job probes.
            open_reason: why the breaker is open.

        Raises:
            CredentialRefused: it still refuses it.
        """
        try:
            await provider.check_credential()
        except CredentialRefused:
            raise
        except JobError as error:
            # A wait instead of an attempt: the job was only the first in the queue, and the
            # provider's trouble says nothing about its own work (docs/phases.md).
            log.info("probe_got_no_answer", credential=provider.credential, error=str(error))
            return _park(provider.credential, PROBE_EVERY, open_reason)
        return None

    async def open(self, credential: str, reason: str) -> None:
        """Park the jobs that use this credential; one probe at a time tries again."""
        newly = await self._pool.fetchval(
            BREAKER_QUERIES.open_breaker, credential, reason, PROBE_EVERY
        )
        if newly:
            log.error("breaker_opened", credential=credential, error=reason)

    async def close(self, credential: str) -> None:
        """Admit all jobs again, and wake the parked ones."""
        was_open = await self._pool.fetchval(BREAKER_QUERIES.close_breaker, credential)
        if was_open:
            log.info("breaker_closed", credential=credential)


def _park(credential: str, wait: timedelta, reason: str) -> Snooze:
    # Jitter: parked jobs must not all come back in one instant.
    delay = wait * (1 + 0.2 * random.random())  # noqa: S311  # not for cryptography
    return Snooze.for_credential(delay, credential=credential, error=reason)
