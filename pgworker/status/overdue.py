"""Finds what is older than it should be, so that nothing waits for ever with no one told."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

from pgworker.db.queries import load
from pgworker.status.rows import fetch_rows

if TYPE_CHECKING:
    from pgworker.db.pool import Pool
    from pgworker.settings import Settings

# A free worker takes a due job within milliseconds, at worst at its next poll.
DUE_TOO_LONG = timedelta(minutes=1)


class LatenessQueries(NamedTuple):
    """The statements of `sql/queries/lateness.sql`."""

    late: str


LATENESS_QUERIES = load(LatenessQueries, "queries/lateness.sql")


class LateKind(StrEnum):
    """What can be late; in the order in which to look at it."""

    ABANDONED = "abandoned"  # a client shows a phase and has no job
    PHASE = "phase"  # a job is in its phase for longer than a project may take
    DUE = "due"  # a job is due and nobody takes it
    LEFT_BEHIND = "left_behind"  # a lease is over and nobody took the job over
    UNANSWERED = "unanswered"  # a create without an outcome that nobody looks for
    SILENT_WORKER = "silent_worker"  # it didn't sign off
    FAILED = "failed"  # a job needs a person


# What is so, and what to do about it.
LATE = {
    LateKind.ABANDONED: (
        "clients that show a phase and have no job",
        "nobody works for them; in SQL: select pgworker.enqueue('CLIENT ID');",
    ),
    LateKind.PHASE: (
        "jobs in one phase for longer than PGWORKER_PROJECT_TIMEOUT_SECONDS",
        "pgworker why CLIENT tells what it waits for",
    ),
    LateKind.DUE: ("jobs due and not taken", "start more workers: pgworker run"),
    LateKind.LEFT_BEHIND: (
        "jobs left behind by a worker",
        "a live worker takes them over at once: is there one?",
    ),
    LateKind.UNANSWERED: (
        "creates without an answer that nobody looks for",
        "see whether they made something: pgworker reconcile",
    ),
    LateKind.SILENT_WORKER: (
        "workers fell silent",
        "if killed, nothing: others take their jobs over; else see whether they reach the database",
    ),
    LateKind.FAILED: ("failed jobs", "see why: pgworker jobs --failed"),
}


class OverdueRow(NamedTuple):
    """A row of the statement `late`: how many of a kind there are, and the oldest one."""

    kind: str
    number: int
    oldest_seconds: float | None
    oldest: str


@dataclass(frozen=True, slots=True)
class Late:
    """Things of one kind that are late.

    Attributes:
        age: of the oldest one.
        oldest: that one, in words.
    """

    kind: LateKind
    number: int
    age: timedelta
    oldest: str


async def find_late(pool: Pool, settings: Settings) -> tuple[Late, ...]:
    """Return what is late, one for each kind that there is."""
    rows = await fetch_rows(
        pool,
        OverdueRow,
        LATENESS_QUERIES.late,
        settings.project_timeout,
        DUE_TOO_LONG,
        settings.create_lookup,
    )
    found = (
        Late(LateKind(row.kind), row.number, timedelta(seconds=row.oldest_seconds or 0), row.oldest)
        for row in rows
    )
    order = list(LateKind)
    return tuple(sorted(found, key=lambda late: order.index(late.kind)))
