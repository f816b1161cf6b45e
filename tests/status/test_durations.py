"""Durations, as people write them."""

from __future__ import annotations

from datetime import timedelta

import pytest

from pgworker.status.durations import format_precise_duration


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "-"),
        (0, "0.0 s"),
        (-3, "0.0 s"),
        (0.02, "<0.1 s"),
        (0.44, "0.4 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.4, "59 s"),
        (59.6, "1 min"),
        (95, "1 min 35 s"),
        (3_600, "1 h"),
        (7_260, "2 h 1 min"),
        (timedelta(days=1, hours=5, minutes=59), "1 d 5 h"),
    ],
)
def test_a_duration_is_written_in_its_two_largest_units(
    value: timedelta | float | None, words: str
) -> None:
    assert format_precise_duration(value) == words
