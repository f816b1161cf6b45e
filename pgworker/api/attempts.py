"""Limits how often an address may try to sign in.

A moving window by hand, because it needs a bound that `limits` doesn't have: an attacker with a
network of addresses must not fill our memory, so the address that tried the longest ago is
forgotten when there are too many.
"""

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
    """Counts attempts by address: ten in five minutes by default."""

    def __init__(
        self,
        *,
        attempts: int = ATTEMPTS,
        window: timedelta = WINDOW,
        addresses: int = ADDRESSES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Allow so many attempts of an address in a window of time.

        Args:
            attempts: how many.
            window: how long an attempt counts; the window moves with the time.
            addresses: how many are remembered at most.
            clock: returns seconds; of a test, usually the process's.
        """
        self._attempts = attempts
        self._window = window.total_seconds()
        self._addresses = addresses
        self._clock = clock
        # Ordered by the last attempt, oldest first: that one is forgotten first.
        self._times: OrderedDict[str, deque[float]] = OrderedDict()

    def count(self, address: str) -> None:
        """Count an attempt from an address.

        Raises:
            Refused: 429, with the time to wait.
        """
        now, network = self._clock(), _get_network(address)
        times = self._times.setdefault(network, deque(maxlen=self._attempts))
        self._times.move_to_end(network)
        if len(self._times) > self._addresses:
            self._times.popitem(last=False)
        while times and times[0] <= now - self._window:
            times.popleft()
        if len(times) >= self._attempts:
            wait = math.ceil(times[0] + self._window - now)
            raise Refused(
                HTTPStatus.TOO_MANY_REQUESTS,
                f"too many attempts to sign in from this address: wait {wait} s",
                headers={"Retry-After": str(wait)},
            )
        times.append(now)

    def reset(self, address: str) -> None:
        """Forget the attempts of an address from which a person has signed in."""
        self._times.pop(_get_network(address), None)


def _get_network(address: str) -> str:
    """Return what stands for one person: an IPv4 address, or the /64 of an IPv6 one.

    A provider gives a customer at least a /64 (RFC 6177), in which every address is theirs.
    """
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    return str(ipaddress.ip_network((int(parsed), 64), strict=False))
