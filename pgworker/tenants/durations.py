"""Durations, as a person would say them."""

from __future__ import annotations

from datetime import timedelta


def duration(value: timedelta | float | None) -> str:
    """Return a duration in its largest unit, as a person would say it."""
    if value is None:
        return "-"
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"
