"""Requests and responses as pydantic models; their names are those of the tables and views.

Responses are made from the rows of `pgworker.status.rows`. They are written out once more here,
because what goes out is a promise: a column that is added to a view isn't published by itself.
"""

from __future__ import annotations

import unicodedata
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from pgworker.models import ClientStatus, ErrorKind, JobStatus, dump_jsonb

if TYPE_CHECKING:
    from pgworker.status.overview import QueueReport
    from pgworker.status.pages import Page
    from pgworker.status.progress import Progress
    from pgworker.status.rows import ClientStatusRow, JobStatusRow, PhaseLatencyRow

LONGEST_NAME = 200
# Of JSON. A phase reads the settings with each run: they are no place for documents.
LONGEST_SETTINGS = 16 * 1024
# They change the direction of the rest of a line: one name could look like another.
_BIDI_CONTROLS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def _printable(text: str) -> str:
    """Refuse control characters, lone surrogates and changes of direction."""
    for letter in text:
        if unicodedata.category(letter) in {"Cc", "Cs", "Zl", "Zp"} or letter in _BIDI_CONTROLS:
            msg = f"must not hold the character U+{ord(letter):04X}"
            raise ValueError(msg)
    return text


def _storable(settings: dict[str, Any]) -> dict[str, Any]:
    """Refuse settings that jsonb can't store, that are too long, or that only the worker writes."""
    size = len(dump_jsonb(settings))
    if size > LONGEST_SETTINGS:
        msg = f"must not be longer than {LONGEST_SETTINGS} characters of JSON"
        raise ValueError(msg)
    if "provisioning" in settings:
        msg = "must not hold the key provisioning, which is the worker's"
        raise ValueError(msg)
    return settings


Name = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=LONGEST_NAME),
    AfterValidator(_printable),
]
Text = Annotated[str, StringConstraints(min_length=1, max_length=200), AfterValidator(_printable)]
Word = Annotated[str, StringConstraints(pattern=r"^[\w.-]{1,64}$")]
Settings = Annotated[
    dict[str, Any],
    AfterValidator(_storable),
    Field(description="`region`, `plan` and `provider` are requests; every other key is yours"),
]


class FromRow(BaseModel):
    """A response that is made from a row with the same field names.

    A test compares the names, because pydantic looks for them only when a request comes.
    """

    model_config = ConfigDict(from_attributes=True)


class NewClient(BaseModel):
    """A client to create."""

    model_config = ConfigDict(
        # A misspelled field is a mistake, and not a client with the defaults.
        extra="forbid",
        json_schema_extra={
            "example": {"name": "Acme Bakery", "additional_settings": {"region": "eu-central-1"}}
        },
    )

    name: Name
    auto_provision: bool = Field(default=True, description="false: only the row, without a job")
    additional_settings: Settings = Field(default_factory=dict)


class CreatedClient(BaseModel):
    """A client that was created; `url` has its progress."""

    id: UUID
    name: str
    auto_provision: bool
    url: str
    events_url: str


class JobState(BaseModel):
    """The client's newest job."""

    id: int
    workflow: str
    phase: str = Field(description="`job_type`: the step it is in")
    phase_number: int | None
    phase_count: int | None
    status: JobStatus
    attempts: int
    max_attempts: int
    error_kind: ErrorKind | None
    blocked_because: str | None
    next_try_at: datetime | None
    claimed_by: str | None
    since: datetime

    @classmethod
    def from_row(cls, row: ClientStatusRow) -> JobState:
        """Make it from a row of `client_status` that has a job."""
        # The row's own id and status are the client's.
        return cls.model_validate(row._asdict() | {"id": row.job_id, "status": row.job_status})


class Client(BaseModel):
    """A row of `clients` with its newest job."""

    id: UUID
    name: str
    provisioning_status: str
    provisioning_error: str | None
    provisioning_started_at: datetime | None
    provisioning_completed_at: datetime | None
    schema_version: str | None
    project_ref: str | None
    project_url: str | None
    created_at: datetime | None
    job: JobState | None

    @classmethod
    def from_row(cls, row: ClientStatusRow) -> Client:
        """Make it from a row of `client_status`."""
        return cls(**_client_fields(row))


class ClientDetail(Client):
    """A client and its progress."""

    sentence: str = Field(description="its progress, for the person who waits for it")
    expected_ready_at: datetime | None = Field(
        description="by what others took in the last day; null: unknown, or passed (`is_late`)"
    )
    is_late: bool

    @classmethod
    def from_progress(cls, progress: Progress) -> ClientDetail:
        """Make it from a client's progress."""
        return cls(
            **_client_fields(progress.client),
            sentence=progress.sentence,
            expected_ready_at=progress.expected_ready_at,
            is_late=progress.is_late,
        )


def _client_fields(row: ClientStatusRow) -> dict[str, Any]:
    """Return the fields that `Client` and `ClientDetail` have in common."""
    return {
        "id": row.client_id,
        "name": row.client_name,
        # An adopted table may hold a null, or a word of its own.
        "provisioning_status": row.status or ClientStatus.NOT_PROVISIONED,
        "provisioning_error": row.last_error,
        "provisioning_started_at": row.provisioning_started_at,
        "provisioning_completed_at": row.provisioning_completed_at,
        "schema_version": row.schema_version,
        "project_ref": row.project_ref,
        "project_url": row.project_url,
        "created_at": row.created_at,
        "job": None if row.job_id is None else JobState.from_row(row),
    }


class ClientPage(BaseModel):
    """Clients, newest first."""

    clients: list[Client]
    next_cursor: str | None = Field(description="the next page's `cursor`; null: this is the last")

    @classmethod
    def from_page(cls, page: Page[ClientStatusRow]) -> ClientPage:
        """Make it from a page of `client_status`."""
        clients = [Client.from_row(row) for row in page.rows]
        return cls(clients=clients, next_cursor=page.next_cursor)


class Job(FromRow):
    """A row of `job_status`."""

    id: int
    client_id: UUID
    client_name: str
    workflow: str
    phase: str
    phase_number: int | None
    phase_count: int | None
    status: JobStatus
    priority: int
    attempts: int
    max_attempts: int
    crashes: int
    error_kind: ErrorKind | None
    last_error: str | None
    waiting_for: str | None
    next_try_at: datetime | None
    claimed_by: str | None
    lease_expires_at: datetime | None
    created_at: datetime
    updated_at: datetime
    finished_at: datetime | None


class JobPage(BaseModel):
    """Jobs, newest first."""

    jobs: list[Job]
    next_cursor: str | None = Field(description="the next page's `cursor`; null: this is the last")

    @classmethod
    def from_page(cls, page: Page[JobStatusRow]) -> JobPage:
        """Make it from a page of `job_status`."""
        jobs = [Job.model_validate(row) for row in page.rows]
        return cls(jobs=jobs, next_cursor=page.next_cursor)


class Transition(FromRow):
    """A change of a client's job: a row of `events`."""

    id: int
    at: datetime
    event: str
    from_status: str | None
    to_status: str | None
    from_phase: str | None
    to_phase: str | None
    error_kind: ErrorKind | None
    error: str | None


class Retried(BaseModel):
    """The job that is queued again."""

    job_id: int


class Cancelled(BaseModel):
    """How many jobs were cancelled; what exists at the provider stays there."""

    cancelled: int


class GroupRetried(BaseModel):
    """How many jobs are queued again."""

    retried: int


class PauseScope(BaseModel):
    """What to pause or resume."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"example": {"scope": "all"}})

    scope: Word = Field("all", description="a workflow, or `all`")


class PauseState(BaseModel):
    """Whether the scope is paused now, and whether that is new."""

    scope: str
    is_paused: bool
    is_news: bool


class FailedGroup(FromRow):
    """Failed jobs with the same error (a row of `failed_groups`)."""

    group_id: str
    workflow: str
    phase: str
    error_kind: ErrorKind | None
    jobs: int
    oldest_failed_at: datetime | None
    newest_failed_at: datetime | None
    sample_error: str | None
    sample_client_ids: list[UUID]
    sample_client_names: list[str]


class Health(FromRow):
    """The row of `queue_health`; ages are in seconds, of the oldest one, 0 when there is none."""

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


class Pause(FromRow):
    """A scope that a person has paused."""

    scope: str
    paused_at: datetime
    paused_by: str


class Breaker(FromRow):
    """A credential that the provider refuses."""

    credential: str
    reason: str
    opened_at: datetime
    probe_at: datetime


class Worker(FromRow):
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


class Latency(BaseModel):
    """A row of `phase_latency`."""

    workflow: str
    phase: str
    count: int
    p50_seconds: float | None
    p95_seconds: float | None
    max_seconds: float | None

    @classmethod
    def from_row(cls, row: PhaseLatencyRow) -> Latency:
        """Make it from what a phase took in the last day."""
        return cls(
            workflow=row.workflow,
            phase=row.phase,
            count=row.ended,
            p50_seconds=row.p50_seconds,
            p95_seconds=row.p95_seconds,
            max_seconds=row.max_seconds,
        )


class Overview(BaseModel):
    """The state of the queue, and the clients that need a person or wait."""

    health: Health
    pauses: list[Pause]
    breakers: list[Breaker]
    workers: list[Worker]
    latency: list[Latency]
    failed_groups: list[FailedGroup]
    failed: list[Client]
    queued: list[Client]

    @classmethod
    def from_report(cls, report: QueueReport) -> Overview:
        """Make it from a report."""
        queue = report.queue
        return cls(
            health=Health.model_validate(queue.health),
            pauses=[Pause.model_validate(row) for row in queue.pauses],
            breakers=[Breaker.model_validate(row) for row in queue.breakers],
            workers=[Worker.model_validate(row) for row in queue.workers],
            latency=[Latency.from_row(row) for row in queue.latency],
            failed_groups=[FailedGroup.model_validate(row) for row in queue.failed_groups],
            failed=[Client.from_row(row) for row in report.failed],
            queued=[Client.from_row(row) for row in report.queued],
        )
