"""How long to wait before the database is tried again. The only formula for it."""

from __future__ import annotations

import random
from datetime import timedelta

SHORTEST = timedelta(milliseconds=50)
BASE = timedelta(milliseconds=100)
CAP = timedelta(seconds=5)


def choose_reconnect_delay(failures: int) -> timedelta:
    """Return a random wait after so many failures in a row, one at least.

    "Full jitter": all workers lose their server at the same moment, and without it all of them
    would come back at the same moment too.
    """
    longest = get_longest_delay(failures).total_seconds()
    return timedelta(seconds=random.uniform(SHORTEST.total_seconds(), longest))  # noqa: S311  # jitter


def get_longest_delay(failures: int) -> timedelta:
    """Return the longest wait after so many failures: doubled by each of them, up to the cap."""
    # Bounded: 2**failures of a server that is away for days would not fit into a timedelta.
    return min(CAP, BASE * 2.0 ** min(failures, 10))
