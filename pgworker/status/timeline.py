"""A client's events as people read them: what happened, how long it lasted, what failed. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime, timedelta

    from pgworker.status.rows import EventRow


class EntryKind(StrEnum):
    """What an entry means for the client; a class of the console's style sheet."""

    NOTE = "note"  # a person or a worker did something
    WORK = "work"  # a worker has the job
    WAIT = "wait"  # the job continues by itself
    GOOD = "good"  # a phase has succeeded
    BAD = "bad"  # something failed


class Heading(NamedTuple):
    """What an event is called, with fields for what the event says; and its kind."""

    title: str
    kind: EntryKind


# By the event's name. An event that isn't here is newer than this table, and shown by its name.
HEADINGS = {
    "enqueued": Heading("Queued", EntryKind.NOTE),
    "claimed": Heading("Claimed by a worker", EntryKind.WORK),
    "rescued": Heading("Taken over from a worker that stopped responding", EntryKind.WORK),
    "advanced": Heading("{from_phase} is done, next is {to_phase}", EntryKind.GOOD),
    "snoozed": Heading("Waiting: {waiting_for}", EntryKind.WAIT),
    "backed_off": Heading("Attempt {attempts} failed", EntryKind.BAD),
    "failed": Heading("Failed: needs a person", EntryKind.BAD),
    "succeeded": Heading("{from_phase} is done: ready", EntryKind.GOOD),
    "released": Heading("Released by a worker that shut down", EntryKind.NOTE),
    "retried": Heading("Retried by a person", EntryKind.NOTE),
    "cancelled": Heading("Cancelled", EntryKind.NOTE),
}
SUPERSEDED = Heading("Replaced by a new job", EntryKind.NOTE)


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing that happened, and what the job did from then on.

    Attributes:
        at: when it began.
        lasted: until the next entry; None for the last one, which may still last.
        title: what happened, in words.
        phase: the job's, from then on.
        by: the worker or person that did it.
        error_kind, error: set where something failed.
        times: how often it happened in a row; a poll that finds a project not ready yet repeats.
    """

    at: datetime
    title: str
    kind: EntryKind
    phase: str | None
    by: str
    lasted: timedelta | None = None
    error_kind: str | None = None
    error: str | None = None
    times: int = 1


def build_timeline(events: Iterable[EventRow]) -> tuple[Entry, ...]:
    """Return a client's events as entries; both are ordered from the oldest to the newest."""
    entries: list[Entry] = []
    for event in events:
        entry = _make_entry(event)
        if _repeats(entries, entry):
            # Claimed, looked, and waiting for the same again: one wait, not two entries more.
            entries.pop()
            entries[-1] = replace(entries[-1], times=entries[-1].times + 1)
        else:
            entries.append(entry)
    return tuple(
        replace(entry, lasted=following.at - entry.at) for entry, following in pairwise(entries)
    ) + tuple(entries[-1:])


def _repeats(entries: list[Entry], entry: Entry) -> bool:
    """Return whether an entry continues the wait before the last claim."""
    if len(entries) < 2 or entry.kind is not EntryKind.WAIT or entry.error:
        return False
    wait, claim = entries[-2:]
    return (
        claim.kind is EntryKind.WORK
        and wait.kind is EntryKind.WAIT
        and (wait.title, wait.phase, wait.error) == (entry.title, entry.phase, None)
    )


def _make_entry(event: EventRow) -> Entry:
    """Return an event as an entry of its own."""
    title, kind = _get_heading(event)
    return Entry(
        at=event.at,
        title=title,
        # What has an error is never shown as progress.
        kind=EntryKind.BAD if event.error and kind is EntryKind.WORK else kind,
        phase=event.to_phase or event.from_phase,
        by=event.actor,
        error_kind=event.error_kind if event.error else None,
        error=event.error,
    )


def _get_heading(event: EventRow) -> Heading:
    """Return the event's heading, with its title filled in."""
    detail = event.detail or {}
    if event.event == "cancelled" and "superseded_by" in detail:
        return SUPERSEDED
    heading = HEADINGS.get(event.event)
    if heading is None:
        # Written by a newer version, or by a function for people such as reconcile.
        return Heading(event.event.replace("_", " ").capitalize(), EntryKind.NOTE)
    title = heading.title.format(
        from_phase=event.from_phase,
        to_phase=event.to_phase,
        waiting_for=detail.get("waiting_for") or "the next try",
        attempts=detail.get("attempts", "?"),
    )
    return Heading(title, heading.kind)
