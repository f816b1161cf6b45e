"""The daemon: a worker with its listener, on an open platform."""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
from typing import TYPE_CHECKING, NamedTuple

from pgworker.db.adoption.facts import read_security
from pgworker.db.adoption.security import find_hidden_rows, find_security_objections
from pgworker.db.listen import Listener
from pgworker.db.outage import Outage
from pgworker.db.queries import load
from pgworker.errors import BadConfiguration, DatabaseUnreachable, MigrationRefused
from pgworker.provisioning.phases.base import PhaseSettings
from pgworker.provisioning.runner import PhaseRunner
from pgworker.provisioning.workflow import find_workflows
from pgworker.queue.jobs import Jobs, Outstanding
from pgworker.queue.worker import Worker, WorkerSettings
from pgworker.schema.directory import load_canonical_set
from pgworker.telemetry import get_logger
from pgworker.version import __version__

if TYPE_CHECKING:
    from pgworker.context import Platform
    from pgworker.settings import Settings

log = get_logger()


class WorkerQueries(NamedTuple):
    """The statements of `sql/queries/workers.sql`."""

    register: str
    set_state: str


WORKER_QUERIES = load(WorkerQueries, "queries/workers.sql")


class Daemon:
    """The worker of a process, with its listener and its row in `pgworker.workers`.

    Attributes:
        started: set once the worker is registered.
        is_running: true from then until the worker has ended.
    """

    def __init__(self, platform: Platform, *, until_empty: bool = False) -> None:
        """Create the worker; with `until_empty` it ends when no job is left.

        Raises:
            BadConfiguration: a setting that the worker needs is missing.
        """
        settings = platform.settings
        workflows = find_workflows(settings.workflow)
        # Created now, so that a missing setting stops the start instead of failing a client's job.
        _ = platform.providers.default
        self._platform = platform
        self._id = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(3)}"
        self._outage = Outage()
        self._jobs = Jobs(platform.pool, worker=self._id, lease=settings.lease)
        self._runner = PhaseRunner(
            platform.pool,
            workflows,
            platform.providers.named,
            platform.secrets(),
            settings=PhaseSettings(
                migrations_dir=settings.migrations_dir,
                project_poll=settings.project_poll,
                project_timeout=settings.project_timeout,
                create_lookup=settings.create_lookup,
                phase_timeout=settings.phase_timeout,
            ),
        )
        self._worker = Worker(
            self._jobs,
            self._runner.run,
            prepare=self._runner.prepare,
            settings=WorkerSettings(
                workflows=list(workflows),
                concurrency=settings.concurrency,
                poll=settings.poll,
                backoff=settings.backoff,
                backoff_cap=settings.backoff_cap,
                until_empty=until_empty,
            ),
            outage=self._outage,
        )
        self._listener = self._new_listener()
        self.started = asyncio.Event()
        self.is_running = False

    @property
    def is_listening(self) -> bool | None:
        """Whether the listener is connected; None when the worker only polls."""
        return None if self._listener is None else self._listener.is_connected

    @property
    def is_draining(self) -> bool:
        """Whether `drain` has been called."""
        return self._worker.is_draining

    def drain(self) -> None:
        """Claim no more jobs and let running phases end within the grace period.

        A second call stops the phases at once and releases their jobs.
        """
        if not self._worker.is_draining:
            log.info("drain_requested")
        self._worker.drain()

    async def run(self) -> Outstanding:
        """Work until drained; return the numbers of live and failed jobs.

        Raises:
            BadConfiguration: the canonical migrations can't be used, or row level security hides
                the queue. It is raised before the first claim: later a client's project would
                already exist and be paid for.
            DatabaseUnreachable: at the start only; later the worker waits for the database.
        """
        settings = self._platform.settings
        if not await _has_canonical_set(self._platform):
            log.warning("migrations_missing", directory=str(settings.migrations_dir))
        await self._check_security()
        await self._runner.register()
        await self._register()
        log.info(
            "worker_started",
            worker=self._id,
            version=__version__,
            concurrency=settings.concurrency,
            provider=settings.provider,
        )
        try:
            self.is_running = True
            self.started.set()
            await self._worker.run(self._listener)
            return await self._jobs.outstanding()
        finally:
            self.is_running = False
            await self._mark_stopped()
            log.info("worker_stopped", worker=self._id)

    async def _check_security(self) -> None:
        """Refuse to start where row level security hides the queue or its clients from us."""
        async with self._platform.pool.acquire() as connection:
            security = await read_security(connection)
        objections = [str(each) for each in find_security_objections(security)]
        if objections:
            raise BadConfiguration("\n".join(objections))
        for hidden in find_hidden_rows(security):
            log.warning("rows_may_be_hidden", reason=str(hidden))

    def _new_listener(self) -> Listener | None:
        dsn = self._platform.listen_dsn
        return None if dsn is None else Listener(dsn, self._worker.wake, outage=self._outage)

    async def _register(self) -> None:
        settings: Settings = self._platform.settings
        await self._platform.pool.execute(
            WORKER_QUERIES.register,
            self._id,
            socket.gethostname(),
            os.getpid(),
            __version__,
            settings.concurrency,
            self._jobs.lease,
        )

    async def _mark_stopped(self) -> None:
        try:
            await self._platform.pool.execute(WORKER_QUERIES.set_state, self._id, "stopped")
        except DatabaseUnreachable as error:
            # The worker's silence shows it as well, only later.
            log.warning("worker_stop_not_recorded", error=str(error))


async def check_worker_settings(platform: Platform) -> None:
    """Check everything that a worker needs to be set, before anything is changed.

    Raises:
        BadConfiguration: something is missing, or can't be used.
    """
    find_workflows(platform.settings.workflow)
    _ = platform.providers.default
    platform.secrets()
    await _has_canonical_set(platform)


async def _has_canonical_set(platform: Platform) -> bool:
    """Return whether there are canonical migrations; none are needed to try the embedded default.

    Raises:
        BadConfiguration: they can't be used.
    """
    settings = platform.settings
    try:
        await load_canonical_set(settings.migrations_dir)
    except MigrationRefused as error:
        # A person who tries pgworker out has no project to lose.
        is_trial = (
            platform.data_dir is not None
            and "migrations_dir" not in settings.model_fields_set
            and not settings.migrations_dir.exists()
        )
        if not is_trial:
            raise BadConfiguration(f"PGWORKER_MIGRATIONS_DIR: {error}") from error
        return False
    return True
