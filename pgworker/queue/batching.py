"""Keeps a busy worker's statements apart, so that each of them carries more."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

# What a few jobs of a busy worker may wait for others. A statement costs the server as much as ten
# more jobs in it do, and the more workers share the server, the fewer jobs are ready for each.
PACE: Final = timedelta(milliseconds=5)


class Pace:
    """The time between two statements of one kind."""

    def __init__(self) -> None:
        """Begin without a statement: the first one waits for nothing."""
        self._next_at = time.monotonic()

    async def keep(
        self,
        ready: Callable[[], int],
        most: Callable[[], int],
        *,
        is_supplied: Callable[[], bool] = lambda: False,
    ) -> None:
        """Return when the last statement is long enough ago, or when half is ready.

        Args:
            ready: jobs that the next statement would be about.
            most: as many as it could be about if it waited.
            is_supplied: whether nobody needs it yet, however long ago the last one is.
        """
        while 2 * ready() < most():
            remaining = self._next_at - time.monotonic()
            if remaining <= 0 and not is_supplied():
                return
            await asyncio.sleep(remaining if remaining > 0 else PACE.total_seconds())

    def mark(self) -> None:
        """Note that a statement has just ended."""
        self._next_at = time.monotonic() + PACE.total_seconds()
