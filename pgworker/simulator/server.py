"""Runs a simulator in this process, over real HTTP on a loopback port."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from starlette.types import ASGIApp

from pgworker.http_server import HttpServer, open_listener
from pgworker.simulator.app import build_app
from pgworker.simulator.databases import database_name
from pgworker.simulator.faults import Faults
from pgworker.simulator.ledger import Ledger
from pgworker.simulator.pooler import Pooler
from pgworker.simulator.settings import SimulatorSettings
from pgworker.simulator.state import Projects
from pgworker.simulator.world import World

Middleware = Callable[[ASGIApp], ASGIApp]


class Simulator:
    """A running simulator.

    Attributes:
        url: for `SUPABASE_API_URL`.
        project_url_template: for `PGWORKER_SUPABASE_PROJECT_URL`; contains `{ref}`.
        pooler_port: session mode, for `PGWORKER_SUPABASE_POOLER_PORT`; the host is the API's.
        token: for `SUPABASE_ACCESS_TOKEN`.
        organization: slug, for `SUPABASE_ORG_ID`.
    """

    def __init__(self, world: World, url: str) -> None:
        self._world = world
        self.url = url
        self.project_url_template = url + "/projects/{ref}"
        self.pooler_port = world.pooler_address[1]
        self.token = world.settings.token
        self.organization = world.settings.organizations[0].slug

    @property
    def ledger(self) -> Ledger:
        """The requests and answers so far, and every project that was created."""
        return self._world.ledger

    @property
    def projects(self) -> Projects:
        """The projects: to read, to plant, and to change."""
        return self._world.projects

    @property
    def faults(self) -> Faults:
        """The faults: to order and to release."""
        return self._world.faults


@asynccontextmanager
async def running_simulator(
    settings: SimulatorSettings, *, middleware: Sequence[Middleware] = ()
) -> AsyncIterator[Simulator]:
    """Run a simulator until the block ends, then drop its databases.

    Args:
        settings: how it behaves.
        middleware: wraps the application, the first one outermost; sees ordered faults as well.

    Raises:
        OSError: the port is taken.
        asyncpg.PostgresError, OSError: the server behind it refuses (when first used).
    """
    world = World.create(settings)

    async def find_database(ref: str) -> str | None:
        if not world.projects.is_known_to_pooler(ref):
            return None
        await world.databases.ensure(world.projects.get(ref))
        return database_name(ref)

    pooler = Pooler(settings.admin_dsn, find_database)
    app: ASGIApp = build_app(world)
    for wrap in reversed(middleware):
        app = wrap(app)
    server = HttpServer(app, timeout_keep_alive=60)
    world.abort_connection = server.abort_connection
    with open_listener(settings.host, settings.port) as listener:
        port = listener.getsockname()[1]
        # No TaskGroup: it would wrap every error of the caller's block in an ExceptionGroup.
        serving = asyncio.create_task(server.serve(sockets=[listener]), name="simulator")
        try:
            world.pooler_address = (settings.host, await pooler.start(settings.host))
            await server.accepting.wait()
            yield Simulator(world, f"http://{settings.host}:{port}")
        finally:
            world.faults.abandon()
            server.closing.set()
            server.abort_all()
            await pooler.aclose()
            await world.databases.aclose()
            await serving
