"""uvicorn inside a program that has its own event loop and signals: the worker, the simulator."""

from __future__ import annotations

import asyncio
import socket
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import uvicorn

if TYPE_CHECKING:
    from collections.abc import Iterator

    from starlette.types import ASGIApp, Scope


class HttpServer(uvicorn.Server):
    """A server that leaves signals to its program, says when it accepts, and doesn't poll."""

    def __init__(self, app: ASGIApp, **options: Any) -> None:
        """Take the application; `options` are those of `uvicorn.Config`."""
        super().__init__(
            uvicorn.Config(
                app,
                http="h11",
                ws="none",
                lifespan="off",
                loop="none",
                log_config=None,
                log_level="warning",
                access_log=False,
                date_header=False,
                server_header=False,
                **options,
            )
        )
        self.accepting = asyncio.Event()
        self.closing = asyncio.Event()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave SIGINT and SIGTERM to the program."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, then set `accepting`."""
        await super().startup(sockets)
        self.accepting.set()

    async def main_loop(self) -> None:
        """Wait until `closing` is set; uvicorn's own loop polls every 0.1 s, which slows tests."""
        await self.closing.wait()

    def abort_connection(self, scope: Scope) -> None:
        """Reset the connection that a request came on."""
        for connection in list(self.server_state.connections):
            transport = connection.transport
            if transport.get_extra_info("peername")[:2] == tuple(scope["client"]):
                transport.abort()

    def abort_all(self) -> None:
        """Reset every connection, so that no idle client keeps the server from closing."""
        for connection in list(self.server_state.connections):
            connection.transport.abort()


def open_listener(host: str, port: int) -> socket.socket:
    """Bind and listen; port 0 takes a free one.

    Raises:
        OSError: the address is taken, or isn't this machine's.
    """
    # asyncio turns Nagle's delay (40 ms an answer) off only where the protocol is named, which
    # socket.create_server doesn't do.
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP, flags=socket.AI_PASSIVE
    )[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(1024)
    except OSError:
        listener.close()
        raise
    return listener
