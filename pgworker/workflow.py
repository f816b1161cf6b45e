"""Phases of your own: everything that a module with a phase or a workflow imports.

A phase is a class with a name and a `run`; a workflow is phases in their order. Name yours in
PGWORKER_WORKFLOW (`module:attribute`) or in the entry point group `pgworker.workflows`.
docs/phases.md says what a phase promises, and has a complete example.
"""

from pgworker.errors import (
    BadConfiguration,
    CredentialRefused,
    JobError,
    LeaseLost,
    MigrationFailed,
    MigrationRefused,
    OutcomeUnknown,
    PasswordRefused,
    Permanent,
    QuotaExceeded,
    SmokeCheckFailed,
    Throttled,
    Transient,
)
from pgworker.models import (
    Client,
    ClientPatch,
    ClientStatus,
    Done,
    ErrorKind,
    Job,
    Outcome,
    Snooze,
)
from pgworker.providers.base import Credentials
from pgworker.provisioning.phases.await_project import AwaitProject
from pgworker.provisioning.phases.base import Phase, PhaseContext, PhaseSettings
from pgworker.provisioning.phases.create_project import CreateProject
from pgworker.provisioning.phases.schema_sync import SchemaSync
from pgworker.provisioning.phases.smoke_checks import SmokeChecks
from pgworker.provisioning.workflow import PROVISION, Workflow
from pgworker.tenants.connection import StatementError, TenantConnection

__all__ = [
    "PROVISION",
    "AwaitProject",
    "BadConfiguration",
    "Client",
    "ClientPatch",
    "ClientStatus",
    "CreateProject",
    "CredentialRefused",
    "Credentials",
    "Done",
    "ErrorKind",
    "Job",
    "JobError",
    "LeaseLost",
    "MigrationFailed",
    "MigrationRefused",
    "Outcome",
    "OutcomeUnknown",
    "PasswordRefused",
    "Permanent",
    "Phase",
    "PhaseContext",
    "PhaseSettings",
    "QuotaExceeded",
    "SchemaSync",
    "SmokeCheckFailed",
    "SmokeChecks",
    "Snooze",
    "StatementError",
    "TenantConnection",
    "Throttled",
    "Transient",
    "Workflow",
]
