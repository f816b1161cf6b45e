"""The routes for an application, the lifespan that runs the worker in it, and an app of our own."""

from __future__ import annotations

import asyncio
import signal
import threading
from contextlib import asynccontextmanager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Depends, FastAPI

from pgworker.api import console
from pgworker.api.auth import identify, remember
from pgworker.api.problems import ProblemRoute, document_problems, handle_errors
from pgworker.api.routes import admin, clients, metrics, probes
from pgworker.api.service import Service
from pgworker.context import open_platform
from pgworker.runtime.daemon import Daemon, check_worker_settings
from pgworker.settings import load_settings
from pgworker.version import __version__

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from contextlib import AbstractAsyncContextManager

    from pgworker.settings import Settings
    from pgworker.status.events import EventFeed


def router(*, access: Callable[..., Any] | None = None, probes_too: bool = True) -> APIRouter:
    """Return pgworker's routes, for `app.include_router`. They need `lifespan`.

    Args:
        access: a FastAPI dependency that returns a `Principal`, or raises an `HTTPException`;
            instead of the tokens of `PGWORKER_API_TOKENS`. Each route checks the scope.
        probes_too: with `/healthz`, `/readyz` and `/metrics`, which an application may have itself.
    """
    routes = APIRouter(route_class=ProblemRoute)
    # The caller is identified once for each request; then the route asks for a scope (auth).
    guarded = [Depends(remember(access or identify))]
    refusals = document_problems(401, 403, 500, 503)
    if probes_too:
        routes.include_router(probes.router)
        routes.include_router(metrics.router, dependencies=guarded, responses=refusals)
    routes.include_router(clients.router, dependencies=guarded, responses=refusals)
    routes.include_router(admin.router, dependencies=guarded, responses=refusals)
    # Pages are for people: the description is for programs, which would find no use for them.
    routes.include_router(console.router, dependencies=guarded, include_in_schema=False)
    routes.include_router(console.open_router, include_in_schema=False)
    return routes


def lifespan(
    inner: Callable[[FastAPI], AbstractAsyncContextManager[Any]] | None = None,
    *,
    settings: Settings | None = None,
    migrate: bool = False,
) -> Callable[[FastAPI], AbstractAsyncContextManager[Any]]:
    """Return a lifespan that runs the worker while the application runs.

    The application starts after the worker. It ends when the running phases have ended, or after
    20 seconds, as `pgworker run` does.

    Args:
        inner: the application's own lifespan; it begins after the worker, and ends before it.
        settings: instead of those of the environment.
        migrate: bring pgworker's schema up to date first.

    Raises (when the application starts):
        BadConfiguration, DatabaseUnreachable, SchemaMismatch: as `pgworker run` refuses to start.
    """

    @asynccontextmanager
    async def running(app: FastAPI) -> AsyncIterator[Any]:
        chosen = settings or load_settings()
        async with open_platform(
            chosen, migrate_first=migrate, check=check_worker_settings
        ) as platform:
            daemon = Daemon(platform)
            service = Service.from_platform(platform, daemon)
            # Where `get_service` finds it.
            app.state.pgworker = service
            async with _running(service, daemon):
                own = nullcontext() if inner is None else inner(app)
                with _close_streams_on_signals(service.feed):
                    async with own as state:
                        yield state

    return running


@asynccontextmanager
async def _running(service: Service, daemon: Daemon) -> AsyncIterator[None]:
    """Run the worker and the streams while the block runs."""
    try:
        async with asyncio.TaskGroup() as tasks:
            working = tasks.create_task(daemon.run(), name="pgworker")
            feeding = tasks.create_task(service.feed.run(), name="event feed")
            await daemon.started.wait()
            try:
                yield
            finally:
                service.feed.close()
                daemon.drain()
                # Not awaited directly: its error belongs to the group, which raises it below.
                await asyncio.wait({working})
                feeding.cancel()
    except ExceptionGroup as group:
        if len(group.exceptions) == 1:
            # A single error, of the application or ours, is clearer without the group around it.
            raise group.exceptions[0] from None
        raise


@contextmanager
def _close_streams_on_signals(feed: EventFeed) -> Iterator[None]:
    """Close the streams when the server gets a signal to stop.

    A server waits for its last request before it ends the lifespan, and a stream is a request that
    never ends by itself: without this they would wait for each other. Uvicorn has no hook that is
    called before, so the signal's handler is wrapped.
    """
    if threading.current_thread() is not threading.main_thread():
        # Python sets handlers in the main thread only; a server in another has none.
        yield
        return
    loop = asyncio.get_running_loop()
    before = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)}

    def close_streams(number: int, frame: Any) -> None:
        loop.call_soon_threadsafe(feed.close)
        handler = before[signal.Signals(number)]
        if callable(handler):
            handler(number, frame)

    # The system's default (SIG_DFL, SIG_IGN) isn't callable, and stays as it is.
    wrapped = [each for each, handler in before.items() if callable(handler)]
    for each in wrapped:
        signal.signal(each, close_streams)
    try:
        yield
    finally:
        for each in wrapped:
            signal.signal(each, before[each])


def create_app(service: Service) -> FastAPI:
    """Return an application with pgworker's routes only, over an open platform."""
    app = FastAPI(
        title="pgworker",
        version=__version__,
        summary="Tenant provisioning: insert a client, get a working backend.",
        # FastAPI's pages for them load scripts from another server.
        docs_url=None,
        redoc_url=None,
    )
    app.state.pgworker = service
    app.include_router(router())
    handle_errors(app)
    return app
