"""Limits how often an address may try to sign in. Forgets: its memory is bounded."""

from __future__ import annotations

import ipaddress
import math
import time
from collections import OrderedDict, deque
from datetime import timedelta
from http import HTTPStatus
from typing import TYPE_CHECKING

from pgworker.api.problems import Refused

if TYPE_CHECKING:
    from collections.abc import Callable

ATTEMPTS = 10
WINDOW = timedelta(minutes=5)
ADDRESSES = 10_000


class SignInAttempts:
    """Counts attempts per address: ten in five minutes."""

    def __init__(
        self,
        *,
        attempts: int = ATTEMPTS,
        window: timedelta = WINDOW,
        addresses: int = ADDRESSES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._attempts = attempts
        self._window = window.total_seconds()
        self._addresses = addresses
        self._clock = clock
        # The one that tried the longest ago comes first, and is forgotten first.
        self._made: OrderedDict[str, deque[float]] = OrderedDict()

    def take(self, address: str) -> None:
        """Count an attempt from an address.

        Raises:
            Refused: 429, with the time to wait.
        """
        now = self._clock()
        made = self._made.setdefault(_network(address), deque(maxlen=self._attempts))
        self._made.move_to_end(_network(address))
        if len(self._made) > self._addresses:
            self._made.popitem(last=False)
        while made and made[0] <= now - self._window:
            made.popleft()
        if len(made) >= self._attempts:
            wait = math.ceil(made[0] + self._window - now)
            raise Refused(
                HTTPStatus.TOO_MANY_REQUESTS,
                f"too many attempts to sign in from here: wait {wait} s",
                headers={"Retry-After": str(wait)},
            )
        made.append(now)

    def forget(self, address: str) -> None:
        """Begin anew for an address: who got in isn't guessing."""
        self._made.pop(_network(address), None)


def _network(address: str) -> str:
    """Return what stands for one person: an IPv4 address, or the /64 of an IPv6 one."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    return str(ipaddress.ip_network((int(parsed), 64), strict=False))
