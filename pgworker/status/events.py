"""Delivers transitions as they are made: one connection that listens, for all streams here.

Workers notify `pgworker_events` only while a row of `pgworker.watchers` says that some process
listens, because NOTIFY takes a lock on the whole cluster. This process registers with its first
stream and unregisters after its last.

A notification says only that there are events. One poll then fetches those of all clients that are
followed, and delivers them. Between two polls there is a pause, so that a busy queue causes a
bounded number of them. Notifications may be lost; so there is a poll now and then without one.
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
# Events that a stream's reader hasn't taken. A reader that falls further behind is disconnected; it
# comes back, and begins behind the last event that it got.
MAX_PENDING = 1000
RENEW_INTERVAL = timedelta(seconds=20)
POLL_INTERVAL = timedelta(seconds=15)
# Where LISTEN is switched off, polls are all there is.
POLL_INTERVAL_WITHOUT_LISTEN = timedelta(seconds=2)
POLL_PAUSE = timedelta(milliseconds=50)
# The next page of the same browser opens its stream at once: registering again would cost more.
LINGER = timedelta(seconds=30)
READY_WITHIN = timedelta(seconds=5)
# Ids are assigned before a commit: an event may become visible after one with a higher id, but
# hardly later than this.
SETTLED_AFTER = timedelta(seconds=60)


class EventFeedQueries(NamedTuple):
    """The statements of `sql/queries/event_feed.sql`."""

    register: str
    unregister: str
    events: str


EVENT_FEED_QUERIES = load(EventFeedQueries, "queries/event_feed.sql")


@dataclass(slots=True)
class Delivered:
    """Which events of a client a stream has delivered.

    Attributes:
        settled: all up to this id, and none up to it will become visible later.
        recent: ids beyond, with the time of their delivery (`time.monotonic`).
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
    """What one reader gets: the events of a client, or a signal when any client has some."""

    def __init__(self, client_id: UUID | None, after: int) -> None:
        """Follow a client from behind an event's id; None: signals about all, without events."""
        self.client_id = client_id
        self.delivered = Delivered(after)
        self.is_closed = False
        self._pending: list[TransitionRow] = []
        self._has_news = asyncio.Event()

    def deliver(self, rows: list[TransitionRow]) -> None:
        """Add events of the client; those that were delivered before are left out."""
        new = self.delivered.take_new((row.id for row in rows), time.monotonic())
        self._pending += [row for row in rows if row.id in new]
        if len(self._pending) > MAX_PENDING:
            self.close()
        if new:
            self._has_news.set()

    def signal(self) -> None:
        """Wake the reader: something has happened to some client."""
        self._has_news.set()

    def close(self) -> None:
        """End it: nothing more will come."""
        self.is_closed = True
        self._has_news.set()

    async def wait(self, timeout: timedelta) -> bool:
        """Return whether there is news, or it is closed, before the time is up."""
        try:
            async with asyncio.timeout(timeout.total_seconds()):
                await self._has_news.wait()
        except TimeoutError:
            return False
        return True

    def take(self) -> list[TransitionRow]:
        """Return the events that have come since, oldest first."""
        self._has_news.clear()
        taken, self._pending = self._pending, []
        return taken


class EventFeed:
    """The streams of this process, and the tasks that feed them."""

    def __init__(
        self,
        pool: Pool,
        make_listener: Callable[[Callable[[], None]], Listening] | None,
        *,
        max_streams: int = MAX_STREAMS,
        linger: timedelta = LINGER,
    ) -> None:
        """Serve nothing yet: `run` does.

        Args:
            pool: of the platform's database.
            make_listener: returns a listener that calls the given function when it listens, and
                with each notification; None: LISTEN is switched off, only poll.
            max_streams: how many may be open at a time.
            linger: how long to stay registered after the last stream.
        """
        self._pool = pool
        self._make_listener = make_listener
        self._max_streams = max_streams
        self._linger = linger
        self._id = secrets.token_hex(8)
        self._outage = Outage()
        self._streams: set[Stream] = set()
        self._needed = asyncio.Event()
        self._idle = asyncio.Event()
        self._registered = asyncio.Event()
        self._listening = asyncio.Event()
        self._woken = asyncio.Event()
        self._is_closed = False

    # -- for readers ----------------------------------------------------------------------

    @asynccontextmanager
    async def stream(
        self, client_id: UUID | None = None, *, after: int = 0
    ) -> AsyncIterator[Stream]:
        """Open a stream. What is read inside the block is as new as the stream's first event.

        Args:
            client_id: whose events to deliver; None: only signals, about all clients.
            after: events up to this id are not delivered.

        Raises:
            TooManyStreams: this process serves as many as it can, or is about to end.
        """
        if self._is_closed or len(self._streams) >= self._max_streams:
            raise TooManyStreams(
                f"{len(self._streams)} streams are open in this process: "
                "try again later, or fetch the state"
            )
        stream = Stream(client_id, after)
        self._streams.add(stream)
        self._needed.set()
        self._idle.clear()
        try:
            await self._wait_until_ready()
            yield stream
        finally:
            self._streams.discard(stream)
            if not self._streams:
                self._idle.set()

    async def _wait_until_ready(self) -> None:
        """Wait until notifications would reach us; not for long, as polls find events as well."""
        try:
            async with asyncio.timeout(READY_WITHIN.total_seconds()):
                await self._registered.wait()
                await self._listening.wait()
        except TimeoutError:
            return

    async def fetch_events(self, client_id: UUID, *, after: int) -> list[TransitionRow]:
        """Return the client's events behind an id, oldest first; of many the newest 200."""
        return await self._fetch({client_id: after})

    def close(self) -> None:
        """End all streams, and open no more: the process is about to end."""
        self._is_closed = True
        for stream in self._streams:
            stream.close()

    # -- for the process ------------------------------------------------------------------

    async def run(self) -> None:
        """Serve the streams until cancelled; sends the database nothing while there are none."""
        while True:
            await self._needed.wait()
            self._needed.clear()
            try:
                await self._serve()
            finally:
                self._registered.clear()
                self._listening.clear()
                await self._unregister()

    async def _serve(self) -> None:
        """Register, listen and poll until there have been no streams for a while."""
        async with asyncio.TaskGroup() as tasks:
            serving = [
                tasks.create_task(self._keep_registered(), name="feed register"),
                tasks.create_task(self._poll_until_cancelled(), name="feed poll"),
            ]
            if self._make_listener is None:
                self._listening.set()
            else:
                listener = self._make_listener(self._on_notification)
                serving.append(tasks.create_task(listener.run(), name="feed listen"))
            await self._wait_until_idle()
            for task in serving:
                task.cancel()

    async def _wait_until_idle(self) -> None:
        """Return when the last stream was closed, and no other was opened for `linger`."""
        while True:
            await self._idle.wait()
            await asyncio.sleep(self._linger.total_seconds())
            if not self._streams:
                return

    def _on_notification(self) -> None:
        """Wake the poll. The listener also calls this once it listens."""
        self._listening.set()
        self._woken.set()
        for stream in self._streams:
            if stream.client_id is None:
                stream.signal()

    async def _keep_registered(self) -> None:
        """Renew the registration, which expires after a minute: so does that of a dead process."""
        while True:
            try:
                await self._pool.execute(EVENT_FEED_QUERIES.register, self._id)
                self._registered.set()
                self._outage.over("feed register")
            except DatabaseUnreachable as error:
                self._outage.failed("feed register", error)
            await asyncio.sleep(RENEW_INTERVAL.total_seconds())

    async def _unregister(self) -> None:
        try:
            await self._pool.execute(EVENT_FEED_QUERIES.unregister, self._id)
        except DatabaseUnreachable as error:
            # The registration expires by itself.
            self._outage.failed("feed register", error)

    async def _poll_until_cancelled(self) -> None:
        """Poll after a notification, and after an interval without one."""
        has_listener = self._make_listener is not None
        interval = POLL_INTERVAL if has_listener else POLL_INTERVAL_WITHOUT_LISTEN
        while True:
            try:
                async with asyncio.timeout(interval.total_seconds()):
                    await self._woken.wait()
            except TimeoutError:
                pass
            # Before the poll: an event during it wakes the next one.
            self._woken.clear()
            try:
                await self._poll()
                self._outage.over("feed poll")
            except DatabaseUnreachable as error:
                self._outage.failed("feed poll", error)
            await asyncio.sleep(POLL_PAUSE.total_seconds())

    async def _poll(self) -> None:
        """Deliver the events since the settled one of each stream; each leaves out what it had."""
        after: dict[UUID, int] = {}
        for stream in self._streams:
            if stream.client_id is not None:
                settled = stream.delivered.settled
                after[stream.client_id] = min(after.get(stream.client_id, settled), settled)
        if not after:
            return
        by_client: dict[UUID, list[TransitionRow]] = {}
        for row in await self._fetch(after):
            by_client.setdefault(row.client_id, []).append(row)
        for stream in self._streams:
            if stream.client_id in by_client:
                stream.deliver(by_client[stream.client_id])

    async def _fetch(self, after: dict[UUID, int]) -> list[TransitionRow]:
        """Return events of several clients, each behind an id of its own, oldest first."""
        return await fetch_rows(
            self._pool,
            TransitionRow,
            EVENT_FEED_QUERIES.events,
            list(after),
            list(after.values()),
        )
