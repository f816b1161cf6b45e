"""A TCP proxy in front of PostgreSQL that can fall silent, as a network does."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class Proxy:
    """Forwards bytes both ways until it is frozen; nobody is told that it is.

    Attributes:
        connections: how many were accepted so far.
    """

    def __init__(self, host: str, port: int) -> None:
        self._host = host
        self._port = port
        self._open = asyncio.Event()
        self._open.set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._admits = True
        self.connections = 0
        self.accepted = asyncio.Event()

    def freeze(self) -> None:
        """Stop forwarding, for connections old and new, without closing any."""
        self._open.clear()

    def thaw(self) -> None:
        """Forward again, what was held back first."""
        self._open.set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Forward one connection."""
        self.connections += 1
        self.accepted.set()
        self._writers.add(writer)
        if not self._admits:
            writer.transport.abort()
            return
        try:
            there, back = await asyncio.open_connection(self._host, self._port)
            self._writers.add(back)
            async with asyncio.TaskGroup() as ways:
                ways.create_task(self._forward(reader, back))
                ways.create_task(self._forward(there, writer))
        except* OSError:
            pass
        finally:
            writer.close()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            await self._open.wait()
            writer.write(data)
            await writer.drain()
        writer.close()

    def refuse(self) -> None:
        """Cut every connection, and let nobody in."""
        self._admits = False
        self.close()

    def admit(self) -> None:
        """Let connections in again."""
        self._admits = True

    def close(self) -> None:
        """Cut every connection."""
        self._open.set()
        for writer in self._writers:
            writer.transport.abort()


@asynccontextmanager
async def proxy_to(dsn: str) -> AsyncIterator[tuple[Proxy, str]]:
    """Run a proxy in front of the server of the DSN; yield it, and the DSN that goes through."""
    parts = urlsplit(dsn)
    assert parts.hostname is not None
    proxy = Proxy(parts.hostname, parts.port or 5432)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    userinfo = parts.netloc.rpartition("@")[0]
    try:
        yield proxy, parts._replace(netloc=f"{userinfo}@127.0.0.1:{port}").geturl()
    finally:
        proxy.close()
        server.close()
        with suppress(TimeoutError):
            async with asyncio.timeout(5):
                await server.wait_closed()
