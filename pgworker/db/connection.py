"""asyncpg's connection, extended for peers that vanish and databases that don't store Unicode."""

from __future__ import annotations

import socket
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import asyncpg

from pgworker.db.encoding import WITHOUT_CONVERSION, holds, replace_unstorable

if TYPE_CHECKING:
    import asyncio


@dataclass(frozen=True, slots=True)
class SocketOptions:
    """How a peer that vanished is noticed (tcp(7)); None leaves it to the system.

    By default after about half a minute, also by a connection that only waits for a long statement.

    Attributes:
        idle, interval: of the probes, in seconds.
        count: of probes without an answer.
        tcp_user_timeout: of data without an acknowledgement, in milliseconds.
    """

    keepalives: bool = True
    idle: int | None = 15
    interval: int | None = 5
    count: int | None = 3
    tcp_user_timeout: int | None = 30_000

    def apply(self, connected: socket.socket) -> None:
        """Set them; a socket of the local machine has none."""
        if connected.family == socket.AF_UNIX:
            return
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, int(self.keepalives))
        for name, value in (
            ("TCP_KEEPIDLE", self.idle),
            ("TCP_KEEPINTVL", self.interval),
            ("TCP_KEEPCNT", self.count),
            ("TCP_USER_TIMEOUT", self.tcp_user_timeout),
        ):
            # Linux has all of them, other systems some.
            if value is not None and hasattr(socket, name):
                connected.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


class OwnConnection(asyncpg.Connection):  # type: ignore[misc]  # asyncpg isn't typed
    """A connection that notices when its peer is gone, and whose texts the database can store.

    A database with an encoding other than UTF8 refuses a whole statement for one character that it
    lacks. A statement of ours often writes the results of many jobs, and messages quote texts from
    outside: so such a character is replaced by a question mark. Where that would falsify what a
    person typed, ask `can_store` first.

    Attributes:
        opened_at: `time.monotonic()`.
        encoding: of the database, by PostgreSQL's name; UTF8 when a pooler doesn't report it.
    """

    def __init__(self, protocol: Any, transport: asyncio.Transport, *others: Any) -> None:
        super().__init__(protocol, transport, *others)
        self.opened_at = time.monotonic()
        self.encoding: str = getattr(protocol.get_settings(), "server_encoding", "UTF8")
        self._socket: socket.socket | None = transport.get_extra_info("socket")

    def set_socket_options(self, options: SocketOptions) -> None:
        """Say how a dead peer is noticed."""
        if self._socket is not None:
            options.apply(self._socket)

    def can_store(self, text: str) -> bool:
        """Return whether the database can store all characters of the text."""
        return holds(text, self.encoding)

    async def fetch(self, query: str, *arguments: Any, **options: Any) -> Any:
        """Run a statement; return its rows."""
        return await super().fetch(query, *self._storable(arguments), **options)

    async def fetchrow(self, query: str, *arguments: Any, **options: Any) -> Any:
        """Run a statement; return its first row."""
        return await super().fetchrow(query, *self._storable(arguments), **options)

    async def fetchval(self, query: str, *arguments: Any, **options: Any) -> Any:
        """Run a statement; return the first value of its first row."""
        return await super().fetchval(query, *self._storable(arguments), **options)

    async def execute(self, query: str, *arguments: Any, **options: Any) -> str:
        """Run a statement, or a script without arguments; return its command tag."""
        tag: str = await super().execute(query, *self._storable(arguments), **options)
        return tag

    def _storable(self, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        if not arguments or self.encoding in WITHOUT_CONVERSION:
            return arguments
        return tuple(_replace_in(each, self.encoding) for each in arguments)


def _replace_in(argument: Any, encoding: str) -> Any:
    if isinstance(argument, str):
        return replace_unstorable(argument, encoding)
    if isinstance(argument, list | tuple):
        return [_replace_in(each, encoding) for each in argument]
    # Values of jsonb become text in their codec (`pool.set_codecs`).
    return argument
