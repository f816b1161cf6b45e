"""A TCP proxy that does to connections what networks do: hold them, slow them down, cut them."""

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
        """Cut both ends, without a farewell."""
        for end in (self.client, self.server):
            if end is not None:
                end.transport.abort()


@dataclass(eq=False, slots=True)
class TcpProxy:
    """Forwards bytes both ways, until told otherwise.

    Attributes:
        port: on 127.0.0.1.
        links: the open connections, oldest first.
        accepted: set with each connection that is let in.
        refused: how many were turned away so far.
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
        """Let everything through again: first what was held back."""
        self._delay = 0.0
        self._admits = True
        self._flows.set()

    def freeze(self) -> None:
        """Hold back every byte, of connections old and new; nobody is told."""
        self._flows.clear()

    def delay(self, seconds: float) -> None:
        """Let every byte be so late from now on."""
        self._delay = seconds

    def refuse(self) -> None:
        """Cut every new connection at once; the old ones stay."""
        self._admits = False

    def half_open(self) -> int:
        """Carry nothing more over the open connections, for ever; new ones are like new.

        Both ends believe in theirs, as when a firewall between them has forgotten it. Return how
        many there are.
        """
        for link in self.links:
            link.is_half_open = True
        return len(self.links)

    def reset(self, links: Iterable[Link] | None = None) -> int:
        """Cut these connections, or all; return how many were open."""
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
        """Cut everything and stop listening."""
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
            there, link.server = await asyncio.open_connection(self.host, self.target_port)
            async with asyncio.TaskGroup() as ways:
                ways.create_task(self._carry(link, reader, link.server))
                ways.create_task(self._carry(link, there, writer))
        except* OSError:
            pass
        finally:
            link.reset()
            if link in self.links:
                self.links.remove(link)

    async def _carry(
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
            # Nor does the other end hear that this one has gone.
            await asyncio.Event().wait()
        with suppress(OSError):
            writer.write_eof()


@asynccontextmanager
async def tcp_proxy(host: str, port: int) -> AsyncIterator[TcpProxy]:
    """Run a proxy in front of this address while the block runs."""
    proxy = TcpProxy(host, port)
    await proxy.start()
    try:
        yield proxy
    finally:
        await proxy.aclose()


@asynccontextmanager
async def proxy_to(dsn: str) -> AsyncIterator[tuple[TcpProxy, str]]:
    """Run a proxy in front of the server of the DSN; yield it, and the DSN that goes through."""
    parts = urlsplit(dsn)
    assert parts.hostname is not None
    async with tcp_proxy(parts.hostname, parts.port or 5432) as proxy:
        userinfo = parts.netloc.rpartition("@")[0]
        yield proxy, parts._replace(netloc=f"{userinfo}@127.0.0.1:{proxy.port}").geturl()
