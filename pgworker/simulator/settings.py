"""The settings of a simulator: plain values for `running_simulator`."""

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
    """The settings of a simulator; durations are in seconds and may be 0.

    Attributes:
        admin_dsn: the server behind `database/query`; its role creates databases and roles.
        token: the personal access token, which has every scope.
        scoped_tokens: further tokens of the same user with their OAuth scopes
            (`projects:read`, ...); everything else answers 403.
        organizations: the first one is `Simulator.organization`.
        coming_up_seconds: from the create until the project is ACTIVE_HEALTHY.
        services_lag_seconds: from then until all of its services are healthy.
        listing_lag_seconds: how old the state in listings is, after create and after delete.
        keys_lag_seconds: from ACTIVE_HEALTHY until the keys endpoint answers.
        pooler_lag_seconds: from ACTIVE_HEALTHY until the pooler knows the tenant.
        transition_seconds: how long pausing, restoring and deleting take.
        query_seconds: the time limit of `database/query`, which then answers 544 while the
            statement continues.
        duplicate_names: whether a second project of one name is refused with 400.
        key_kinds: which API keys a new project has.
        foreign_secret_key: whether a secret key of another role is listed first.
        rate_limit: requests in each window, per user, scope and endpoint.
        max_projects: the limit of live projects in an organization.
        quota_status: the status of that refusal.
        seed: of refs and keys; None is random.
        host: to listen on; only loopback, as it has no TLS.
        port: to listen on; 0 is any free one.
        clock: monotonic seconds; a test can pass its own to let time pass without waiting.
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
