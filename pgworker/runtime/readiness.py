"""What a process lacks to be of use, for a load balancer and whoever reads what it was told.

The answers name no host and no credential: anybody may ask.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING

from pgworker.db.migrate import read_state
from pgworker.errors import BadConfiguration, DatabaseUnreachable, SchemaMismatch

if TYPE_CHECKING:
    from pgworker.context import Platform
    from pgworker.runtime.daemon import Daemon

PATIENCE = timedelta(seconds=3)
# Anybody may ask, as often as they like; the database is asked once a second.
FRESH_FOR = timedelta(seconds=1)


class Dependency(StrEnum):
    """What it takes to be ready."""

    DATABASE = "database"
    SCHEMA = "schema"
    WORKER = "worker"
    LISTENER = "listener"
    CREDENTIALS = "credentials"


@dataclass(frozen=True, slots=True)
class Missing:
    """A dependency that is missing, and what to do about it."""

    name: Dependency
    what: str


class Readiness:
    """Tells what is missing."""

    def __init__(self, platform: Platform, daemon: Daemon | None) -> None:
        """Look at a platform, and at the worker of this process where there is one."""
        self._platform = platform
        self._daemon = daemon
        self._missing: list[Missing] = []
        self._fresh_until = 0.0
        self._asking = asyncio.Lock()

    async def missing(self) -> list[Missing]:
        """Return what is missing; nothing: ready. Never raises what it is asked about."""
        async with self._asking:
            if time.monotonic() >= self._fresh_until:
                self._missing = [*await self._of_the_database(), *self._of_the_worker()]
                self._fresh_until = time.monotonic() + FRESH_FOR.total_seconds()
            return self._missing

    async def _of_the_database(self) -> list[Missing]:
        try:
            async with asyncio.timeout(PATIENCE.total_seconds()):
                async with self._platform.pool.acquire() as connection:
                    state = await read_state(connection)
                state.refuse_if_not_current()
                refused = await self._platform.status.list_open_breakers()
        except (DatabaseUnreachable, TimeoutError):
            return [Missing(Dependency.DATABASE, "the database does not answer")]
        except SchemaMismatch as error:
            return [Missing(Dependency.SCHEMA, str(error))]
        except BadConfiguration:
            return [Missing(Dependency.DATABASE, "the database refuses us: pgworker doctor")]
        if not refused:
            return []
        advice = f"the provider refuses {len(refused)} of our credentials: pgworker doctor"
        return [Missing(Dependency.CREDENTIALS, advice)]

    def _of_the_worker(self) -> list[Missing]:
        if self._daemon is None:
            return []
        if self._daemon.is_draining:
            return [Missing(Dependency.WORKER, "the worker of this process is leaving")]
        if not self._daemon.is_running:
            return [Missing(Dependency.WORKER, "the worker of this process does not run")]
        if self._daemon.is_listening is False:
            return [
                Missing(Dependency.LISTENER, "no notification reaches us: new jobs wait a while")
            ]
        return []
