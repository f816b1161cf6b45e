"""A TCP proxy that holds, delays, refuses and cuts connections, as networks do."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

CHUNK_BYTES = 65536


@dataclass(eq=False, slots=True)
class Link:
    """One connection through the proxy."""

    client: asyncio.StreamWriter
    server: asyncio.StreamWriter | None = None
    is_half_open: bool = False

    def reset(self) -> None:
        """Reset both connections, without an orderly shutdown."""
        for end in (self.client, self.server):
            if end is not None:
                end.transport.abort()


@dataclass(eq=False, slots=True)
class TcpProxy:
    """Forwards bytes in both directions, with the faults that its methods switch on.

    Attributes:
        port: on 127.0.0.1.
        links: the open connections, oldest first.
        accepted: set with each connection that is accepted.
        refused: how many connections were refused so far.
    """

    host: str
    target_port: int
    port: int = 0
    links: list[Link] = field(default_factory=list)
    accepted: asyncio.Event = field(default_factory=asyncio.Event)
    refused: int = 0
    _flows: asyncio.Event = field(default_factory=asyncio.Event)
    _delay: float = 0.0
    _admits: bool = True
    _serving: set[asyncio.Task[None]] = field(default_factory=set)
    _server: asyncio.Server | None = None

    def forward(self) -> None:
        """Forward everything again, first the bytes that were held back."""
        self._delay = 0.0
        self._admits = True
        self._flows.set()

    def freeze(self) -> None:
        """Hold back every byte of all connections, old and new; neither end notices."""
        self._flows.clear()

    def delay(self, seconds: float) -> None:
        """Delay all bytes by so many seconds from now on."""
        self._delay = seconds

    def refuse(self) -> None:
        """Reset every new connection at once; the old ones stay open."""
        self._admits = False

    def half_open(self) -> int:
        """Forward nothing more over the open connections; new ones are not affected.

        Both ends believe that theirs is open, as when a firewall between them has dropped its
        state. Return how many there are.
        """
        for link in self.links:
            link.is_half_open = True
        return len(self.links)

    def reset(self, links: Iterable[Link] | None = None) -> int:
        """Reset these connections, or all; return how many were open."""
        chosen = list(self.links if links is None else links)
        for link in chosen:
            link.reset()
        self.links = [link for link in self.links if link not in chosen]
        return len(chosen)

    async def start(self) -> None:
        self._flows.set()
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def aclose(self) -> None:
        """Reset all connections and stop listening."""
        assert self._server is not None
        self._server.close()
        self.reset()
        for task in list(self._serving):
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer), name="proxied connection")
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self._admits:
            self.refused += 1
            writer.transport.abort()
            return
        self.accepted.set()
        link = Link(writer)
        self.links.append(link)
        try:
            upstream, link.server = await asyncio.open_connection(self.host, self.target_port)
            async with asyncio.TaskGroup() as directions:
                directions.create_task(self._forward(link, reader, link.server))
                directions.create_task(self._forward(link, upstream, writer))
        except* OSError:
            pass
        finally:
            link.reset()
            if link in self.links:
                self.links.remove(link)

    async def _forward(
        self, link: Link, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        while data := await reader.read(CHUNK_BYTES):
            if self._delay:
                await asyncio.sleep(self._delay)
            await self._flows.wait()
            if not link.is_half_open:
                writer.write(data)
                await writer.drain()
        if link.is_half_open:
            # The other end must not notice that this one has closed.
            await asyncio.Event().wait()
        with suppress(OSError):
            writer.write_eof()


@asynccontextmanager
async def running_proxy(host: str, port: int) -> AsyncIterator[TcpProxy]:
    """Run a proxy in front of this address while the block runs."""
    proxy = TcpProxy(host, port)
    await proxy.start()
    try:
        yield proxy
    finally:
        await proxy.aclose()


@asynccontextmanager
async def running_proxy_to(dsn: str) -> AsyncIterator[tuple[TcpProxy, str]]:
    """Run a proxy to the server of the DSN; yield it with the DSN that leads through it."""
    parts = urlsplit(dsn)
    assert parts.hostname is not None
    async with running_proxy(parts.hostname, parts.port or 5432) as proxy:
        userinfo = parts.netloc.rpartition("@")[0]
        yield proxy, parts._replace(netloc=f"{userinfo}@127.0.0.1:{proxy.port}").geturl()
