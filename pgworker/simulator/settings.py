"""How a simulator behaves: plain values, handed to `running_simulator`."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, slots=True)
class Organization:
    """An organization that the simulated user belongs to."""

    slug: str = "tsrqponmlkjihgfedcba"
    name: str = "Simulated organization"
    plan: Literal["free", "pro", "team", "enterprise", "platform"] = "pro"


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatorSettings:
    """Everything that can be chosen about a simulator; durations in seconds, all may be 0.

    Attributes:
        admin_dsn: the server behind `database/query`; its role creates databases and roles.
        token: the personal access token that may do everything.
        scoped_tokens: further tokens of the same user, each with the OAuth scopes it has
            (`projects:read`, ...); everything else answers 403.
        organizations: the first one is `Simulator.organization`.
        coming_up_seconds: from the create until the project is ACTIVE_HEALTHY.
        services_lag_seconds: from then until all of its services are.
        listing_lag_seconds: listings show the past by so much, after create and after delete.
        keys_lag_seconds: from ACTIVE_HEALTHY until the keys endpoint answers.
        pooler_lag_seconds: from ACTIVE_HEALTHY until the pooler knows the tenant.
        transition_seconds: how long pausing, restoring and deleting take.
        query_seconds: the time limit of `database/query`; then 544, while the statement goes on.
        duplicate_names: whether a second project of one name is refused with 400.
        key_kinds: which API keys a new project has.
        foreign_secret_key: a further secret key, listed first, that isn't service_role.
        rate_limit: requests in each window, per user, scope and endpoint.
        max_projects: live projects in an organization; one more is refused.
        quota_status: the status of that refusal.
        seed: makes refs and keys repeatable; None is random.
        host: where it listens; loopback only, it has no TLS.
        port: 0 takes a free one.
        clock: monotonic seconds; a test hands in its own to let time pass without waiting.
    """

    admin_dsn: str = field(repr=False)
    token: str = field(default="sbp_" + "0123456789abcdef" * 2 + "01234567", repr=False)
    scoped_tokens: Mapping[str, frozenset[str]] = field(default_factory=dict, repr=False)
    organizations: tuple[Organization, ...] = (Organization(),)
    coming_up_seconds: float = 0.0
    services_lag_seconds: float = 0.0
    listing_lag_seconds: float = 0.0
    keys_lag_seconds: float = 0.0
    pooler_lag_seconds: float = 0.0
    transition_seconds: float = 0.0
    query_seconds: float = 50.0
    duplicate_names: Literal["refused", "accepted"] = "refused"
    key_kinds: Literal["both", "new", "legacy"] = "both"
    foreign_secret_key: bool = False
    rate_limit: int = 120
    rate_window_seconds: float = 60.0
    max_projects: int | None = None
    quota_status: int = 402
    seed: int | None = None
    host: str = "127.0.0.1"
    port: int = 0
    clock: Callable[[], float] = time.monotonic
