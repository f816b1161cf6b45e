"""The state of provisioning on one screen: what is stuck, why, and what a person can do.

`Overview` is what the console shows first, `QueueReport` what `GET /admin/provisioning` answers to
programs; both begin with the same `QueueState`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING

from pgworker.models import ClientStatus
from pgworker.status.commands import EVERYTHING
from pgworker.status.durations import format_duration
from pgworker.status.overdue import ADVICE, DUE_TOO_LONG, OverdueKind, find_overdue
from pgworker.status.pages import Filter
from pgworker.status.queries import StatusReader

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pgworker.db.pool import Pool
    from pgworker.settings import Settings
    from pgworker.status.overdue import Overdue
    from pgworker.status.pages import Pages
    from pgworker.status.progress import ProgressReader
    from pgworker.status.rows import (
        BreakerRow,
        ClientStatusRow,
        FailedGroupRow,
        HealthRow,
        LimitRow,
        PauseRow,
        PhaseLatencyRow,
        WorkerRow,
    )

# More than these a person doesn't read on one page; the lists of clients have the rest.
GROUPS_SHOWN = 20
STUCK_SHOWN = 15


class Urgency(StrEnum):
    """How much a notice asks of its reader; the most urgent first."""

    ALARM = "alarm"  # nothing continues until a person acts
    WARNING = "warning"  # a person should check it
    NOTE = "note"  # it is intended, or passes by itself


@dataclass(frozen=True, slots=True)
class Notice:
    """One thing that an operator should know before anything else.

    Attributes:
        what: one line, for a person.
        advice: what to do about it.
        scope: of the pause that `resume` would end; None when it isn't about a pause.
    """

    urgency: Urgency
    what: str
    advice: str
    scope: str | None = None


@dataclass(frozen=True, slots=True)
class PhaseLatency:
    """How long a phase took in the last 24 hours; seconds.

    Attributes:
        hours: (p50, p95) in each of the last 24 hours, oldest first; None where none ended.
    """

    workflow: str
    phase: str
    count: int
    p50: float
    p95: float
    longest: float
    hours: tuple[tuple[float, float] | None, ...]


@dataclass(frozen=True, slots=True)
class QueueState:
    """The queue as a whole.

    Attributes:
        breakers: credentials that the provider refuses.
        latency: of all phases, in order (`ProgressReader.latency`).
        failed_groups: the largest first.
    """

    health: HealthRow
    pauses: list[PauseRow]
    breakers: list[BreakerRow]
    workers: list[WorkerRow]
    latency: list[PhaseLatencyRow]
    failed_groups: list[FailedGroupRow]

    @property
    def is_paused(self) -> bool:
        """Whether everything is paused."""
        return any(pause.scope == EVERYTHING for pause in self.pauses)

    @property
    def is_overdue(self) -> bool:
        """Whether a due job has waited for too long."""
        return self.health.oldest_due_seconds > DUE_TOO_LONG.total_seconds()


@dataclass(frozen=True, slots=True)
class QueueReport:
    """The queue, with clients that need a person or wait; newest client first."""

    queue: QueueState
    failed: list[ClientStatusRow]
    queued: list[ClientStatusRow]


@dataclass(frozen=True, slots=True)
class Overview:
    """What the console shows first.

    Attributes:
        notices: the most urgent first.
        statuses: number of clients by their status.
        stuck: clients whose job is queued or waiting, the longest due first.
        limits: rate limits of the provider that are used up.
        latency: of the phases of which one ended in the last 24 hours.
    """

    queue: QueueState
    notices: tuple[Notice, ...]
    statuses: dict[str, int]
    stuck: list[ClientStatusRow]
    limits: list[LimitRow]
    latency: tuple[PhaseLatency, ...]

    @property
    def summary(self) -> str:
        """The state of provisioning in one sentence."""
        return summarize(self.queue.health, self.notices)

    @property
    def urgency(self) -> Urgency | None:
        """The most urgent of all; None when there is nothing to check."""
        if self.queue.health.failed:
            return Urgency.ALARM
        return self.notices[0].urgency if self.notices else None

    @property
    def has_more_groups(self) -> bool:
        """Whether there may be more groups than are shown."""
        return len(self.queue.failed_groups) == GROUPS_SHOWN


async def get_overview(pool: Pool, settings: Settings, progress: ProgressReader) -> Overview:
    """Return what the console shows first.

    Args:
        pool: of the platform's database.
        settings: say from when on something is overdue.
        progress: keeps the latencies, which are expensive to read, for a while.

    Raises:
        DatabaseUnreachable: the database doesn't answer.
    """
    status = StatusReader(pool)
    queue = await _get_queue_state(status, progress, groups=GROUPS_SHOWN)
    overdue = await find_overdue(pool, settings)
    limits = await status.list_exhausted_limits()
    return Overview(
        queue=queue,
        notices=get_notices(queue.health, overdue, queue.pauses, queue.breakers, limits),
        statuses=await status.count_clients(),
        stuck=await status.list_stuck(limit=STUCK_SHOWN),
        limits=limits,
        latency=get_latencies(queue.latency),
    )


async def get_queue_report(
    status: StatusReader, pages: Pages, progress: ProgressReader, *, limit: int
) -> QueueReport:
    """Return what programs get.

    Args:
        status: reads the queue.
        pages: reads the lists of clients.
        progress: keeps the latencies, which are expensive to read, for a while.
        limit: of failed clients, queued clients and failed groups, each.

    Raises:
        DatabaseUnreachable: the database doesn't answer.
    """
    failed = await pages.list_clients(Filter(status=ClientStatus.FAILED), limit=limit)
    queued = await pages.list_clients(Filter(status=ClientStatus.QUEUED), limit=limit)
    queue = await _get_queue_state(status, progress, groups=limit)
    return QueueReport(queue, failed.rows, queued.rows)


async def _get_queue_state(
    status: StatusReader, progress: ProgressReader, *, groups: int
) -> QueueState:
    # One after the other: the pool is the worker's, and pages in many browsers that reload at the
    # same moment must not take all of its connections.
    return QueueState(
        health=await status.get_health(),
        pauses=await status.list_pauses(),
        breakers=await status.list_open_breakers(),
        workers=await status.list_workers(),
        latency=await progress.get_latency(),
        failed_groups=await status.list_failed_groups(limit=groups),
    )


def summarize(health: HealthRow, notices: Sequence[Notice]) -> str:
    """Return the state of provisioning in one sentence, the worst of it. Pure."""
    if health.failed:
        return (
            "1 client needs attention"
            if health.failed == 1
            else f"{health.failed} clients need attention"
        )
    if any(notice.urgency is Urgency.ALARM for notice in notices):
        return "Provisioning needs attention"
    if any(notice.urgency is Urgency.WARNING for notice in notices):
        return "There are warnings"
    if health.unfinished:
        return "All is well; work is in progress"
    return "All is well; nothing is in progress"


def get_notices(
    health: HealthRow,
    overdue: Sequence[Overdue],
    pauses: Sequence[PauseRow],
    breakers: Sequence[BreakerRow],
    limits: Sequence[LimitRow],
) -> tuple[Notice, ...]:
    """Return what is worth a line, the most urgent first; nothing when all is well. Pure.

    Args:
        health: of the queue.
        overdue: what is older than it should be (`find_overdue`).
        pauses: of workflows, or of everything.
        breakers: credentials that the provider refuses.
        limits: rate limits that are used up.
    """
    found = [
        *_notice_workers(health),
        *(_notice_breaker(breaker) for breaker in breakers),
        *(_notice_pause(pause) for pause in pauses),
        # Failed jobs are listed in groups right below.
        *(_notice_overdue(each) for each in overdue if each.kind is not OverdueKind.FAILED),
        *_notice_limits(limits),
    ]
    order = list(Urgency)
    return tuple(sorted(found, key=lambda notice: order.index(notice.urgency)))


def _notice_workers(health: HealthRow) -> list[Notice]:
    """Return a notice when no worker is alive."""
    if health.workers_alive:
        return []
    return [
        Notice(
            # Without work it may be intended: workers can be started on demand.
            Urgency.ALARM if health.unfinished else Urgency.WARNING,
            "No worker is alive: nothing is being provisioned.",
            "Start one: pgworker run",
        )
    ]


def _notice_breaker(breaker: BreakerRow) -> Notice:
    since = format_duration(datetime.now(UTC) - breaker.opened_at)
    return Notice(
        Urgency.ALARM,
        f"The provider has refused {breaker.credential} for {since}: {breaker.reason}",
        "Renew the credential; the jobs that wait for it then continue by themselves.",
    )


def _notice_pause(pause: PauseRow) -> Notice:
    what = "Everything" if pause.scope == EVERYTHING else f"The workflow {pause.scope}"
    since = format_duration(datetime.now(UTC) - pause.paused_at)
    return Notice(
        Urgency.WARNING,
        f"{what} is paused: {pause.paused_by} paused it {since} ago.",
        "No further phase starts until it is resumed.",
        scope=pause.scope,
    )


def _notice_overdue(overdue: Overdue) -> Notice:
    """Return a notice with the number, and the age and name of the oldest one."""
    subject, remedy = ADVICE[overdue.kind]
    oldest = f"the oldest for {format_duration(overdue.age)}: {overdue.oldest}"
    # These two don't end by themselves, however many workers there are.
    needs_person = overdue.kind in {OverdueKind.ABANDONED, OverdueKind.UNCONFIRMED}
    return Notice(
        Urgency.ALARM if needs_person else Urgency.WARNING,
        f"{subject[0].upper()}{subject[1:]}: {overdue.number} ({oldest})",
        f"{remedy[0].upper()}{remedy[1:]}",
    )


def _notice_limits(limits: Sequence[LimitRow]) -> list[Notice]:
    """Return one notice for all limits: each ends by itself, so none needs a line of its own."""
    if not limits:
        return []
    endpoints = "1 endpoint" if len(limits) == 1 else f"{len(limits)} endpoints"
    longest = format_duration(max(row.seconds for row in limits))
    return [
        Notice(
            Urgency.NOTE,
            f"The provider's rate limit is used up for {endpoints}.",
            f"Nothing to do: the jobs that need them wait, for {longest} at most.",
        )
    ]


def get_latencies(rows: Sequence[PhaseLatencyRow]) -> tuple[PhaseLatency, ...]:
    """Return the latencies of those phases of which one ended in the last 24 hours. Pure."""
    return tuple(_get_latency(row) for row in rows if row.ended)


def _get_latency(row: PhaseLatencyRow) -> PhaseLatency:
    """Spread the hours in which a phase ended over a row of 24, for a chart with gaps."""
    quantiles = zip(row.hourly_p50_seconds or (), row.hourly_p95_seconds or (), strict=True)
    by_hour = dict(zip(row.hours_ago or (), quantiles, strict=True))
    return PhaseLatency(
        workflow=row.workflow,
        phase=row.phase,
        count=row.ended,
        p50=row.p50_seconds or 0,
        p95=row.p95_seconds or 0,
        longest=row.max_seconds or 0,
        hours=tuple(by_hour.get(ago) for ago in range(23, -1, -1)),
    )
