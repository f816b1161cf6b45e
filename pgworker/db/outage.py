"""Trouble with the database, logged once when it begins and once when it is over."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from pgworker.telemetry import get_logger

if TYPE_CHECKING:
    from pgworker.errors import PgworkerError

log = get_logger()


class Outage:
    """One outage of the database for all parts of a process.

    Each part that needs the database and goes on trying reports, under a name of its own, that it
    failed and that it works again. An outage begins when the first part fails, and is over when
    all parts that failed work again: a server that takes no writes still answers some of them.
    """

    def __init__(self) -> None:
        # By name: a part that fails again and again is over with its first success.
        self._failing: set[str] = set()
        self._began_at = 0.0
        self._failures = 0
        self._newest = ""

    def failed(self, part: str, error: PgworkerError) -> None:
        """Report that a part failed and will try again; the first failure is logged."""
        if not self._failing:
            self._began_at = time.monotonic()
            self._failures = 0
            log.warning("database_unreachable", part=part, error=str(error))
        self._failing.add(part)
        self._failures += 1
        self._newest = str(error)

    def over(self, part: str) -> None:
        """Report that a part works, or has nothing to try any more; the last one is logged."""
        if part not in self._failing:
            return
        self._failing.remove(part)
        if not self._failing:
            log.info(
                "database_recovered",
                seconds=round(time.monotonic() - self._began_at, 3),
                failures=self._failures,
                newest_error=self._newest,
            )
