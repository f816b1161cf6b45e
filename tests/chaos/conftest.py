"""Fixtures of the chaos tests: a server of their own, and a testbed that uses it."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from chaos.testbed import SERVER_SETTINGS, Testbed, make_template
from chaos.workers import launch_workers
from tests.support.clusters import Server, running_server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator


@pytest.fixture(scope="session")
def own_server() -> Iterator[Server]:
    """A server for platforms and tenants both, which no other test uses."""
    with asyncio.Runner() as loop:
        running = running_server(**SERVER_SETTINGS)
        server = loop.run(running.__aenter__())
        loop.run(make_template(server))
        yield server
        loop.run(running.__aexit__(None, None, None))


@pytest.fixture
async def testbed(own_server: Server, tmp_path: Path) -> AsyncIterator[Testbed]:
    """The server, and a fork server for workers."""
    # Workers are killed during their requests: what the simulator's server logs then is noise.
    logging.getLogger("uvicorn.error").disabled = True
    async with launch_workers(tmp_path) as launcher:
        yield Testbed(own_server, own_server, launcher)
    logging.getLogger("uvicorn.error").disabled = False
