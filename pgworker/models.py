"""Plain data that several packages share: no I/O, no asyncpg, no httpx."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, NamedTuple
from uuid import UUID


class JobStatus(StrEnum):
    """`client_provisioning_jobs.status`."""

    QUEUED = "queued"
    RUNNING = "running"
    WAITING = "waiting"
    FAILED = "failed"
    SUCCEEDED = "succeeded"
    CANCELLED = "cancelled"


# A client has at most one job in these for each workflow.
LIVE_STATUSES = frozenset({JobStatus.QUEUED, JobStatus.RUNNING, JobStatus.WAITING})


class ClientStatus(StrEnum):
    """`clients.provisioning_status`."""

    NOT_PROVISIONED = "not_provisioned"
    QUEUED = "queued"
    CREATING_PROJECT = "creating_project"
    WAITING_FOR_PROJECT = "waiting_for_project"
    SCHEMA_SYNCING = "schema_syncing"
    SMOKE_CHECKING = "smoke_checking"
    READY = "ready"
    FAILED = "failed"
    CANCELLED = "cancelled"
    DEPROVISIONING = "deprovisioning"
    DEPROVISIONED = "deprovisioned"


# A client stays in these until a person asks for something.
FINAL_STATUSES = frozenset(
    {
        ClientStatus.NOT_PROVISIONED,
        ClientStatus.READY,
        ClientStatus.FAILED,
        ClientStatus.CANCELLED,
        ClientStatus.DEPROVISIONED,
    }
)


class ErrorKind(StrEnum):
    """What happens to the job after the error; nothing else decides it (docs/operations.md)."""

    TRANSIENT = "transient"  # back off, then try again; counts as an attempt
    THROTTLED = "throttled"  # wait as long as the server says; not an attempt
    UNKNOWN = "unknown"  # it may have happened: look before doing it again
    AUTH = "auth"  # the credential's breaker opens; the job waits, not an attempt
    QUOTA = "quota"  # failed at once: something must be bought or freed
    PERMANENT = "permanent"  # failed at once: a person must look


class Scope(StrEnum):
    """What the bearer of a token may do over HTTP; each scope includes the ones before it."""

    READ = "read"  # read
    OPERATE = "operate"  # and create, retry and cancel
    ADMIN = "admin"  # and pause and resume, which concerns all clients

    def includes(self, wanted: Scope) -> bool:
        """Return whether a token with this scope may do what needs `wanted`."""
        order = list(Scope)
        return order.index(self) >= order.index(wanted)


@dataclass(frozen=True, slots=True)
class ApiToken:
    """A token of the HTTP API, without the token: its SHA-256.

    Attributes:
        name: of its bearer, in logs and on screens.
    """

    name: str
    scope: Scope
    digest: bytes = field(repr=False)


class Job(NamedTuple):
    """A claimed row of `client_provisioning_jobs`: one client's workflow, in its present phase.

    Attributes:
        job_type: the phase it is in.
        claim_token: the fencing token; every write by its holder names it.
        checkpoint: what its phases have recorded so far; never a secret.
        trace_context: W3C `traceparent` of the request that enqueued it.
        in_phase: how long it had been in its phase when it was claimed, by the database's clock;
            counted from the last time that a person put it there.
        crashes: how many of its holders fell silent in this phase.
    """

    id: int
    client_id: UUID
    workflow: str
    job_type: str
    attempts: int
    max_attempts: int
    claim_token: int
    checkpoint: dict[str, Any]
    trace_context: str | None
    created_at: datetime
    in_phase: timedelta = timedelta(0)
    crashes: int = 0

    @property
    def is_suspect(self) -> bool:
        """Whether its holders fell silent twice in this phase: it is worked on alone."""
        return self.crashes > 1


@dataclass(frozen=True, slots=True)
class Client:
    """What a phase needs to know of a row of `clients`."""

    id: UUID
    name: str
    status: ClientStatus
    project_ref: str | None
    project_url: str | None
    schema_version: str | None
    created_at: datetime | None
    settings: dict[str, Any] = field(default_factory=dict)


def parse_client_status(stored: str | None) -> ClientStatus:
    """Return the status; a null, or a word that an adopted table had before, is not provisioned."""
    try:
        return ClientStatus(stored or "")
    except ValueError:
        return ClientStatus.NOT_PROVISIONED


@dataclass(frozen=True, slots=True)
class ClientPatch:
    """Columns of `clients` set in the transaction that ends a phase; None leaves one alone.

    Attributes:
        provisioning: what the provider really gave; merged into the key `provisioning` of
            `additional_settings`.
    """

    schema_version: str | None = None
    project_ref: str | None = None
    project_url: str | None = None
    provisioning: dict[str, Any] | None = None

    def as_json(self) -> dict[str, Any]:
        """Return the set fields only."""
        if self is UNCHANGED:
            return {}
        return {
            name: value for name in self.__slots__ if (value := getattr(self, name)) is not None
        }


# The patch of most phases. One object for all of them: it is made, and compared, in each.
UNCHANGED = ClientPatch()


def dump_jsonb(value: object) -> str:
    """Return the value as JSON that jsonb can hold.

    Raises:
        ValueError, TypeError: it can't. Many results are stored with one statement, so a value
            that the server refused there would fail the jobs of others too.
    """
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    if "\\u0000" in text:
        msg = "PostgreSQL can't store the character U+0000"
        raise ValueError(msg)
    text.encode()  # a lone surrogate has no UTF-8
    return text


@dataclass(frozen=True, slots=True)
class Done:
    """The phase has succeeded.

    Attributes:
        patch: columns of `clients` to set in the same transaction.
        checkpoint: merged into the job's checkpoint in the same transaction; no secrets.
    """

    patch: ClientPatch = UNCHANGED
    checkpoint: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse, in the phase that made it, what jsonb can't hold (ValueError, TypeError)."""
        patch = self.patch.as_json()
        if patch or self.checkpoint:
            dump_jsonb([patch, self.checkpoint])


@dataclass(frozen=True, slots=True)
class Snooze:
    """The phase must wait, and waiting isn't an attempt.

    Attributes:
        delay: how long; counted from the database's clock when it is stored.
        reason: what is waited for, as a person reads it (`why`, `client_status.blocked_because`).
        checkpoint: merged into the job's checkpoint; no secrets.
        error_kind: set when an error is the cause of the wait (throttled, auth).
        error: its message.
        credential: the one that is refused (auth): the wait is over when its breaker closes.
    """

    delay: timedelta
    reason: str
    checkpoint: dict[str, Any] = field(default_factory=dict)
    error_kind: ErrorKind | None = None
    error: str | None = None
    credential: str | None = None

    def __post_init__(self) -> None:
        """Refuse, in the phase that made it, what jsonb can't hold (ValueError, TypeError)."""
        dump_jsonb([self.checkpoint])

    @classmethod
    def for_credential(cls, delay: timedelta, *, credential: str | None, error: str) -> Snooze:
        """Return the wait of a job whose credential is refused: the breaker's close ends it."""
        return cls(
            delay,
            reason="a credential that the provider accepts",
            error_kind=ErrorKind.AUTH,
            error=error,
            credential=credential,
        )


# How often a credential that the provider refuses is tried again: by one job, while the others
# wait. They are woken when its breaker closes, and look by themselves in case that is missed.
CREDENTIAL_RECHECK = timedelta(seconds=30)

# What a phase returns.
Outcome = Done | Snooze


@dataclass(frozen=True, slots=True)
class Advance:
    """The job goes on with its next phase, under the same claim."""

    next_phase: str
    done: Done


@dataclass(frozen=True, slots=True)
class Complete:
    """The job's last phase has succeeded."""

    done: Done


@dataclass(frozen=True, slots=True)
class Failure:
    """The phase has failed.

    Attributes:
        retry: try again after a back-off, as long as attempts are left; else a person must look.
    """

    kind: ErrorKind
    error: str
    retry: bool


# What becomes of a job after one run of a phase: an arrow of the state diagram each.
Transition = Advance | Complete | Snooze | Failure
