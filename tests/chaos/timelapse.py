"""Time in fast motion: what settings don't reach of a worker's durations, shrunk to a scale.

The proportions stay those of production: a create holds its lease longer than its request may
take, a listing is asked again for longer than it lags.
"""

from __future__ import annotations

import functools
from datetime import timedelta
from typing import Any

from pgworker.db import hosts, listen, pool
from pgworker.queue import policy
from pgworker.tenants import breakers, postgres_connection, step_ledger
from pgworker.tenants.phases import await_project, create_project
from pgworker.tenants.providers import registry
from pgworker.tenants.providers.supabase import SupabaseSettings

# The settings of a worker in a campaign (docs/settings.md), in seconds. The lease is a twelfth of
# the default, what follows a twentieth: processes starve for a moment on a busy machine.
LEASE = 2.5
CREATE_LOOKUP = 8.0
SETTINGS = {
    "PGWORKER_LEASE_SECONDS": LEASE,
    "PGWORKER_POLL_SECONDS": 1.0,
    "PGWORKER_PROJECT_POLL_SECONDS": 0.25,
    "PGWORKER_PROJECT_TIMEOUT_SECONDS": 60.0,
    "PGWORKER_CREATE_LOOKUP_SECONDS": CREATE_LOOKUP,
    "PGWORKER_BACKOFF_SECONDS": 0.1,
    "PGWORKER_BACKOFF_CAP_SECONDS": 1.0,
}
# A read time-out of 60 s becomes 3.
HTTP_TIMEOUT_SCALE = 1 / 20

SHRUNK: tuple[tuple[Any, str, float], ...] = (
    (step_ledger, "MUST_LEAVE_WITHIN", 1.0),
    (create_project, "CREATE_TAKES_AT_MOST", 3.25),
    (await_project, "NOT_VISIBLE_YET", 6.0),
    (breakers, "PROBE_EVERY", 1.5),
    (policy, "AUTH_RECHECK", 1.5),
    (policy, "DATABASE_RECHECK", 0.25),
    (hosts, "CONNECT_TIMEOUT", 2.0),
    (hosts, "CONNECT_TIMEOUT_EACH", 0.5),
    (pool, "STATEMENT_TIMEOUT", 3.0),
)
LISTENER = {"ping_every": 1.0, "ping_timeout": 1.0}
TENANT = {"timeout": 2.0, "command_timeout": 5.0}
KEY_GRACE = 1.0


def shrink_time() -> None:
    """Shrink the durations of this process.

    Raises:
        AttributeError, KeyError: pgworker no longer has one of that name.
    """
    for module, name, seconds in SHRUNK:
        if not isinstance(getattr(module, name), timedelta):
            raise TypeError(f"{module.__name__}.{name} is no duration")
        setattr(module, name, timedelta(seconds=seconds))
    _shrink_defaults(listen.Listener.__init__, LISTENER)
    _shrink_defaults(postgres_connection.connect_postgres.__wrapped__, TENANT)  # type: ignore[attr-defined]
    hasty = functools.partial(SupabaseSettings, key_grace=timedelta(seconds=KEY_GRACE))
    setattr(registry, "SupabaseSettings", hasty)  # noqa: B010


def _shrink_defaults(function: Any, seconds: dict[str, float]) -> None:
    for name, value in seconds.items():
        if name not in function.__kwdefaults__:
            raise KeyError(f"{function.__qualname__} has no {name}")
        function.__kwdefaults__[name] = timedelta(seconds=value)
