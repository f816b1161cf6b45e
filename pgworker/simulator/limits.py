"""Rate limits, counted as the Management API documents them. No I/O."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

# User, scope (project ref, organization slug, or empty), operation.
Bucket = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class Grant:
    """The answer to one request.

    Attributes:
        reset_seconds: whole seconds left in the window, at least 1.
    """

    allowed: bool
    limit: int
    remaining: int
    reset_seconds: int

    @property
    def headers(self) -> dict[str, str]:
        """Return the three headers that every response carries."""
        return {
            "X-RateLimit-Limit": str(self.limit),
            "X-RateLimit-Remaining": str(self.remaining),
            "X-RateLimit-Reset": str(self.reset_seconds),
        }


class RateLimits:
    """Counts requests in fixed windows, one window for each bucket."""

    def __init__(self, limit: int, window_seconds: float, clock: Callable[[], float]) -> None:
        self._limit = limit
        self._window_seconds = window_seconds
        self._clock = clock
        self._windows: dict[Bucket, tuple[float, int]] = {}

    def take(self, bucket: Bucket) -> Grant:
        """Count a request; one that isn't allowed doesn't make the wait longer."""
        now = self._clock()
        ends_at, used = self._windows.get(bucket, (now, 0))
        if now >= ends_at:
            ends_at, used = now + self._window_seconds, 0
        allowed = used < self._limit
        if allowed:
            used += 1
        self._windows[bucket] = (ends_at, used)
        return Grant(
            allowed=allowed,
            limit=self._limit,
            remaining=self._limit - used,
            reset_seconds=max(1, math.ceil(ends_at - now)),
        )
