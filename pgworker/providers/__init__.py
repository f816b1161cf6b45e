"""Where tenants come from: what a provider of your own is made of (docs/providers.md)."""

from pgworker.errors import (
    BadConfiguration,
    CredentialRefused,
    JobError,
    LeaseLost,
    OutcomeUnknown,
    PasswordRefused,
    Permanent,
    QuotaExceeded,
    SmokeCheckFailed,
    Throttled,
    Transient,
)
from pgworker.providers.base import (
    Credentials,
    Diagnosis,
    Observation,
    Provider,
    ProviderContext,
    ProviderFactory,
    RemoteState,
    RemoteTenant,
    Tenant,
    TenantRequest,
    TenantState,
)
from pgworker.providers.rate_limits import Bucket, Limiter, RateLimit, Reservation
from pgworker.tenants.connection import StatementError, TenantConnection
from pgworker.tenants.postgres_connection import connect_postgres
from pgworker.tenants.steps import Step, Steps

__all__ = [
    "BadConfiguration",
    "Bucket",
    "CredentialRefused",
    "Credentials",
    "Diagnosis",
    "JobError",
    "LeaseLost",
    "Limiter",
    "Observation",
    "OutcomeUnknown",
    "PasswordRefused",
    "Permanent",
    "Provider",
    "ProviderContext",
    "ProviderFactory",
    "QuotaExceeded",
    "RateLimit",
    "RemoteState",
    "RemoteTenant",
    "Reservation",
    "SmokeCheckFailed",
    "StatementError",
    "Step",
    "Steps",
    "Tenant",
    "TenantConnection",
    "TenantRequest",
    "TenantState",
    "Throttled",
    "Transient",
    "connect_postgres",
]
