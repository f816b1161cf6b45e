"""Time in fast motion: a worker's durations, shrunk, and stretched again on a busy machine.

What safety rests on lasts a sixth of what it lasts in production, in proportion: a create holds its
lease longer than its request may take, and is looked for longer than all that can delay it. What a
client merely waits for is shorter still.

Real time is a fault of its own: processes that get no processor fall silent like dead ones, and
then a campaign tests the machine. So each world measures first how slow the machine is, and all
its durations last that much longer.
"""

from __future__ import annotations

import functools
import math
from datetime import timedelta
from time import monotonic, process_time
from typing import Any

from pgworker.db import hosts, listen, pool
from pgworker.providers import registry
from pgworker.providers.supabase.provider import SupabaseSettings
from pgworker.provisioning import breakers, step_ledger
from pgworker.provisioning.phases import await_project, create_project
from pgworker.queue import policy
from pgworker.tenants import postgres_connection

# Tells a worker its pace, in its environment.
PACE = "CHAOS_PACE"

# In seconds, all that follows: on a machine with nothing else to do.
LEASE = 5.0
CREATE_LOOKUP = 20.0
# Settings of a worker (docs/settings.md).
SETTINGS = {
    "PGWORKER_LEASE_SECONDS": LEASE,
    "PGWORKER_POLL_SECONDS": 1.0,
    "PGWORKER_PROJECT_POLL_SECONDS": 0.25,
    "PGWORKER_PROJECT_TIMEOUT_SECONDS": 200.0,
    "PGWORKER_CREATE_LOOKUP_SECONDS": CREATE_LOOKUP,
    "PGWORKER_BACKOFF_SECONDS": 0.1,
    "PGWORKER_BACKOFF_CAP_SECONDS": 1.0,
}
# What settings don't reach. A create holds its lease for what it has to leave in and what it takes.
SHRUNK: tuple[tuple[Any, str, float], ...] = (
    (step_ledger, "MUST_LEAVE_WITHIN", 1.7),
    (create_project, "CREATE_TAKES_AT_MOST", 11.0),
    (await_project, "NOT_VISIBLE_YET", 20.0),
    (breakers, "PROBE_EVERY", 1.5),
    (policy, "AUTH_RECHECK", 1.5),
    (policy, "DATABASE_RECHECK", 0.25),
    (hosts, "CONNECT_TIMEOUT", 2.0),
    (hosts, "CONNECT_TIMEOUT_EACH", 0.5),
    (pool, "STATEMENT_TIMEOUT", 5.0),
)
LISTENER = {"ping_every": 2.5, "ping_timeout": 1.0}
TENANT = {"timeout": 2.0, "command_timeout": 10.0}
KEY_GRACE = 1.0
# A read time-out of 60 s becomes 10.
HTTP_TIMEOUT_SCALE = 1 / 6

# A process that gets half a processor is what the durations above are made for.
BORNE_SLOWNESS = 2.0
PROBE_SECONDS = 0.1


def measure_pace() -> float:
    """Return how many times as long everything should last here and now; at least 1, in halves."""
    began_at, used = monotonic(), process_time()
    while process_time() - used < PROBE_SECONDS:
        pass
    slowness = (monotonic() - began_at) / PROBE_SECONDS
    return max(1.0, math.ceil(slowness / BORNE_SLOWNESS * 2) / 2)


def settings(pace: float) -> dict[str, float]:
    """Return the settings of a worker."""
    return {name: seconds * pace for name, seconds in SETTINGS.items()}


def shrink_time(pace: float) -> None:
    """Shrink the durations of this process.

    Raises:
        AttributeError, KeyError: pgworker no longer has one of that name.
    """
    for module, name, seconds in SHRUNK:
        if not isinstance(getattr(module, name), timedelta):
            raise TypeError(f"{module.__name__}.{name} is no duration")
        setattr(module, name, timedelta(seconds=seconds * pace))
    _shrink_defaults(listen.Listener.__init__, LISTENER, pace)
    _shrink_defaults(postgres_connection.open_postgres, TENANT, pace)
    hasty = functools.partial(SupabaseSettings, key_grace=timedelta(seconds=KEY_GRACE * pace))
    setattr(registry, "SupabaseSettings", hasty)  # noqa: B010


def _shrink_defaults(function: Any, seconds: dict[str, float], pace: float) -> None:
    for name, value in seconds.items():
        if name not in function.__kwdefaults__:
            raise KeyError(f"{function.__qualname__} has no {name}")
        function.__kwdefaults__[name] = timedelta(seconds=value * pace)
