"""Durations, as a person would say them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta


def duration(value: timedelta | float | None) -> str:
    """Return a duration in its largest unit, as a person would say it."""
    if value is None:
        return "-"
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"


def relative(at: datetime | None) -> str:
    """Return how long until, or since, a time."""
    if at is None:
        return "-"
    ahead = at - datetime.now(UTC)
    return f"in {duration(ahead)}" if ahead > timedelta(0) else f"{duration(-ahead)} ago"


def precise_duration(value: timedelta | float | None) -> str:
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
