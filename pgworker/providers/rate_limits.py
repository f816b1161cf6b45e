"""The provider's rate limit, as its answers tell of it, and who may send the next request.

Contract: Supabase Management API v1 grants 120 requests a minute to each user, per endpoint and
per project or organisation, and tells on every answer how many are left, and for how long.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final, Protocol

from pgworker.errors import Throttled

if TYPE_CHECKING:
    from collections.abc import Callable

# The server tells whole seconds, rounded up.
_ROUNDED_BY: Final = 1.0
_SWEEP_ABOVE: Final = 1000


@dataclass(frozen=True, slots=True)
class Bucket:
    """What the server counts requests by.

    Attributes:
        credential: names the token without revealing it.
        scope: the project's ref, or the organisation's slug.
        endpoint: method and path template.
        is_crowded: many jobs use it at once. A project's buckets are used by the one job that
            holds its client.
    """

    credential: str
    scope: str
    endpoint: str
    is_crowded: bool

    def __str__(self) -> str:
        return f"{self.endpoint} ({self.scope})"


@dataclass(frozen=True, slots=True)
class RateLimit:
    """What an answer says of its bucket; None where it doesn't.

    Attributes:
        limit: requests of a window.
        remaining: what is left of them for everybody.
        reset: until the window ends, rounded up to seconds.
        is_refusal: nothing was left for this request (HTTP 429).
    """

    limit: int | None
    remaining: int | None
    reset: timedelta | None
    is_refusal: bool = False


@dataclass(frozen=True, slots=True)
class Ticket:
    """The right to send one request, now.

    Attributes:
        taken_at: seconds of the limiter's clock.
        opened_at: names the window that it was taken from, for limits shared by processes.
        end_is_known: an answer has told when that window ends.
    """

    bucket: Bucket
    taken_at: float
    opened_at: datetime | None = None
    end_is_known: bool = True


class Limiter(Protocol):
    """Decides whether a request may be sent, and learns from its answer."""

    async def take(self, bucket: Bucket) -> Ticket:
        """Return the right to send one request of this bucket.

        Raises:
            Throttled: the bucket is empty; nothing may be sent before the time it names.
            DatabaseUnreachable: who shares the limit can't be asked.
        """
        ...

    async def learn(self, ticket: Ticket, answer: RateLimit) -> None:
        """Take in what the answer to a request tells. Never fails: the answer counts."""
        ...


@dataclass(slots=True)
class Window:
    """A window of a bucket, as answers told this process.

    Attributes:
        limit: requests in it; None when no answer told.
        used: of everybody, as the newest answer told; None when it refused us: all of them.
        left: for this process, if nobody else takes any.
        ends_after, ends_before: seconds of the clock between which it ends.
        opened_at: as in the ticket of the newest answer.
        is_reported: others were told of it.
    """

    limit: int | None
    used: int | None
    left: int
    ends_after: float
    ends_before: float
    opened_at: datetime | None
    is_reported: bool = False

    @property
    def is_roomy(self) -> bool:
        """Whether more than half of it is left."""
        return self.limit is not None and self.left > self.limit // 2


class OwnLimits:
    """Limits of one process that asks nobody: it follows what its own answers tell.

    A bucket that nothing is known of is open. Times are durations of a monotonic clock.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._windows: dict[Bucket, Window] = {}
        self._sweep_at = _SWEEP_ABOVE

    def window(self, bucket: Bucket) -> Window | None:
        """Return the present window, or None when nothing is known of it."""
        window = self._windows.get(bucket)
        if window is None or self._clock() >= window.ends_before:
            return None
        return window

    async def take(self, bucket: Bucket) -> Ticket:
        """Return the right to send one request.

        Raises:
            Throttled: the bucket is empty, by the word of the server.
        """
        window = self.window(bucket)
        if window is not None:
            if window.left <= 0:
                raise used_up(bucket, timedelta(seconds=window.ends_before - self._clock()))
            window.left -= 1
        return Ticket(bucket, self._clock())

    async def learn(self, ticket: Ticket, answer: RateLimit) -> None:
        """Take in what the answer tells; one that doesn't tell everything is of no use."""
        remaining = 0 if answer.is_refusal else answer.remaining
        if answer.reset is None or remaining is None:
            return
        if answer.limit is None and not answer.is_refusal:
            return
        reset = answer.reset.total_seconds()
        # The server wrote it at some moment between the request and now.
        told = Window(
            limit=answer.limit,
            used=None if answer.limit is None else answer.limit - remaining,
            left=remaining,
            ends_after=ticket.taken_at + reset - _ROUNDED_BY,
            ends_before=self._clock() + reset,
            opened_at=ticket.opened_at,
        )
        known = self.window(ticket.bucket)
        is_older = known is not None and told.ends_before < known.ends_after
        if is_older and not answer.is_refusal:
            return  # A slow one, of a window that is over.
        if known is None or is_older or told.ends_after > known.ends_before:
            self._windows[ticket.bucket] = told
            self._sweep()
            return
        # The same window. Answers overtake each other, and requests are on their way: the
        # lower figure is the newer one.
        known.limit = told.limit or known.limit
        known.left = min(known.left, told.left)
        known.ends_before = min(known.ends_before, told.ends_before)
        known.ends_after = min(max(known.ends_after, told.ends_after), known.ends_before)
        known.opened_at = told.opened_at
        if known.used is not None:
            known.used = None if told.used is None else max(known.used, told.used)

    def _sweep(self) -> None:
        """Forget windows that are over, each time that twice as many have come together."""
        if len(self._windows) < self._sweep_at:
            return
        now = self._clock()
        self._windows = {
            bucket: window for bucket, window in self._windows.items() if now < window.ends_before
        }
        self._sweep_at = max(_SWEEP_ABOVE, 2 * len(self._windows))


def used_up(bucket: Bucket, wait: timedelta) -> Throttled:
    """Return the error for a request that wasn't sent."""
    seconds = wait.total_seconds()
    return Throttled(f"the rate limit of {bucket} is used up for {seconds:.0f} s", wait)
