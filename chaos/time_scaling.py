"""Shortens a worker's durations for a campaign, and stretches them on a slow machine.

Durations that safety depends on are a sixth of production's, in proportion: a create holds its
lease longer than its request may take, and is looked for longer than everything that can delay it.
Durations that a client merely waits for are shorter still.

A process that gets no processor time looks like a dead one, and then a campaign tests the machine
instead of pgworker. So each sandbox first measures how slow the machine is, and multiplies all its
durations by that.
"""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import timedelta
from time import monotonic, process_time
from typing import TYPE_CHECKING, Any

from pgworker.db import hosts, listen, pool
from pgworker.providers import registry
from pgworker.providers.postgres.provider import PostgresProvider, create_postgres_provider
from pgworker.providers.supabase import endpoints, services
from pgworker.providers.supabase.provider import SupabaseProvider
from pgworker.providers.supabase.settings import read_supabase_settings
from pgworker.provisioning import breakers, step_ledger
from pgworker.provisioning.phases import await_project
from pgworker.queue import policy
from pgworker.tenants import postgres_connection

if TYPE_CHECKING:
    from pgworker.providers.base import ProviderContext

# The environment variable that holds a worker's slowdown: a factor of all its durations.
SLOWDOWN = "CHAOS_SLOWDOWN"

# All durations below are in seconds, on a machine with nothing else to do.
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
# Constants that no setting reaches. A create's lease covers the time in which its request must be
# sent, and the time that the request may take.
CONSTANTS: tuple[tuple[Any, str, float], ...] = (
    (step_ledger, "MUST_LEAVE_WITHIN", 1.7),
    (await_project, "NOT_VISIBLE_YET", 20.0),
    (breakers, "PROBE_EVERY", 1.5),
    (policy, "CREDENTIAL_RECHECK", 1.5),
    (policy, "DATABASE_RECHECK", 0.25),
    (hosts, "CONNECT_TIMEOUT", 2.0),
    (hosts, "CONNECT_TIMEOUT_EACH", 0.5),
    (pool, "STATEMENT_TIMEOUT", 5.0),
    (endpoints, "CONNECT_TIMEOUT", 1.0),
    (services, "ANSWER_TIMEOUT", 5.0),
)
LISTENER_DEFAULTS = {"ping_every": 2.5, "ping_timeout": 1.0}
TENANT_DEFAULTS = {"timeout": 2.0, "command_timeout": 10.0}
KEY_GRACE = 1.0
POSTGRES_CREATE_TIMEOUT = 11.0
# The 60 s that the API may take to answer a create become 10.
ANSWER_TIMEOUT_SCALE = 1 / 6

# The durations above suit a process that gets half of a processor.
TOLERATED_SLOWNESS = 2.0
PROBE_SECONDS = 0.1


def measure_slowdown() -> float:
    """Return the factor that durations need on this machine now: at least 1, in steps of 0.5."""
    began_at, used = monotonic(), process_time()
    while process_time() - used < PROBE_SECONDS:
        pass
    slowness = (monotonic() - began_at) / PROBE_SECONDS
    return max(1.0, math.ceil(slowness / TOLERATED_SLOWNESS * 2) / 2)


def scale_settings(slowdown: float) -> dict[str, float]:
    """Return the settings of a worker that are durations."""
    return {name: seconds * slowdown for name, seconds in SETTINGS.items()}


def scale_durations(slowdown: float) -> None:
    """Set the durations of this process that no setting reaches.

    Raises:
        AttributeError, KeyError: pgworker no longer has one of that name.
        TypeError: it isn't a duration any more.
    """
    for module, name, seconds in CONSTANTS:
        if not isinstance(getattr(module, name), timedelta):
            raise TypeError(f"{module.__name__}.{name} is not a duration")
        setattr(module, name, timedelta(seconds=seconds * slowdown))
    _scale_defaults(listen.Listener.__init__, LISTENER_DEFAULTS, slowdown)
    _scale_defaults(postgres_connection.open_postgres, TENANT_DEFAULTS, slowdown)
    _scale_endpoints(ANSWER_TIMEOUT_SCALE * slowdown)
    _scale_providers(slowdown)


def _scale_providers(slowdown: float) -> None:
    """Register factories that create the providers with shorter durations."""

    def create_postgres(context: ProviderContext) -> PostgresProvider:
        provider = create_postgres_provider(context)
        provider.create_timeout = timedelta(seconds=POSTGRES_CREATE_TIMEOUT * slowdown)
        return provider

    def create_supabase(context: ProviderContext) -> SupabaseProvider:
        settings = read_supabase_settings(context.settings)
        scaled = replace(settings, key_grace=timedelta(seconds=KEY_GRACE * slowdown))
        return SupabaseProvider(scaled, limiter=context.limiter)

    registry.BUILT_IN.update(postgres=create_postgres, supabase=create_supabase)


def _scale_endpoints(factor: float) -> None:
    """Scale how long each call may take; the lease that a create is given follows from it."""
    for name, endpoint in vars(endpoints).copy().items():
        if isinstance(endpoint, endpoints.Endpoint):
            setattr(
                endpoints, name, replace(endpoint, answer_timeout=endpoint.answer_timeout * factor)
            )


def _scale_defaults(function: Any, seconds: dict[str, float], slowdown: float) -> None:
    for name, value in seconds.items():
        if name not in function.__kwdefaults__:
            raise KeyError(f"{function.__qualname__} has no {name}")
        function.__kwdefaults__[name] = timedelta(seconds=value * slowdown)
