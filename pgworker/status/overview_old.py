"""What an operator sees first: how the queue is, who is in trouble, who waits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pgworker.models import ClientStatus
from pgworker.status.pages import Filter

if TYPE_CHECKING:
    from pgworker.status.pages import Pages
    from pgworker.status.progress import Progresses
    from pgworker.status.queries import StatusReader
    from pgworker.status.rows import (
        BreakerRow,
        ClientStatusRow,
        FailedGroupRow,
        HealthRow,
        PauseRow,
        PhaseLatencyRow,
        WorkerRow,
    )


@dataclass(frozen=True, slots=True)
class Overview:
    """Rows of the status views.

    Attributes:
        latency: of all phases, in order (`Progresses.latency`).
        failed, queued: rows of `client_status`, newest client first.
    """

    health: HealthRow
    pauses: list[PauseRow]
    breakers: list[BreakerRow]
    workers: list[WorkerRow]
    latency: list[PhaseLatencyRow]
    failed_groups: list[FailedGroupRow]
    failed: list[ClientStatusRow]
    queued: list[ClientStatusRow]


async def overview_of(
    status: StatusReader, pages: Pages, progresses: Progresses, *, limit: int
) -> Overview:
    """Gather it; `limit` is for the failed, the queued and the groups, each."""
    failed = await pages.clients(Filter(status=ClientStatus.FAILED), limit=limit)
    queued = await pages.clients(Filter(status=ClientStatus.QUEUED), limit=limit)
    return Overview(
        health=await status.get_health(),
        pauses=await status.list_pauses(),
        breakers=await status.list_open_breakers(),
        workers=await status.list_workers(),
        latency=await progresses.latency(),
        failed_groups=await status.list_failed_groups(limit=limit),
        failed=failed.rows,
        queued=queued.rows,
    )
