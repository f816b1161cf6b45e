"""What an operator sees first: how the queue is, who is in trouble, who waits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pgworker.models import ClientStatus
from pgworker.status.pages import Filter

if TYPE_CHECKING:
    from pgworker.status.commands import Operations, Row
    from pgworker.status.pages import Pages
    from pgworker.status.progress import Progresses


@dataclass(frozen=True, slots=True)
class Overview:
    """Rows of the status views.

    Attributes:
        latency: of all phases, in order (`Progresses.latency`).
        failed, queued: rows of `client_status`, newest client first.
    """

    health: Row
    pauses: list[Row]
    breakers: list[Row]
    workers: list[Row]
    latency: list[Row]
    failed_groups: list[Row]
    failed: list[Row]
    queued: list[Row]


async def overview_of(
    operations: Operations, pages: Pages, progresses: Progresses, *, limit: int
) -> Overview:
    """Gather it; `limit` is for the failed, the queued and the groups, each."""
    failed = await pages.clients(Filter(status=ClientStatus.FAILED), limit=limit)
    queued = await pages.clients(Filter(status=ClientStatus.QUEUED), limit=limit)
    return Overview(
        health=await operations.health(),
        pauses=await operations.pauses(),
        breakers=await operations.open_breakers(),
        workers=await operations.workers(),
        latency=await progresses.latency(),
        failed_groups=await operations.failed_groups(limit=limit),
        failed=failed.rows,
        queued=queued.rows,
    )
