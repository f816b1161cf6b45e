"""Wakes a process by LISTEN, on a connection of its own that is opened again when it is lost."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, NamedTuple, Protocol

import asyncpg

from pgworker.db.hosts import Hosts
from pgworker.db.outage import Outage
from pgworker.db.pool import connect, describe_dsn
from pgworker.db.queries import load
from pgworker.db.reconnect import choose_reconnect_delay
from pgworker.db.translation import DATABASE_ERRORS, translate
from pgworker.errors import BadConfiguration, DatabaseUnreachable, PgworkerError
from pgworker.telemetry import get_logger

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from datetime import datetime

CHANNEL = "pgworker"
# New events, while a stream is watched (sql/triggers/event_log_watched.sql).
EVENTS_CHANNEL = "pgworker_events"

# A half-open socket stays silent for ever: only an answer proves that notifications arrive.
PING_EVERY = timedelta(seconds=15)
PING_TIMEOUT = timedelta(seconds=5)

log = get_logger()


class ListenQueries(NamedTuple):
    """The statements of `sql/queries/listen.sql`."""

    server_started_at: str


LISTEN_QUERIES = load(ListenQueries, "queries/listen.sql")


class Listening(Protocol):
    """What a worker needs of a listener: `Listener` in production, a stand-in in a test."""

    async def run(self) -> None:
        """Call the worker's `wake` when there may be due jobs, until cancelled."""
        ...


class Listener:
    """Calls `wake` for each notification on a channel, as long as `run` runs.

    It is also called after each connect, because notifications may have been missed before. It
    runs in the event loop: it should only set an event, which also makes one wake-up of many
    notifications that arrive together.

    A connection that is lost, silent, or to a server that takes no writes any more is replaced,
    with a growing wait between the tries (`db.reconnect`), for ever.

    Attributes:
        is_connected: whether notifications arrive now.
    """

    def __init__(
        self,
        dsn: str,
        wake: Callable[[], None],
        *,
        channel: str = CHANNEL,
        application_name: str = "pgworker listen",
        outage: Outage | None = None,
        ping_every: timedelta = PING_EVERY,
        ping_timeout: timedelta = PING_TIMEOUT,
    ) -> None:
        """Take the URL of a direct connection: a transaction pooler passes no notifications on.

        Args:
            dsn: of the database.
            wake: called for each notification and after each connect.
            channel: what to listen to.
            application_name: as `pg_stat_activity` shows it.
            outage: where a lost and a recovered connection are reported.
            ping_every: between two notifications to ourselves.
            ping_timeout: how long one of them may take to arrive.
        """
        self._hosts = Hosts(dsn)
        self._channel = channel
        self._application_name = application_name
        self._wake = wake
        self._outage = outage or Outage()
        self._ping_every = ping_every
        self._ping_timeout = ping_timeout
        self._server_started_at: datetime | None = None
        self._pong = asyncio.Event()
        self._lost = asyncio.Event()
        self.is_connected = False

    async def run(self) -> None:
        """Listen until cancelled; no error of the database ends it."""
        failures = 0
        while True:
            try:
                await self._listen()
            except (*DATABASE_ERRORS, DatabaseUnreachable, BadConfiguration) as error:
                # Refused credentials, too: the password may be being changed just now.
                failures = 1 if self.is_connected else failures + 1
                self._outage.failed("listen", _as_ours(error))
            finally:
                self.is_connected = False
            await asyncio.sleep(choose_reconnect_delay(failures).total_seconds())

    async def _listen(self) -> None:
        connection = await connect(self._hosts, application_name=self._application_name)
        try:
            self._lost.clear()
            connection.add_termination_listener(lambda _: self._lost.set())
            # A channel for each connection, so that a ping wakes no other worker.
            own = f"{self._channel}_ping_{connection.get_server_pid()}"
            async with _answer_within(self._ping_timeout):
                await connection.add_listener(self._channel, self._on_notify)
                await connection.add_listener(own, self._on_pong)
                restarted = await self._has_restarted(connection)
            # Before `over`: with each connect the log would say that the outage is over, while the
            # other parts still meet a server that takes no writes.
            _refuse_read_only(connection)
            self.is_connected = True
            log.info(
                "listen_connected",
                database=describe_dsn(self._hosts.dsn),
                host=self._hosts.current,
                server_restarted=restarted,
            )
            self._outage.over("listen")
            # Notifications that were sent while we weren't listening are gone.
            self._wake()
            while True:
                await self._wait_unless_lost(self._ping_every)
                # A pong that came too late for the ping before must not answer this one.
                self._pong.clear()
                async with _answer_within(self._ping_timeout):
                    await connection.execute(f"notify {own}")
                    await self._pong.wait()
                _refuse_read_only(connection)
        finally:
            # At once: closing in good order would wait for a server that may be silent.
            connection.terminate()

    async def _has_restarted(self, connection: asyncpg.Connection) -> bool:
        """Return whether it is another server than before, or the same one after a restart.

        If not, only our connection was cut.
        """
        before = self._server_started_at
        self._server_started_at = await connection.fetchval(LISTEN_QUERIES.server_started_at)
        return before is not None and before != self._server_started_at

    async def _wait_unless_lost(self, duration: timedelta) -> None:
        try:
            async with asyncio.timeout(duration.total_seconds()):
                await self._lost.wait()
        except TimeoutError:
            return
        raise DatabaseUnreachable(
            "the server closed the connection (shutdown, restart or pg_terminate_backend)"
        )

    def _on_notify(self, *_: object) -> None:
        self._wake()

    def _on_pong(self, *_: object) -> None:
        self._pong.set()


def _refuse_read_only(connection: asyncpg.Connection) -> None:
    """Raise when the server takes no writes: after a fail-over no notification comes from it.

    PostgreSQL 14 and later report both settings with the answer to a statement, so that no round
    trip is needed; an older server or a pooler reports nothing.
    """
    reported = connection.get_settings()
    for name in ("in_hot_standby", "default_transaction_read_only"):
        if getattr(reported, name, "off") == "on":
            raise DatabaseUnreachable(f"the server takes no writes now ({name} is on)")


def _as_ours(error: Exception) -> PgworkerError:
    if isinstance(error, PgworkerError):
        return error
    return translate(error) or DatabaseUnreachable(str(error))


@asynccontextmanager
async def _answer_within(duration: timedelta) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(duration.total_seconds()):
            yield
    except TimeoutError as error:
        raise DatabaseUnreachable(
            f"the server was silent for {duration.total_seconds():g} s"
        ) from error
