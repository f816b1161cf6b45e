"""Server-Sent Events as a client reads them."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx

from tests.support.workers import within

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@dataclass(frozen=True, slots=True)
class Event:
    name: str
    id: str | None
    data: Any


class EventReader:
    """Reads the events of an open stream one by one."""

    def __init__(self, response: httpx.Response) -> None:
        self._events = self._parse(response)

    async def next(self, name: str | None = None) -> Event:
        """Return the next event, or the next one of this name."""
        while True:
            event = await within(anext(self._events))
            if name is None or event.name == name:
                return event

    async def read_rest(self) -> list[Event]:
        """Return all events until the stream ends."""

        async def collect() -> list[Event]:
            return [event async for event in self._events]

        return await within(collect())

    async def _parse(self, response: httpx.Response) -> AsyncIterator[Event]:
        fields: dict[str, str] = {}
        async for line in response.aiter_lines():
            if line:
                name, _, value = line.partition(": ")
                fields[name] = value
            elif "data" in fields:
                yield Event(fields["event"], fields.get("id"), json.loads(fields["data"]))
                fields = {}


@asynccontextmanager
async def open_events(
    client: httpx.AsyncClient, path: str, *, after: int | str | None = None
) -> AsyncIterator[EventReader]:
    """Open a stream of events; `after` is sent as Last-Event-ID."""
    headers = {} if after is None else {"Last-Event-ID": str(after)}
    async with client.stream("GET", path, headers=headers) as response:
        assert response.status_code == 200, await response.aread()
        assert response.headers["Content-Type"].startswith("text/event-stream")
        yield EventReader(response)
