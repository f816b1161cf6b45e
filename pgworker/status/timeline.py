"""A client's way as a person reads it: what happened, how long it lasted, what went wrong. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import pairwise
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime, timedelta

    from pgworker.status.rows import EventRow


class Tone(StrEnum):
    """What an entry is to the client's way."""

    NOTE = "note"  # somebody did something
    WORK = "work"  # a worker is on it
    WAIT = "wait"  # it goes on by itself
    GOOD = "good"  # a phase has ended well
    BAD = "bad"  # something went wrong


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing that happened, and what the job was doing from then on.

    Attributes:
        at: when it began.
        lasted: until the next entry; None for the last one, which may still be going on.
        title: what happened, in words.
        phase: the job's, from then on.
        by: who did it.
        error_kind, error: set where something went wrong.
        times: how often it happened in a row; a poll that finds a project not ready yet repeats.
    """

    at: datetime
    title: str
    tone: Tone
    phase: str | None
    by: str
    lasted: timedelta | None = None
    error_kind: str | None = None
    error: str | None = None
    times: int = 1


def tell(events: Iterable[EventRow]) -> tuple[Entry, ...]:
    """Return a client's events (rows of `events`, oldest first) as its story, oldest first."""
    entries: list[Entry] = []
    for event in events:
        entry = _entry(event)
        if _repeats(entries, entry):
            # Claimed, and found as it was: the wait goes on.
            entries.pop()
            entries[-1] = replace(entries[-1], times=entries[-1].times + 1)
        else:
            entries.append(entry)
    return tuple(
        replace(entry, lasted=following.at - entry.at) for entry, following in pairwise(entries)
    ) + tuple(entries[-1:])


def _repeats(entries: list[Entry], entry: Entry) -> bool:
    if len(entries) < 2 or entry.tone is not Tone.WAIT or entry.error:
        return False
    wait, claim = entries[-2:]
    return (
        claim.tone is Tone.WORK
        and wait.tone is Tone.WAIT
        and (wait.title, wait.phase, wait.error) == (entry.title, entry.phase, None)
    )


def _entry(event: EventRow) -> Entry:
    title, tone = _title(event)
    error = event.error
    return Entry(
        at=event.at,
        title=title,
        tone=Tone.BAD if error and tone is Tone.WORK else tone,
        phase=event.to_phase or event.from_phase,
        by=event.actor,
        error_kind=event.error_kind if error else None,
        error=error,
    )


def _title(event: EventRow) -> tuple[str, Tone]:
    detail: dict[str, Any] = event.detail or {}
    match event.event:
        case "enqueued":
            return "Put in line", Tone.NOTE
        case "claimed":
            return "A worker took it", Tone.WORK
        case "rescued":
            return "Taken over from a worker that fell silent", Tone.WORK
        case "advanced":
            return f"{event.from_phase} is done, on to {event.to_phase}", Tone.GOOD
        case "snoozed":
            return f"Waits: {detail.get('waiting_for') or 'its time'}", Tone.WAIT
        case "backed_off":
            return f"Try {detail.get('attempts', '')} failed".replace("  ", " "), Tone.BAD
        case "failed":
            return "Failed: it needs a person", Tone.BAD
        case "succeeded":
            return f"{event.from_phase} is done: ready", Tone.GOOD
        case "released":
            return "Given back by a worker that left", Tone.NOTE
        case "retried":
            return "Put back in line by a person", Tone.NOTE
        case "cancelled" if "superseded_by" in detail:
            return "Replaced by a new job", Tone.NOTE
        case "cancelled":
            return "Cancelled", Tone.NOTE
        case other:
            return str(other).replace("_", " ").capitalize(), Tone.NOTE
