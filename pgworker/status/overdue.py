"""Finds what is older than it should be, so that nothing waits for ever unnoticed."""

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

# A free worker claims a due job within milliseconds, at worst at its next poll.
DUE_TOO_LONG = timedelta(minutes=1)


class OverdueQueries(NamedTuple):
    """The statements of `sql/queries/overdue.sql`."""

    overdue: str


OVERDUE_QUERIES = load(OverdueQueries, "queries/overdue.sql")


class OverdueKind(StrEnum):
    """What can be overdue; in the order in which to look at it."""

    ABANDONED = "abandoned"  # a client shows a phase and has no job
    PHASE = "phase"  # a job is in its phase for longer than a project may take
    DUE = "due"  # a job is due and no worker claims it
    LEASE_EXPIRED = "lease_expired"  # no worker has taken over a job whose lease ran out
    UNCONFIRMED = "unconfirmed"  # a create without an outcome, and no job that looks for it
    WORKER_LOST = "worker_lost"  # a worker stopped sending heartbeats without signing off
    FAILED = "failed"  # a job needs a person


class Advice(NamedTuple):
    """What is overdue, and what a person does about it."""

    subject: str
    remedy: str


ADVICE = {
    OverdueKind.ABANDONED: Advice(
        "clients that show a phase but have no job",
        "enqueue one for each, in SQL: select pgworker.enqueue('CLIENT ID');",
    ),
    OverdueKind.PHASE: Advice(
        "jobs in one phase for longer than PGWORKER_PROJECT_TIMEOUT_SECONDS",
        "see what they wait for: pgworker why CLIENT",
    ),
    OverdueKind.DUE: Advice("due jobs that no worker has claimed", "start workers: pgworker run"),
    OverdueKind.LEASE_EXPIRED: Advice(
        "jobs whose lease has expired",
        "check that a worker is alive: it takes them over at once",
    ),
    OverdueKind.UNCONFIRMED: Advice(
        "creates with an unknown outcome that no job looks for",
        "see whether they created something: pgworker reconcile",
    ),
    OverdueKind.WORKER_LOST: Advice(
        "workers that stopped sending heartbeats",
        "nothing if they were killed: others take over their jobs; "
        "otherwise check that they reach the database",
    ),
    OverdueKind.FAILED: Advice("failed jobs", "see why: pgworker jobs --failed"),
}


class OverdueRow(NamedTuple):
    """A row of the statement: how many things of a kind are overdue, and the oldest one."""

    kind: str
    number: int
    oldest_seconds: float | None
    oldest: str


@dataclass(frozen=True, slots=True)
class Overdue:
    """Things of one kind that are overdue.

    Attributes:
        age: of the oldest one.
        oldest: that one, in words.
    """

    kind: OverdueKind
    number: int
    age: timedelta
    oldest: str


async def find_overdue(pool: Pool, settings: Settings) -> tuple[Overdue, ...]:
    """Return what is overdue, one entry for each kind, in the order of `OverdueKind`.

    Two of the limits are settings: how long a phase may take, and how long a create may be without
    an outcome.

    Raises:
        DatabaseUnreachable: the database doesn't answer.
    """
    rows = await fetch_rows(
        pool,
        OverdueRow,
        OVERDUE_QUERIES.overdue,
        settings.project_timeout,
        DUE_TOO_LONG,
        settings.create_lookup,
    )
    found = (
        # No age where a table that is older than pgworker has no times.
        Overdue(
            OverdueKind(row.kind),
            row.number,
            timedelta(seconds=row.oldest_seconds or 0),
            row.oldest,
        )
        for row in rows
    )
    order = list(OverdueKind)
    return tuple(sorted(found, key=lambda each: order.index(each.kind)))
