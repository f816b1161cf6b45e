"""Lets a busy worker send fewer statements that carry more jobs each."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

# How long the first jobs of a batch wait for more. A statement costs the server as much as ten
# more jobs in it do, and the more workers share the server, the fewer jobs are ready for each.
WINDOW: Final = timedelta(milliseconds=5)


class BatchWindow:
    """The time between two statements of one kind, in which jobs collect for the second one.

    An idle worker waits for nothing: a statement that comes later than `WINDOW` after the one
    before it is sent at once, and so is the first one.
    """

    def __init__(self) -> None:
        """Begin with a window that is over."""
        self._ends_at = time.monotonic()

    async def wait(
        self,
        ready: Callable[[], int],
        limit: Callable[[], int],
        *,
        can_wait: Callable[[], bool] = lambda: False,
    ) -> None:
        """Return when the next statement should be sent.

        That is as soon as half of the jobs that it could carry are ready; else when the window is
        over and nothing allows it to wait longer. All three are asked again after each sleep.

        Args:
            ready: how many jobs the statement would carry now.
            limit: how many it could carry at most.
            can_wait: whether the statement isn't needed yet, although the window is over.
        """
        while 2 * ready() < limit():
            remaining = self._ends_at - time.monotonic()
            if remaining <= 0 and not can_wait():
                return
            await asyncio.sleep(remaining if remaining > 0 else WINDOW.total_seconds())

    def restart(self) -> None:
        """Begin a window: a statement has just ended."""
        self._ends_at = time.monotonic() + WINDOW.total_seconds()
