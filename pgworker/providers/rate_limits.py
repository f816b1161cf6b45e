"""A provider's rate limit, as its responses report it, and the grant of the next request.

A provider counts requests in buckets: so many in a window of time. Supabase, for one, grants each
user 120 a minute per endpoint and project or organisation, and reports on every response how many
are left and for how long (Management API v1).
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final, Protocol

from pgworker.errors import Throttled

if TYPE_CHECKING:
    from collections.abc import Callable

# Responses report whole seconds, rounded up.
_ROUNDED_BY: Final = 1.0
_SWEEP_ABOVE: Final = 1000


@dataclass(frozen=True, slots=True)
class Bucket:
    """What the provider counts requests by.

    Attributes:
        credential: identifies the token without revealing it.
        scope: the project's ref, or the organisation's slug.
        endpoint: method and path template.
        is_contended: many jobs use it at once. A project's buckets are used only by the job that
            holds its client.
    """

    credential: str
    scope: str
    endpoint: str
    is_contended: bool

    def __str__(self) -> str:
        return f"{self.endpoint} ({self.scope})"


@dataclass(frozen=True, slots=True)
class RateLimit:
    """What a response reports about its bucket; None where it doesn't.

    Attributes:
        limit: requests of a window.
        remaining: requests that are left, for all users of the credential.
        reset: until the window ends, rounded up to seconds.
        is_refusal: none was left for this request (HTTP 429).
    """

    limit: int | None
    remaining: int | None
    reset: timedelta | None
    is_refusal: bool = False


@dataclass(frozen=True, slots=True)
class Reservation:
    """The right to send one request, now.

    Attributes:
        reserved_at: seconds of the limiter's clock.
        opened_at: identifies the window that it belongs to, for limits shared by processes.
        end_is_known: a response has reported when that window ends.
    """

    bucket: Bucket
    reserved_at: float
    opened_at: datetime | None = None
    end_is_known: bool = True


class Limiter(Protocol):
    """Decides whether a request may be sent, and follows what responses report."""

    async def reserve(self, bucket: Bucket) -> Reservation:
        """Return the right to send one request of this bucket.

        Raises:
            Throttled: the bucket is empty; no request may be sent before the time in the error.
            DatabaseUnreachable: the limit is shared, and can't be read.
        """
        ...

    async def report(self, reservation: Reservation, reported: RateLimit) -> None:
        """Apply what the response to a request reports. Never fails: the response counts."""
        ...


@dataclass(slots=True)
class Window:
    """A window of a bucket, as responses reported it to this process.

    Attributes:
        limit: requests in it; None when no response reported it.
        used: by all users of the credential, by the newest response; None when it refused us: all.
        left: for this process, if no other one sends any.
        ends_after, ends_before: seconds of the clock between which it ends.
        opened_at: of the reservation of the newest response.
        is_shared: other processes were informed of it.
    """

    limit: int | None
    used: int | None
    left: int
    ends_after: float
    ends_before: float
    opened_at: datetime | None
    is_shared: bool = False

    @property
    def is_half_free(self) -> bool:
        """Whether more than half of it is left."""
        return self.limit is not None and self.left > self.limit // 2

    def is_before(self, other: Window) -> bool:
        """Whether it ends before the other one can."""
        return self.ends_before < other.ends_after

    def merge(self, other: Window) -> None:
        """Apply another report about the same window."""
        # Responses overtake each other, and requests are under way: the lower number is newer.
        self.limit = other.limit or self.limit
        self.left = min(self.left, other.left)
        self.ends_before = min(self.ends_before, other.ends_before)
        self.ends_after = min(max(self.ends_after, other.ends_after), self.ends_before)
        self.opened_at = other.opened_at
        if self.used is not None:
            self.used = None if other.used is None else max(self.used, other.used)


class LocalLimiter:
    """Limits of one process: it follows what its own responses report, and asks no other.

    A bucket without any report is open. Times are durations of a monotonic clock.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._windows: dict[Bucket, Window] = {}
        self._sweep_at = _SWEEP_ABOVE

    def window(self, bucket: Bucket) -> Window | None:
        """Return the current window, or None when nothing is known of it."""
        window = self._windows.get(bucket)
        if window is None or self._clock() >= window.ends_before:
            return None
        return window

    async def reserve(self, bucket: Bucket) -> Reservation:
        """Return the right to send one request.

        Raises:
            Throttled: the bucket is empty, by the server's own report.
        """
        window = self.window(bucket)
        if window is not None:
            if window.left <= 0:
                raise used_up(bucket, timedelta(seconds=window.ends_before - self._clock()))
            window.left -= 1
        return Reservation(bucket, self._clock())

    async def report(self, reservation: Reservation, reported: RateLimit) -> None:
        """Apply what a response reports; an incomplete report is ignored."""
        window = _read_window(reservation, reported, now=self._clock())
        if window is None:
            return
        known = self.window(reservation.bucket)
        if known is None or known.is_before(window):
            self._replace(reservation.bucket, window)
        elif not window.is_before(known):
            known.merge(window)
        elif reported.is_refusal:
            self._replace(reservation.bucket, window)
        # Otherwise it is a slow response, of a window that is over.

    def _replace(self, bucket: Bucket, window: Window) -> None:
        self._windows[bucket] = window
        self._sweep()

    def _sweep(self) -> None:
        """Forget windows that are over, each time that the number of windows has doubled."""
        if len(self._windows) < self._sweep_at:
            return
        now = self._clock()
        self._windows = {
            bucket: window for bucket, window in self._windows.items() if now < window.ends_before
        }
        self._sweep_at = max(_SWEEP_ABOVE, 2 * len(self._windows))


def _read_window(reservation: Reservation, reported: RateLimit, *, now: float) -> Window | None:
    """Return the window that a response reports, or None when the report is incomplete."""
    remaining = 0 if reported.is_refusal else reported.remaining
    if reported.reset is None or remaining is None:
        return None
    if reported.limit is None and not reported.is_refusal:
        return None
    reset = reported.reset.total_seconds()
    # The server wrote the response at some moment between the reservation and now.
    return Window(
        limit=reported.limit,
        used=None if reported.limit is None else reported.limit - remaining,
        left=remaining,
        ends_after=reservation.reserved_at + reset - _ROUNDED_BY,
        ends_before=now + reset,
        opened_at=reservation.opened_at,
    )


def used_up(bucket: Bucket, wait: timedelta) -> Throttled:
    """Return the error for a request that wasn't sent."""
    seconds = wait.total_seconds()
    return Throttled(f"the rate limit of {bucket} is used up for {seconds:.0f} s", wait)
