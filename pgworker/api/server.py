"""Serves the API from the worker's own event loop."""

from __future__ import annotations

import asyncio
import socket
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

from pgworker.api.app import create_app
from pgworker.api.service import Service
from pgworker.errors import PgworkerError
from pgworker.http_server import HttpServer, open_listener
from pgworker.telemetry import get_logger

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from pgworker.context import Platform
    from pgworker.runtime.daemon import Daemon

# How long requests may go on once the worker has ended.
GRACE = timedelta(seconds=5)

log = get_logger()


@asynccontextmanager
async def serving(platform: Platform, daemon: Daemon | None) -> AsyncIterator[str]:
    """Serve PGWORKER_HTTP while the block runs; yield the URL.

    Args:
        platform: whose settings say where.
        daemon: the worker of this process; None where none runs.

    Raises:
        PgworkerError: the address is taken, or isn't this machine's.
    """
    settings = platform.settings
    assert settings.http_address is not None
    host, port = settings.http_address
    service = Service.from_platform(platform, daemon)
    server = HttpServer(
        create_app(service),
        timeout_graceful_shutdown=int(GRACE.total_seconds()),
    )
    try:
        listener = open_listener(host, port)
    except OSError as error:
        raise PgworkerError(
            f"PGWORKER_HTTP: {settings.http} can't be listened on: {error.strerror or error}"
        ) from error
    with listener:
        url = _get_url(listener)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(server.serve(sockets=[listener]), name="http")
            feeding = tasks.create_task(service.feed.run(), name="event feed")
            await server.accepting.wait()
            log.info(
                "http_started",
                url=url,
                access="tokens" if settings.api_tokens else "this machine only, without a token",
            )
            try:
                yield url
            finally:
                # The streams first: the server waits until its requests have ended.
                service.feed.close()
                server.closing.set()
                feeding.cancel()


def _get_url(listener: socket.socket) -> str:
    """Return the URL of the address that is listened on; port 0 has become a real one."""
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if listener.family is socket.AF_INET6 else host
    return f"http://{shown}:{port}"
