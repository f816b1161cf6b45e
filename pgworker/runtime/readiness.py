"""What a process lacks to be ready, for a load balancer and for the person who reads its answer.

The answers name no host and no credential, because `/readyz` needs no token.
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

# Below what load balancers allow a health check: they must get the answer, not a time-out.
DATABASE_TIMEOUT = timedelta(seconds=3)
# Requests need no token and may come in any number; the database is queried once in this time.
CACHED_FOR = timedelta(seconds=1)


class Dependency(StrEnum):
    """What a process needs to be ready."""

    DATABASE = "database"
    SCHEMA = "schema"
    WORKER = "worker"
    LISTENER = "listener"
    CREDENTIALS = "credentials"


@dataclass(frozen=True, slots=True)
class Missing:
    """A dependency that is missing.

    Attributes:
        what: what is wrong, and the command that shows more.
    """

    name: Dependency
    what: str


class Readiness:
    """Finds what is missing."""

    def __init__(self, platform: Platform, daemon: Daemon | None) -> None:
        """Check a platform, and the worker of this process unless `daemon` is None."""
        self._platform = platform
        self._daemon = daemon
        self._missing: list[Missing] = []
        self._cached_until = 0.0
        self._checking = asyncio.Lock()

    async def missing(self) -> list[Missing]:
        """Return what is missing; an empty list means ready.

        An error of a dependency is an entry of the list: it is never raised.
        """
        async with self._checking:
            if time.monotonic() >= self._cached_until:
                self._missing = [*await self._check_database(), *self._check_worker()]
                self._cached_until = time.monotonic() + CACHED_FOR.total_seconds()
            return self._missing

    async def _check_database(self) -> list[Missing]:
        try:
            async with asyncio.timeout(DATABASE_TIMEOUT.total_seconds()):
                async with self._platform.pool.acquire() as connection:
                    state = await read_state(connection)
                state.refuse_if_not_current()
                refused = await self._platform.status.list_open_breakers()
        except (DatabaseUnreachable, TimeoutError):
            return [Missing(Dependency.DATABASE, "the database does not answer")]
        except SchemaMismatch as error:
            return [Missing(Dependency.SCHEMA, str(error))]
        except BadConfiguration:
            return [
                Missing(Dependency.DATABASE, "the database refuses the connection: pgworker doctor")
            ]
        if not refused:
            return []
        what = f"credentials that the provider refuses: {len(refused)}; pgworker doctor names them"
        return [Missing(Dependency.CREDENTIALS, what)]

    def _check_worker(self) -> list[Missing]:
        if self._daemon is None:
            return []
        if self._daemon.is_draining:
            return [Missing(Dependency.WORKER, "the worker of this process is draining")]
        if not self._daemon.is_running:
            return [Missing(Dependency.WORKER, "the worker of this process is not running")]
        if self._daemon.is_listening is False:
            return [
                Missing(
                    Dependency.LISTENER, "no notification arrives: new jobs start at the next poll"
                )
            ]
        return []
