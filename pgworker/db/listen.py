"""One LISTEN connection of its own, which comes back by itself."""

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
from pgworker.db.reconnect import reconnect_delay
from pgworker.db.translation import DATABASE_ERRORS, translate
from pgworker.errors import BadConfiguration, DatabaseUnreachable, PgworkerError
from pgworker.telemetry import get_logger

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from datetime import datetime

CHANNEL = "pgworker"
# New events, while somebody watches (sql/triggers/event_log_watched.sql).
EVENTS_CHANNEL = "pgworker_events"

# A half-open socket stays silent for ever: only an answer proves that we would be woken.
PING_EVERY = timedelta(seconds=15)
PING_TIMEOUT = timedelta(seconds=5)

log = get_logger()


class ListenQueries(NamedTuple):
    """The statements of `sql/queries/listen.sql`."""

    server_started_at: str


LISTEN_QUERIES = load(ListenQueries, "queries/listen.sql")


class Listening(Protocol):
    """What wakes a process: `Listener`, or a stand-in for it."""

    async def run(self) -> None:
        """Listen until cancelled."""
        ...


class Listener:
    """Calls `wake` for notifications, and after each (re)connect, because some may be lost.

    Many notifications between two turns of the event loop are one wake-up for the caller, whose
    `wake` sets an event. `wake` must not block.
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
        """Take the URL of a direct connection; `outage` is told when it is lost and back."""
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
        """Listen until cancelled."""
        failures = 0
        while True:
            try:
                await self._listen()
            except (*DATABASE_ERRORS, DatabaseUnreachable, BadConfiguration) as error:
                # Bad credentials may be a password that is just being changed: go on trying.
                failures = 1 if self.is_connected else failures + 1
                self._outage.failed("listen", _in_our_words(error))
            finally:
                self.is_connected = False
            await asyncio.sleep(reconnect_delay(failures).total_seconds())

    async def _listen(self) -> None:
        connection = await connect(self._hosts, application_name=self._application_name)
        try:
            self._lost.clear()
            connection.add_termination_listener(lambda _: self._lost.set())
            # One's own channel, so that a ping wakes nobody else.
            own = f"{self._channel}_ping_{connection.get_server_pid()}"
            async with _answer_within(self._ping_timeout):
                await connection.add_listener(self._channel, self._on_notify)
                await connection.add_listener(own, self._on_pong)
                restarted = await self._is_another_run(connection)
            # At once, or what the other parts suffer from would be over with each connect.
            _refuse_if_it_takes_no_writes(connection)
            self.is_connected = True
            log.info(
                "listen_connected",
                database=describe_dsn(self._hosts.dsn),
                host=self._hosts.current,
                server_restarted=restarted,
            )
            self._outage.over("listen")
            self._wake()
            while True:
                await self._wait_or_lost(self._ping_every)
                self._pong.clear()
                async with _answer_within(self._ping_timeout):
                    await connection.execute(f"notify {own}")
                    await self._pong.wait()
                _refuse_if_it_takes_no_writes(connection)
        finally:
            # A broken connection can't be closed politely; don't wait for it.
            connection.terminate()

    async def _is_another_run(self, connection: asyncpg.Connection) -> bool:
        """Tell a server that restarted, or another server, from one that cut us off."""
        before = self._server_started_at
        self._server_started_at = await connection.fetchval(LISTEN_QUERIES.server_started_at)
        return before is not None and before != self._server_started_at

    async def _wait_or_lost(self, duration: timedelta) -> None:
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


def _refuse_if_it_takes_no_writes(connection: asyncpg.Connection) -> None:
    """Leave a server that others have failed over from: nobody notifies us there any more.

    PostgreSQL 14 and later report both with the answer to a statement, so that no round trip is
    needed; an older server or a pooler reports nothing.
    """
    reported = connection.get_settings()
    for name in ("in_hot_standby", "default_transaction_read_only"):
        if getattr(reported, name, "off") == "on":
            raise DatabaseUnreachable(f"the server takes no writes now ({name} is on)")


def _in_our_words(error: Exception) -> PgworkerError:
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
