"""Durations as people write them, short enough for a narrow column: `4 min`, `in 2 h`.

Not by humanize: `naturaldelta` writes `4 minutes` and `an hour`, which is too wide for tables of 80
columns, and console.js must keep the same words up to date in the browser.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta


def format_duration(value: timedelta | float | None) -> str:
    """Return a duration (seconds, if it is a number) in its largest unit; `-` for None."""
    if value is None:
        return "-"
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    # From two of a unit on: `1 h` for 89 minutes would be too coarse.
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"


def format_relative(at: datetime | None) -> str:
    """Return how long until, or since, a time; `-` for None."""
    if at is None:
        return "-"
    ahead = at - datetime.now(UTC)
    if ahead > timedelta(0):
        return f"in {format_duration(ahead)}"
    return f"{format_duration(-ahead)} ago"


def format_precise_duration(value: timedelta | float | None) -> str:
    """Return a duration in its two largest units: for steps that are compared with each other."""
    if value is None:
        return "-"
    seconds = max(value.total_seconds() if isinstance(value, timedelta) else value, 0)
    if 0 < seconds < 0.05:
        return "<0.1 s"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for (unit, size), (lower, lower_size) in (
        (("d", 86_400), ("h", 3_600)),
        (("h", 3_600), ("min", 60)),
        (("min", 60), ("s", 1)),
    ):
        if whole >= size:
            rest = whole % size // lower_size
            return f"{whole // size} {unit}" + (f" {rest} {lower}" if rest else "")
    return f"{whole} s"
