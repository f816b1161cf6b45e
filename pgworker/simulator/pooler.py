"""The session pooler: connects tenants to their databases, once it knows them.

It reads the startup packet of PostgreSQL's protocol (3.0), chooses the database by the user in it,
and then forwards bytes, so that the real server checks the password. It declines TLS.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Awaitable, Callable
from contextlib import suppress
from urllib.parse import parse_qs, unquote, urlsplit

PROTOCOL_3 = 0x00030000
SSL_REQUEST = 80877103
GSSENC_REQUEST = 80877104
MAX_STARTUP_BYTES = 10_000
CHUNK_BYTES = 65_536

# Returns the name of a project's database by its ref, or None for an unknown tenant.
FindDatabase = Callable[[str], Awaitable[str | None]]


class Pooler:
    """One listening socket in front of the real server."""

    def __init__(self, server_dsn: str, find_database: FindDatabase) -> None:
        self._address = parse_address(server_dsn)
        self._find_database = find_database
        self._server: asyncio.Server | None = None
        self._sessions: set[asyncio.Task[None]] = set()

    async def start(self, host: str) -> int:
        """Listen on a free port and return it."""
        self._server = await asyncio.start_server(self._accept, host, 0)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def aclose(self) -> None:
        """Stop listening and end every session."""
        if self._server is not None:
            self._server.close()
        for session in list(self._sessions):
            session.cancel()
        await asyncio.gather(*self._sessions, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        session = asyncio.create_task(self._handle(reader, writer), name="pooler-session")
        self._sessions.add(session)
        session.add_done_callback(self._sessions.discard)

    async def _handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                await self._serve(reader, writer)
        finally:
            writer.transport.abort() if writer.is_closing() else writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        parameters = await _read_startup(reader, writer)
        if parameters is None:
            return
        _, _, ref = parameters.get("user", "").partition(".")
        database = await self._find_database(ref)
        if database is None:
            writer.write(build_fatal("XX000", "Tenant or user not found"))
            await writer.drain()
            return
        # Supavisor calls every tenant's database `postgres`; the real server has many.
        if parameters.get("database", "postgres") == "postgres":
            parameters["database"] = database
        server_reader, server_writer = await self._connect()
        try:
            server_writer.write(build_startup(parameters))
            async with asyncio.TaskGroup() as directions:
                directions.create_task(_copy(reader, server_writer), name="pooler-up")
                directions.create_task(_copy(server_reader, writer), name="pooler-down")
        finally:
            server_writer.close()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        host, port = self._address
        if host.startswith("/"):
            return await asyncio.open_unix_connection(f"{host}/.s.PGSQL.{port}")
        return await asyncio.open_connection(host, port)


def parse_address(dsn: str) -> tuple[str, int]:
    """Return host (or directory of the socket) and port of a PostgreSQL URL."""
    url = urlsplit(dsn)
    options = parse_qs(url.query)
    host = url.hostname or options.get("host", ["localhost"])[0]
    port = url.port or int(options.get("port", ["5432"])[0])
    return unquote(host), port


def build_startup(parameters: dict[str, str]) -> bytes:
    """Return a startup packet of protocol 3.0."""
    body = b"".join(part.encode() + b"\0" for pair in parameters.items() for part in pair)
    return struct.pack("!ii", len(body) + 9, PROTOCOL_3) + body + b"\0"


def build_fatal(sqlstate: str, message: str) -> bytes:
    """Return an ErrorResponse that ends the session."""
    fields = {"S": "FATAL", "V": "FATAL", "C": sqlstate, "M": message}
    body = b"".join(f"{code}{text}".encode() + b"\0" for code, text in fields.items()) + b"\0"
    return b"E" + struct.pack("!i", len(body) + 4) + body


async def _read_startup(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> dict[str, str] | None:
    """Return the parameters of the startup packet, or None when it isn't one."""
    while True:
        length, code = struct.unpack("!ii", await reader.readexactly(8))
        if not 8 <= length <= MAX_STARTUP_BYTES:
            return None
        body = await reader.readexactly(length - 8)
        if code in (SSL_REQUEST, GSSENC_REQUEST):
            writer.write(b"N")
            continue
        if code != PROTOCOL_3:
            return None
        texts = [part.decode(errors="replace") for part in body.split(b"\0")]
        pairs = zip(texts[::2], texts[1::2], strict=False)
        return {name: value for name, value in pairs if name}


async def _copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    try:
        while chunk := await source.read(CHUNK_BYTES):
            target.write(chunk)
            await target.drain()
    except ConnectionError:
        return
    finally:
        target.close()
