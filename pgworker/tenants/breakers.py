"""Credentials that the provider refuses, known to all workers."""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from pgworker.db.sqlstate import translated
from pgworker.models import ErrorKind, Snooze
from pgworker.telemetry import get_logger
from pgworker.tenants.ledger import TENANT_QUERIES

if TYPE_CHECKING:
    from pgworker.db.pool import Pool

PROBE_EVERY = timedelta(seconds=30)

log = get_logger()


@dataclass(frozen=True, slots=True)
class Admission:
    """Whether a phase may use a credential now.

    Attributes:
        wait: None when it may.
        is_probe: it is the one that tries whether an open breaker can close.
    """

    wait: Snooze | None
    is_probe: bool


class Breakers:
    """One breaker for each credential, in `pgworker.breakers`."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def admit(self, credential: str) -> Admission:
        """Ask before a credential is used."""
        with translated():
            row = await self._pool.fetchrow(TENANT_QUERIES.admit, credential, PROBE_EVERY)
        assert row is not None
        wait: timedelta | None = row["wait"]
        if wait is None:
            return Admission(None, row["is_probe"])
        snooze = Snooze(
            # Spread, so that a parked crowd doesn't come back in one instant.
            wait * (1 + 0.2 * random.random()),  # noqa: S311  # jitter
            reason="a credential that the provider accepts",
            error_kind=ErrorKind.AUTH,
            error=row["reason"],
        )
        return Admission(snooze, is_probe=False)

    async def open(self, credential: str, reason: str) -> None:
        """Park the users of this credential; one probe at a time tries again."""
        with translated():
            newly = await self._pool.fetchval(
                TENANT_QUERIES.open_breaker, credential, reason, PROBE_EVERY
            )
        if newly:
            log.error("breaker_opened", credential=credential, error=reason)

    async def close(self, credential: str) -> None:
        """Let everybody through again, and wake those who are parked."""
        with translated():
            was_open = await self._pool.fetchval(TENANT_QUERIES.close_breaker, credential)
        if was_open:
            log.info("breaker_closed", credential=credential)
