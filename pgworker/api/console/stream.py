"""Tells open pages that something has changed; they then ask for themselves again."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING
from uuid import UUID

from fastapi import APIRouter, Response

from pgworker.api.auth import READ
from pgworker.api.console.rendering import PageRoute
from pgworker.api.service import ServiceDep
from pgworker.api.streams import CHANGED
from pgworker.api.streams import stream as as_stream

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from pgworker.status.events import Watching

# A queue may change a hundred times a second; nobody reads as fast.
PAUSE = timedelta(seconds=0.7)
# What no event tells of: a worker that fell silent, a job that is late.
LOOK_AGAIN = timedelta(seconds=15)

router = APIRouter(route_class=PageRoute)


@router.get("/admin/provisioning/stream", name="console_stream", dependencies=[READ])
async def follow(service: ServiceDep, client: UUID | None = None) -> Response:
    """Send `changed` now, and whenever something has: with the client, or with any."""
    after = 0
    if client is not None:
        after = (await service.progresses.of(client)).newest_event_id
    return await as_stream(_changes(service.watching, client, after))


async def _changes(watching: Watching, client_id: UUID | None, after: int) -> AsyncGenerator[bytes]:
    async with watching.stream(client_id, after=after) as stream:
        # The first at once: something may have happened while the page was on its way.
        while not stream.is_closed:
            stream.take()
            yield CHANGED
            await asyncio.sleep(PAUSE.total_seconds())
            await stream.wait(LOOK_AGAIN)
