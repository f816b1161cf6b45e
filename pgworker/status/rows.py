"""The rows that `queries`, `pages`, `progress` and `events` return, field by column.

Made by position (`Row._make(record)`), so each has the columns of its statement in the same order;
a test compares them. Times are aware, ages and durations are seconds as in the views.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar
from uuid import UUID

if TYPE_CHECKING:
    from pgworker.db.pool import Pool

R = TypeVar("R", bound=NamedTuple)


async def fetch_rows(pool: Pool, shape: type[R], query: str, *arguments: object) -> list[R]:
    """Return what a statement returns, as rows of that shape."""
    return [shape._make(record) for record in await pool.fetch(query, *arguments)]


class ClientStatusRow(NamedTuple):
    """A row of `client_status`: a client with its newest job.

    What belongs to the job is None for a client that never had one.

    Attributes:
        status: may be null, or a word of its own, in a `clients` table that is older than pgworker.
        since: when the job was last changed.
        may_cost_money: of the job's phase: a run of it may create what the provider bills.
    """

    client_id: UUID
    client_name: str
    status: str | None
    job_id: int | None
    workflow: str | None
    phase: str | None
    phase_number: int | None
    phase_count: int | None
    job_status: str | None
    attempts: int | None
    max_attempts: int | None
    error_kind: str | None
    last_error: str | None
    blocked_because: str | None
    next_try_at: datetime | None
    claimed_by: str | None
    since: datetime | None
    project_ref: str | None
    project_url: str | None
    schema_version: str | None
    provisioning_started_at: datetime | None
    provisioning_completed_at: datetime | None
    created_at: datetime | None
    blocked_code: str | None
    may_cost_money: bool


class JobStatusRow(NamedTuple):
    """A row of `job_status`; the numbers of a phase are None where no worker has registered it."""

    id: int
    client_id: UUID
    client_name: str
    workflow: str
    phase: str
    phase_number: int | None
    phase_count: int | None
    status: str
    priority: int
    attempts: int
    max_attempts: int
    crashes: int
    error_kind: str | None
    last_error: str | None
    waiting_for: str | None
    next_try_at: datetime | None
    claimed_by: str | None
    lease_expires_at: datetime | None
    created_at: datetime
    updated_at: datetime
    finished_at: datetime | None


class HealthRow(NamedTuple):
    """The row of `queue_health`; ages are of the oldest one, 0 when there is none."""

    queued: int
    running: int
    waiting: int
    failed: int
    due_now: int
    oldest_due_seconds: float
    lease_expired: int
    workers_alive: int
    paused: bool
    breakers_open: int
    limits_used_up: int
    oldest_lease_expired_seconds: float
    oldest_unfinished_seconds: float
    oldest_failed_seconds: float
    creates_unanswered: int
    oldest_unanswered_seconds: float
    workers_silent: int
    oldest_breaker_seconds: float

    @property
    def unfinished(self) -> int:
        """How many jobs are queued, running or waiting."""
        return self.queued + self.running + self.waiting


class WorkerRow(NamedTuple):
    """A row of `worker_status`."""

    id: str
    hostname: str
    pid: int
    version: str
    concurrency: int
    state: str
    alive: bool
    jobs: int
    started_at: datetime
    last_seen_at: datetime


class PauseRow(NamedTuple):
    """A row of `pauses`; the scope is a workflow, or `all`."""

    scope: str
    paused_at: datetime
    paused_by: str


class BreakerRow(NamedTuple):
    """A row of `breakers`: a credential that the provider refuses."""

    credential: str
    reason: str
    opened_at: datetime
    probe_at: datetime


class LimitRow(NamedTuple):
    """A bucket of the provider's rate limit that is empty for `seconds`."""

    endpoint: str
    scope: str
    seconds: float


class FailedClientRow(NamedTuple):
    """A client whose job has failed."""

    client_id: UUID
    client_name: str


class FailedGroupRow(NamedTuple):
    """A row of `failed_groups`: failed jobs with the same error.

    Attributes:
        signature: what all their errors have in common; None when there is no message.
        may_cost_money: of their phase: a run of it may create what the provider bills.
    """

    group_id: str
    workflow: str
    phase: str
    error_kind: str | None
    jobs: int
    oldest_failed_at: datetime | None
    newest_failed_at: datetime | None
    sample_error: str | None
    sample_client_ids: list[UUID]
    sample_client_names: list[str]
    signature: str | None
    what_helps: str
    may_cost_money: bool


class GroupClientRow(NamedTuple):
    """A client of a group of failed jobs."""

    client_id: UUID
    client_name: str
    failed_at: datetime | None


class EventRow(NamedTuple):
    """A row of `events`, as the history of a client shows it."""

    at: datetime
    event: str
    actor: str
    from_status: str | None
    to_status: str | None
    from_phase: str | None
    to_phase: str | None
    error_kind: str | None
    error: str | None
    detail: dict[str, Any] | None


class TransitionRow(NamedTuple):
    """A row of `events`, as a stream delivers it."""

    id: int
    at: datetime
    event: str
    client_id: UUID
    from_status: str | None
    to_status: str | None
    from_phase: str | None
    to_phase: str | None
    error_kind: str | None
    error: str | None


class StepRow(NamedTuple):
    """A row of `steps`: something that was done for a client at the provider."""

    step: str
    target: str
    state: str
    job_id: int | None
    intended_at: datetime
    ended_at: datetime | None


class PhaseSecondsRow(NamedTuple):
    """How long a client's newest job has been, or was, in a phase."""

    client_id: UUID
    phase: str
    seconds: float


class PhaseLatencyRow(NamedTuple):
    """How long a phase took in the last day; numbers are None when none ended.

    The three lists belong together: one entry for each hour in which a phase ended, `hours_ago` 0
    for the last one.
    """

    workflow: str
    phase: str
    ended: int
    p50_seconds: float | None
    p95_seconds: float | None
    max_seconds: float | None
    hours_ago: list[int] | None
    hourly_p50_seconds: list[float] | None
    hourly_p95_seconds: list[float] | None
