"""The routes for an application, the lifespan that runs the worker in it, and an app of our own."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Depends, FastAPI

from pgworker.api import console
from pgworker.api.auth import identify, remember
from pgworker.api.problems import ProblemRoute, answers, handle_errors
from pgworker.api.routes import admin, clients, probes
from pgworker.api.service import Service
from pgworker.settings import load_settings
from pgworker.tenants.daemon import Daemon
from pgworker.tenants.platform import open_platform
from pgworker.version import __version__

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager

    from pgworker.settings import Settings

MAX_BODY_BYTES = 64 * 1024


def router(*, access: Callable[..., Any] | None = None) -> APIRouter:
    """Return pgworker's routes, for `app.include_router`.

    Args:
        access: a FastAPI dependency that returns a `Principal`, or refuses; instead of the tokens
            of `PGWORKER_API_TOKENS`. The routes ask its scope.
    """
    routes = APIRouter(route_class=ProblemRoute, max_body_size=MAX_BODY_BYTES)
    routes.include_router(probes.router)
    guarded = [Depends(remember(access or identify))]
    refusals = answers(401, 403, 503)
    routes.include_router(clients.router, dependencies=guarded, responses=refusals)
    routes.include_router(admin.router, dependencies=guarded, responses=refusals)
    routes.include_router(console.router, dependencies=guarded, include_in_schema=False)
    routes.include_router(console.open_router, include_in_schema=False)
    return routes


def lifespan(
    inner: Callable[[FastAPI], AbstractAsyncContextManager[Any]] | None = None,
    *,
    settings: Settings | None = None,
) -> Callable[[FastAPI], AbstractAsyncContextManager[Any]]:
    """Return a lifespan that runs the worker while the application runs.

    Args:
        inner: the application's own lifespan; begins after the platform is open, and ends before.
        settings: instead of those of the environment.
    """

    @asynccontextmanager
    async def running(app: FastAPI) -> AsyncIterator[Any]:
        async with open_platform(settings or load_settings()) as platform:
            daemon = Daemon(platform)
            app.state.pgworker = Service.of(platform, daemon)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(daemon.run(), name="pgworker")
                try:
                    if inner is None:
                        yield None
                    else:
                        async with inner(app) as state:
                            yield state
                finally:
                    daemon.drain()

    return running


def create_app(service: Service) -> FastAPI:
    """Return an application that is nothing but pgworker's routes, over an open platform."""
    app = FastAPI(title="pgworker", version=__version__, docs_url=None, redoc_url=None)
    app.state.pgworker = service
    app.include_router(router())
    handle_errors(app)
    return app
