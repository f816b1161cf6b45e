"""`pgworker run`."""

from __future__ import annotations

import asyncio
import signal
from contextlib import nullcontext
from typing import TYPE_CHECKING, Annotated

import typer

from pgworker.context import locate_data_dir, open_platform
from pgworker.runtime.daemon import Daemon, check_worker_settings
from pgworker.settings import load_settings
from pgworker.telemetry import configure_logging, configure_opentelemetry, get_logger

from .console import EX_FAILED, run_async

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

    from pgworker.context import Platform
    from pgworker.settings import Settings

    Serve = Callable[[Platform, Daemon], AbstractAsyncContextManager[object]]

log = get_logger()


def run(
    concurrency: Annotated[
        int | None, typer.Option(min=1, max=10_000, help="phases at a time  [default: 20]")
    ] = None,
    http: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="serve the HTTP API and the console")
    ] = None,
    migrate: Annotated[
        bool, typer.Option("--migrate", help="update pgworker's own schema first")
    ] = False,
    drain: Annotated[
        bool, typer.Option("--drain", help="exit once nothing is queued, running or waiting")
    ] = False,
) -> None:
    """Run a worker, which provisions clients as they are queued.

    SIGTERM or Ctrl-C drains: running phases get 20 seconds, then their jobs are released. A second
    signal stops them at once. With --drain the exit code is 1 when a job has failed.
    """
    overrides = {"PGWORKER_CONCURRENCY": concurrency, "PGWORKER_HTTP": http}
    settings = load_settings(**{name: value for name, value in overrides.items() if value})
    configure_logging(settings.log_format)
    serve = _choose_server(settings)
    configure_opentelemetry(scraped=settings.http is not None)
    raise typer.Exit(run_async(_run(settings, serve, migrate=migrate, drain=drain)))


async def _run(settings: Settings, serve: Serve, *, migrate: bool, drain: bool) -> int:
    """Run a worker until it has drained; return the exit code."""
    if settings.database_url is None:
        log.info(
            "embedded_server_selected",
            data_dir=str(locate_data_dir(settings)),
            reason="DATABASE_URL is not set",
        )
    async with open_platform(
        settings, migrate_first=migrate, check=check_worker_settings
    ) as platform:
        daemon = Daemon(platform, until_empty=drain)
        signalled = _drain_on_signals(daemon)
        async with serve(platform, daemon):
            left = await daemon.run()
    if not drain:
        return 0
    # The queue is empty, or a signal came first and left live jobs behind.
    if left.failed:
        log.error("jobs_failed", jobs=left.failed, advice="pgworker jobs --failed")
        return EX_FAILED
    return EX_FAILED if left.live and signalled.is_set() else 0


def _choose_server(settings: Settings) -> Serve:
    """Return what serves HTTP beside the worker, or nothing when PGWORKER_HTTP is not set.

    Raises:
        PgworkerError: the extra `http` is not installed.
    """
    if settings.http is None:
        return lambda *_: nullcontext()
    # Imported only here: a worker without HTTP needs none of the extra's packages.
    from pgworker.api.server import serving

    return serving


def _drain_on_signals(daemon: Daemon) -> asyncio.Event:
    """Drain the daemon on SIGTERM and SIGINT; return an event that is set by the first of them."""
    signalled = asyncio.Event()

    def drain() -> None:
        signalled.set()
        daemon.drain()  # the second call stops the phases at once

    for each in (signal.SIGTERM, signal.SIGINT):
        # Replaces what `run_async` does on SIGTERM: a worker must not be cancelled in mid-phase.
        asyncio.get_running_loop().add_signal_handler(each, drain)
    return signalled
