"""Notifies open pages that something has changed; they then load themselves again."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING
from uuid import UUID

from fastapi import APIRouter, Response

from pgworker.api.auth import READ
from pgworker.api.console.rendering import PageRoute
from pgworker.api.service import ServiceDep
from pgworker.api.streams import CHANGED, make_stream_response

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from pgworker.status.events import EventFeed

# A queue may change a hundred times a second; a person doesn't read that fast.
PAUSE = timedelta(seconds=0.7)
# For changes without an event: a worker is lost, a job becomes overdue.
REFRESH_INTERVAL = timedelta(seconds=15)

router = APIRouter(route_class=PageRoute)


@router.get("/admin/provisioning/stream", name="console_stream", dependencies=[READ])
async def follow(service: ServiceDep, client: UUID | None = None) -> Response:
    """Send `changed` now, and after each change of the client, or of any client."""
    after = 0
    if client is not None:
        after = (await service.progress.get(client)).newest_event_id
    return await make_stream_response(_stream_changes(service.feed, client, after))


async def _stream_changes(
    feed: EventFeed, client_id: UUID | None, after: int
) -> AsyncGenerator[bytes]:
    """Yield `changed` after each change, but not more often than a person can follow."""
    async with feed.stream(client_id, after=after) as stream:
        # The first at once: something may have changed since the page was rendered.
        while not stream.is_closed:
            stream.take()
            yield CHANGED
            await asyncio.sleep(PAUSE.total_seconds())
            await stream.wait(REFRESH_INTERVAL)
