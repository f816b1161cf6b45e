"""`pgworker run`."""

from __future__ import annotations

import asyncio
import signal
from contextlib import nullcontext
from typing import TYPE_CHECKING, Annotated

import typer

from pgworker.context import open_platform
from pgworker.runtime.daemon import Daemon
from pgworker.settings import load_settings
from pgworker.telemetry import configure_logging, configure_opentelemetry, get_logger

from .console import EX_FAILED, data_dir, run_async

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from pgworker.context import Platform
    from pgworker.settings import Settings

log = get_logger()


def run(
    concurrency: Annotated[
        int | None, typer.Option(min=1, max=10_000, help="phases at a time  [default: 20]")
    ] = None,
    http: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="serve the HTTP API and the console")
    ] = None,
    migrate: Annotated[
        bool, typer.Option("--migrate", help="bring pgworker's own schema up to date first")
    ] = False,
    drain: Annotated[
        bool, typer.Option("--drain", help="leave when nothing is queued, running or waiting")
    ] = False,
) -> None:
    """Work: provision what is queued, and what will be.

    SIGTERM or Ctrl-C drains: running phases get 20 seconds, then their jobs are given back; a
    second one leaves at once. With --drain the exit code is 1 when a job has failed.
    """
    overrides = {"PGWORKER_CONCURRENCY": concurrency, "PGWORKER_HTTP": http}
    settings = load_settings(**{name: value for name, value in overrides.items() if value})
    configure_logging(settings.log_format)
    if settings.http is not None:
        _refuse_bad_address(settings)
    configure_opentelemetry(scraped=settings.http is not None)
    raise typer.Exit(run_async(_run(settings, migrate=migrate, drain=drain)))


async def _run(settings: Settings, *, migrate: bool, drain: bool) -> int:
    if settings.database_url is None:
        log.info(
            "embedded_postgresql_used",
            data_dir=str(data_dir(settings)),
            reason="DATABASE_URL is not set",
        )
    async with open_platform(settings, migrate_first=migrate) as platform:
        daemon = Daemon(platform, until_empty=drain)
        told_to_leave = _drain_on_signals(daemon)
        async with _http(platform, daemon):
            left = await daemon.run()
    if not drain:
        return 0
    if left.failed:
        log.error("jobs_have_failed", jobs=left.failed, advice="pgworker jobs --failed")
        return EX_FAILED
    return EX_FAILED if left.live and told_to_leave.is_set() else 0


def _refuse_bad_address(settings: Settings) -> None:
    from pgworker.api.server import address_of  # the extra `http`

    address_of(settings)


def _http(platform: Platform, daemon: Daemon) -> AbstractAsyncContextManager[object]:
    if platform.settings.http is None:
        return nullcontext()
    from pgworker.api.server import serving  # the extra `http`

    return serving(platform, daemon)


def _drain_on_signals(daemon: Daemon) -> asyncio.Event:
    told = asyncio.Event()

    def drain() -> None:
        told.set()
        daemon.drain()

    for each in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(each, drain)
    return told
