"""How long a part that lost the database waits before it tries again."""

from __future__ import annotations

from datetime import timedelta

import pytest

from pgworker.db.reconnect import SHORTEST, choose_reconnect_delay, get_longest_delay


@pytest.mark.parametrize(
    ("failures", "seconds"),
    [(1, 0.2), (2, 0.4), (3, 0.8), (5, 3.2), (6, 5), (10, 5), (1_000_000, 5)],
)
def test_the_longest_wait_doubles_with_each_failure_up_to_five_seconds(
    failures: int, seconds: float
) -> None:
    assert get_longest_delay(failures) == timedelta(seconds=seconds)


@pytest.mark.parametrize("failures", [1, 4, 50])
def test_waits_are_spread_between_the_shortest_and_the_longest(failures: int) -> None:
    delays = [choose_reconnect_delay(failures) for _ in range(1000)]

    assert SHORTEST <= min(delays) < get_longest_delay(failures) / 4 + SHORTEST
    assert get_longest_delay(failures) * 0.75 < max(delays) <= get_longest_delay(failures)
