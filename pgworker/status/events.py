"""Follows transitions as they are made: one connection that listens, for all who watch here.

Workers notify `pgworker_events` only while a row of `pgworker.watchers` says that somebody
watches, because NOTIFY takes a lock on the whole cluster. This process registers with its first
stream and signs off after its last.

A notification says only that there are events. One look then fetches those of all watched
clients, and hands them out. Looks follow each other with a pause, so that a busy queue costs a
bounded number of them; and there is one now and then without being woken, as notifications may get
lost.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, NamedTuple

from pgworker.db.outage import Outage
from pgworker.db.queries import load
from pgworker.errors import DatabaseUnreachable, TooManyStreams
from pgworker.status.rows import TransitionRow, fetch_rows

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable
    from uuid import UUID

    from pgworker.db.listen import Listening
    from pgworker.db.pool import Pool

MAX_STREAMS = 500
# Of events that nobody took. Who is that slow begins again, behind the last one it has.
MAX_PENDING = 1000
RENEW_EVERY = timedelta(seconds=20)
LOOK_EVERY = timedelta(seconds=15)
# Where LISTEN is switched off there is nothing but looking.
LOOK_EVERY_WITHOUT_LISTEN = timedelta(seconds=2)
PAUSE = timedelta(milliseconds=50)
# The next page of the same browser comes at once.
LINGER = timedelta(seconds=30)
READY_WITHIN = timedelta(seconds=5)
# Ids are given before a commit: an event may show up after one with a higher id. Not much later.
SETTLED_AFTER = timedelta(seconds=60)


class WatchingQueries(NamedTuple):
    """The statements of `sql/queries/watching.sql`."""

    register: str
    unregister: str
    events: str


WATCHING_QUERIES = load(WatchingQueries, "queries/watching.sql")


@dataclass(slots=True)
class Delivered:
    """Which events of a client a stream has had.

    Attributes:
        settled: those up to this id, and none up to it will turn up any more.
        recent: ids beyond, with the time of their delivery.
    """

    settled: int
    recent: dict[int, float] = field(default_factory=dict)

    def take_new(self, ids: Iterable[int], now: float) -> set[int]:
        """Return those that are new, and remember them."""
        new = {each for each in ids if each > self.settled and each not in self.recent}
        self.recent.update(dict.fromkeys(new, now))
        old = [each for each, at in self.recent.items() if now - at > SETTLED_AFTER.total_seconds()]
        if old:
            self.settled = max(old)
            self.recent = {each: at for each, at in self.recent.items() if each > self.settled}
        return new


class Stream:
    """What one watcher gets: the events of a client, or the news that there are some of any."""

    def __init__(self, client_id: UUID | None, after: int) -> None:
        """Follow a client (None: all of them, without their events) from behind an event's id."""
        self.client_id = client_id
        self.delivered = Delivered(after)
        self.is_closed = False
        self._pending: list[TransitionRow] = []
        self._news = asyncio.Event()

    def deliver(self, rows: list[TransitionRow]) -> None:
        """Hand over the client's events; those that it has had are left out."""
        new = self.delivered.take_new((row.id for row in rows), time.monotonic())
        self._pending += [row for row in rows if row.id in new]
        if len(self._pending) > MAX_PENDING:
            self.close()
        if new:
            self._news.set()

    def signal(self) -> None:
        """Tell that something has happened somewhere."""
        self._news.set()

    def close(self) -> None:
        """End it: nothing more will come."""
        self.is_closed = True
        self._news.set()

    async def wait(self, patience: timedelta) -> bool:
        """Return whether there is news, or it is closed, before patience ends."""
        try:
            async with asyncio.timeout(patience.total_seconds()):
                await self._news.wait()
        except TimeoutError:
            return False
        return True

    def take(self) -> list[TransitionRow]:
        """Return the events that have come since, oldest first."""
        self._news.clear()
        taken, self._pending = self._pending, []
        return taken


class Watching:
    """The streams of this process."""

    def __init__(
        self,
        pool: Pool,
        listener: Callable[[Callable[[], None]], Listening] | None,
        *,
        max_streams: int = MAX_STREAMS,
        linger: timedelta = LINGER,
    ) -> None:
        """Take the pool, and what makes a listener from what it shall wake; None: look only."""
        self._pool = pool
        self._make_listener = listener
        self._max_streams = max_streams
        self._linger = linger
        self._id = secrets.token_hex(8)
        self._outage = Outage()
        self._streams: set[Stream] = set()
        self._wanted = asyncio.Event()
        self._idle = asyncio.Event()
        self._registered = asyncio.Event()
        self._listening = asyncio.Event()
        self._woken = asyncio.Event()
        self._is_closed = False

    # -- for whoever watches --------------------------------------------------------------

    @asynccontextmanager
    async def stream(
        self, client_id: UUID | None = None, *, after: int = 0
    ) -> AsyncIterator[Stream]:
        """Open a stream. What is read inside the block is as new as the stream's first event.

        Args:
            client_id: whose events to deliver; None: only signals, of whatever happens.
            after: events up to this id are not delivered.

        Raises:
            TooManyStreams: this process serves as many as it does.
        """
        if self._is_closed or len(self._streams) >= self._max_streams:
            raise TooManyStreams(
                f"{len(self._streams)} streams are open here: try again, or ask for the state"
            )
        stream = Stream(client_id, after)
        self._streams.add(stream)
        self._wanted.set()
        self._idle.clear()
        try:
            await self._until_ready()
            yield stream
        finally:
            self._streams.discard(stream)
            if not self._streams:
                self._idle.set()

    async def _until_ready(self) -> None:
        """Wait until we would be notified; not for long, as looking does as well."""
        try:
            async with asyncio.timeout(READY_WITHIN.total_seconds()):
                await self._registered.wait()
                await self._listening.wait()
        except TimeoutError:
            return

    async def events(self, client_id: UUID, *, after: int) -> list[TransitionRow]:
        """Return the client's events behind an id, oldest first; of many the newest 200."""
        return await self._events({client_id: after})

    def close(self) -> None:
        """End all streams, and open no more: the process leaves."""
        self._is_closed = True
        for stream in self._streams:
            stream.close()

    # -- for the process ------------------------------------------------------------------

    async def run(self) -> None:
        """Serve the streams until cancelled; asks nothing of the database while there are none."""
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            try:
                await self._serve()
            finally:
                self._registered.clear()
                self._listening.clear()
                await self._unregister()

    async def _serve(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            serving = [
                tasks.create_task(self._keep_registered(), name="watch register"),
                tasks.create_task(self._look(), name="watch look"),
            ]
            if self._make_listener is None:
                self._listening.set()
            else:
                listener = self._make_listener(self._heard)
                serving.append(tasks.create_task(listener.run(), name="watch listen"))
            await self._until_unwanted()
            for task in serving:
                task.cancel()

    async def _until_unwanted(self) -> None:
        while True:
            await self._idle.wait()
            await asyncio.sleep(self._linger.total_seconds())
            if not self._streams:
                return

    def _heard(self) -> None:
        """Be woken, or learn that we would be from now on."""
        self._listening.set()
        self._woken.set()
        for stream in self._streams:
            if stream.client_id is None:
                stream.signal()

    async def _keep_registered(self) -> None:
        while True:
            try:
                await self._pool.execute(WATCHING_QUERIES.register, self._id)
                self._registered.set()
                self._outage.over("watch")
            except DatabaseUnreachable as error:
                self._outage.failed("watch", error)
            await asyncio.sleep(RENEW_EVERY.total_seconds())

    async def _unregister(self) -> None:
        try:
            await self._pool.execute(WATCHING_QUERIES.unregister, self._id)
        except DatabaseUnreachable as error:
            # It runs out by itself.
            self._outage.failed("watch", error)

    async def _look(self) -> None:
        every = LOOK_EVERY if self._make_listener is not None else LOOK_EVERY_WITHOUT_LISTEN
        while True:
            try:
                async with asyncio.timeout(every.total_seconds()):
                    await self._woken.wait()
            except TimeoutError:
                pass
            self._woken.clear()
            try:
                await self._deliver()
                self._outage.over("look")
            except DatabaseUnreachable as error:
                self._outage.failed("look", error)
            await asyncio.sleep(PAUSE.total_seconds())

    async def _deliver(self) -> None:
        watched: dict[UUID, int] = {}
        for stream in self._streams:
            if stream.client_id is not None:
                known = watched.get(stream.client_id, stream.delivered.settled)
                watched[stream.client_id] = min(known, stream.delivered.settled)
        if not watched:
            return
        by_client: dict[UUID, list[TransitionRow]] = {}
        for row in await self._events(watched):
            by_client.setdefault(row.client_id, []).append(row)
        for stream in self._streams:
            if stream.client_id in by_client:
                stream.deliver(by_client[stream.client_id])

    async def _events(self, watched: dict[UUID, int]) -> list[TransitionRow]:
        return await fetch_rows(
            self._pool,
            TransitionRow,
            WATCHING_QUERIES.events,
            list(watched),
            list(watched.values()),
        )
