"""The whole of provisioning on one screen: what is stuck, why, and what is safe to press."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING

from pgworker.status.commands import EVERYTHING
from pgworker.status.durations import duration
from pgworker.status.overdue import DUE_TOO_LONG, LATE, LateKind, find_late
from pgworker.status.queries import StatusReader

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pgworker.db.pool import Pool
    from pgworker.settings import Settings
    from pgworker.status.overdue import Late
    from pgworker.status.progress import Progresses
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

GROUPS_SHOWN = 20
STUCK_SHOWN = 15


class Urgency(StrEnum):
    """How much a notice asks of its reader; the most urgent first."""

    ALARM = "alarm"  # nothing goes on until somebody acts
    WARNING = "warning"  # somebody should look
    NOTE = "note"  # it is so on purpose, or goes by itself


@dataclass(frozen=True, slots=True)
class Notice:
    """One thing that an operator should know before all others.

    Attributes:
        what: one line, for a person.
        advice: what to do about it.
        scope: of the pause that `resume` would take back; else None.
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
class Survey:
    """What the console shows first.

    Attributes:
        health: the row of `queue_health`.
        notices: the most urgent first.
        statuses: number of clients by their status.
        groups: rows of `failed_groups`, the largest first.
        stuck: rows of `client_status` whose job is queued or waiting, the longest due first.
        pauses, breakers, limits, workers: rows, as `StatusReader` gives them.
    """

    health: HealthRow
    notices: tuple[Notice, ...]
    statuses: dict[str, int]
    groups: list[FailedGroupRow]
    stuck: list[ClientStatusRow]
    latency: tuple[PhaseLatency, ...]
    pauses: list[PauseRow]
    breakers: list[BreakerRow]
    limits: list[LimitRow]
    workers: list[WorkerRow]

    @property
    def verdict(self) -> str:
        """The whole in one sentence."""
        return verdict(self.health, self.notices)

    @property
    def urgency(self) -> Urgency | None:
        """The most urgent of all; None when nobody needs to look."""
        if self.health.failed:
            return Urgency.ALARM
        return self.notices[0].urgency if self.notices else None

    @property
    def unfinished(self) -> int:
        """Jobs that are on their way."""
        return self.health.unfinished

    @property
    def more_groups(self) -> bool:
        """Whether there may be more groups than are shown."""
        return len(self.groups) == GROUPS_SHOWN

    @property
    def is_paused(self) -> bool:
        """Whether everything is paused."""
        return any(pause.scope == EVERYTHING for pause in self.pauses)

    @property
    def is_late(self) -> bool:
        """Whether a due job has waited for too long."""
        return self.health.oldest_due_seconds > DUE_TOO_LONG.total_seconds()


async def survey(pool: Pool, settings: Settings, progresses: Progresses) -> Survey:
    """Gather it all; `progresses` keeps what is too expensive to ask for each time.

    Raises:
        DatabaseUnreachable: the database can't be asked.
    """
    status = StatusReader(pool)
    health = await status.get_health()
    late = await find_late(pool, settings)
    pauses = await status.list_pauses()
    breakers = await status.list_open_breakers()
    limits = await status.list_exhausted_limits()
    return Survey(
        health=health,
        notices=notices(health, late, pauses, breakers, limits),
        statuses=await status.count_clients(),
        groups=await status.list_failed_groups(limit=GROUPS_SHOWN),
        stuck=await status.list_stuck(limit=STUCK_SHOWN),
        latency=latencies(await progresses.latency()),
        pauses=pauses,
        breakers=breakers,
        limits=limits,
        workers=await status.list_workers(),
    )


def notices(
    health: HealthRow,
    late: Sequence[Late],
    pauses: Sequence[PauseRow],
    breakers: Sequence[BreakerRow],
    limits: Sequence[LimitRow],
) -> tuple[Notice, ...]:
    """Return what is worth a line, the most urgent first; nothing when all is well. Pure."""
    found = [
        *_of_workers(health),
        *(_of_breaker(breaker) for breaker in breakers),
        *(_of_pause(pause) for pause in pauses),
        # What has failed stands in groups of its own right below.
        *(_of_lateness(each) for each in late if each.kind is not LateKind.FAILED),
        *_of_limits(limits),
    ]
    order = list(Urgency)
    return tuple(sorted(found, key=lambda notice: order.index(notice.urgency)))


def verdict(health: HealthRow, found: Sequence[Notice]) -> str:
    """Return how provisioning is, in one sentence. Pure."""
    failed = health.failed
    if failed:
        return "1 client needs you" if failed == 1 else f"{failed} clients need you"
    if any(notice.urgency is Urgency.ALARM for notice in found):
        return "Provisioning needs you"
    if any(notice.urgency is Urgency.WARNING for notice in found):
        return "Something wants a look"
    if health.unfinished:
        return "All is well, and work is under way"
    return "All is well, and nothing is left to do"


def _of_workers(health: HealthRow) -> list[Notice]:
    if health.workers_alive:
        return []
    return [
        Notice(
            Urgency.ALARM if health.unfinished else Urgency.WARNING,
            "No worker is alive: nothing is being provisioned.",
            "Start one: pgworker run",
        )
    ]


def _of_breaker(breaker: BreakerRow) -> Notice:
    since = duration(datetime.now(UTC) - breaker.opened_at)
    return Notice(
        Urgency.ALARM,
        f"The provider has refused {breaker.credential} for {since}: {breaker.reason}",
        "Renew the credential: the jobs that wait for it go on by themselves.",
    )


def _of_pause(pause: PauseRow) -> Notice:
    what = "Everything" if pause.scope == EVERYTHING else f"The workflow {pause.scope}"
    since = duration(datetime.now(UTC) - pause.paused_at)
    return Notice(
        Urgency.WARNING,
        f"{what} is paused: {pause.paused_by} did so {since} ago.",
        "No further phase starts until somebody resumes it.",
        scope=pause.scope,
    )


def _of_lateness(late: Late) -> Notice:
    what, advice = LATE[late.kind]
    oldest = f"the oldest for {duration(late.age)}: {late.oldest}"
    needs_person = late.kind in {LateKind.ABANDONED, LateKind.UNANSWERED}
    return Notice(
        Urgency.ALARM if needs_person else Urgency.WARNING,
        f"{what[0].upper()}{what[1:]}: {late.number} ({oldest})",
        f"{advice[0].upper()}{advice[1:]}",
    )


def _of_limits(limits: Sequence[LimitRow]) -> list[Notice]:
    if not limits:
        return []
    longest = duration(max(row.seconds for row in limits))
    return [
        Notice(
            Urgency.NOTE,
            f"The provider's rate limit is used up for {len(limits)} kinds of requests.",
            f"Nothing to do: what needs them waits, {longest} at most.",
        )
    ]


def latencies(rows: Sequence[PhaseLatencyRow]) -> tuple[PhaseLatency, ...]:
    """Return rows of `Progresses.latency`, those of phases of which one ended. Pure."""
    return tuple(_latency(row) for row in rows if row.ended)


def _latency(row: PhaseLatencyRow) -> PhaseLatency:
    medians = zip(row.hourly_p50_seconds or (), row.hourly_p95_seconds or (), strict=True)
    by_hour = dict(zip(row.hours_ago or (), medians, strict=True))
    return PhaseLatency(
        workflow=row.workflow,
        phase=row.phase,
        count=row.ended,
        p50=row.p50_seconds or 0,
        p95=row.p95_seconds or 0,
        longest=row.max_seconds or 0,
        hours=tuple(by_hour.get(ago) for ago in range(23, -1, -1)),
    )
