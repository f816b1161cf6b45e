"""Fixtures of the chaos tests: a server that may be torn down, and a stage on it."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from chaos.testbed import SERVER, Stage, make_template
from chaos.workers import worker_processes
from tests.support.clusters import Server, a_server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator


@pytest.fixture(scope="session")
def own_server() -> Iterator[Server]:
    """A server for platforms and tenants both, which no other test uses."""
    with asyncio.Runner() as loop:
        running = a_server(**SERVER)
        server = loop.run(running.__aenter__())
        loop.run(make_template(server))
        yield server
        loop.run(running.__aexit__(None, None, None))


@pytest.fixture
async def stage(own_server: Server, tmp_path: Path) -> AsyncIterator[Stage]:
    """The server, and a fork server for workers."""
    # Workers die in the middle of their requests: what the simulator's server says of it is noise.
    logging.getLogger("uvicorn.error").disabled = True
    async with worker_processes(tmp_path) as workers:
        yield Stage(own_server, own_server, workers)
    logging.getLogger("uvicorn.error").disabled = False
