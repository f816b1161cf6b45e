"""A client's progress, for people who wait for it: where it is, until when, and in a sentence."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

from pgworker.db.queries import load
from pgworker.errors import UnknownClient
from pgworker.models import FINAL_STATUSES, LIVE_STATUSES, ClientStatus, JobStatus
from pgworker.status.rows import ClientStatusRow, PhaseLatencyRow, fetch_rows

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence
    from uuid import UUID

    from pgworker.db.pool import Pool
    from pgworker.status.events import EventFeed
    from pgworker.status.rows import TransitionRow

# The statistics read a day's events: so they are at least this old before they are read again, and
# reading them takes at most this share of the time, however many events there are.
LATENCY_MAX_AGE = timedelta(seconds=60)
LATENCY_SHARE = 0.02
# Browsers, proxies and load balancers take a connection for dead after 30 s or more of silence.
KEEP_ALIVE = timedelta(seconds=15)

NEVER_REQUESTED = "provisioning was never requested"
_STATE = {
    ClientStatus.NOT_PROVISIONED: NEVER_REQUESTED,
    ClientStatus.QUEUED: "it is queued",
    ClientStatus.CREATING_PROJECT: "its project is being created",
    ClientStatus.WAITING_FOR_PROJECT: "its project is starting",
    ClientStatus.SCHEMA_SYNCING: "its schema is being applied",
    ClientStatus.SMOKE_CHECKING: "it is being checked",
    ClientStatus.READY: "it is ready",
    ClientStatus.FAILED: "it failed",
    ClientStatus.CANCELLED: "it was cancelled",
    ClientStatus.DEPROVISIONING: "it is being removed",
    ClientStatus.DEPROVISIONED: "it was removed",
}


class ProgressQueries(NamedTuple):
    """The statements of `sql/queries/progress.sql`."""

    client: str
    latency: str


PROGRESS_QUERIES = load(ProgressQueries, "queries/progress.sql")


@dataclass(frozen=True, slots=True)
class Progress:
    """A client's progress.

    Attributes:
        expected_ready_at: by what other clients took in the last day; None when there are no
            figures, or when that time has passed.
        is_late: that time has passed.
        sentence: for the person who waits; without technical detail.
        newest_event_id: of the client's events; 0 when there is none.
    """

    client: ClientStatusRow
    expected_ready_at: datetime | None
    is_late: bool
    sentence: str
    newest_event_id: int

    @property
    def is_final(self) -> bool:
        """Whether nothing more happens by itself."""
        return self.client.job_status not in LIVE_STATUSES and self.client.status in FINAL_STATUSES


@dataclass(frozen=True, slots=True)
class News:
    """What a follower gets.

    Attributes:
        transitions: events since the last news, oldest first; of many the newest 200.
        progress: the client's progress now.
        last_event_id: of the newest event that was delivered, with these news or before.
    """

    transitions: Sequence[TransitionRow]
    progress: Progress
    last_event_id: int

    @property
    def is_complete(self) -> bool:
        """Whether all transitions that led to this progress were delivered."""
        return self.last_event_id >= self.progress.newest_event_id


class ProgressReader:
    """Reads the progress of clients. Every method may raise `DatabaseUnreachable`."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._latency: list[PhaseLatencyRow] = []
        self._latency_until = 0.0
        self._reading_latency = asyncio.Lock()

    async def get(self, client_id: UUID) -> Progress:
        """Return a client's progress.

        Raises:
            UnknownClient: there is none of that id.
        """
        record = await self._pool.fetchrow(PROGRESS_QUERIES.client, client_id)
        if record is None:
            raise UnknownClient(f"there is no client {client_id}")
        *columns, began_at, newest_event_id, remedy = record
        client = ClientStatusRow._make(columns)
        expected = get_expected_ready_at(client, began_at, await self.get_latency())
        is_late = expected is not None and expected <= datetime.now(UTC)
        return Progress(
            client=client,
            expected_ready_at=None if is_late else expected,
            is_late=is_late,
            sentence=describe_progress(client, remedy=remedy, is_late=is_late),
            newest_event_id=newest_event_id,
        )

    async def follow(
        self,
        feed: EventFeed,
        client_id: UUID,
        *,
        after: int | None = None,
        keep_alive: timedelta = KEEP_ALIVE,
    ) -> AsyncGenerator[News | None]:
        """Yield the client's progress, then its news; None after a while without any.

        Ends only when the process does.

        Args:
            feed: the streams of this process.
            client_id: of the client to follow.
            after: begin with the transitions behind this event; None: with those to come.
            keep_alive: how long without news until None is yielded.

        Raises:
            UnknownClient, TooManyStreams: before anything is yielded.
        """
        begin = await self.get(client_id)
        last_event_id = begin.newest_event_id if after is None else after
        async with feed.stream(client_id, after=last_event_id) as stream:
            # The stream delivers what comes from now on. What came before it was open is fetched;
            # an event that both bring is delivered once.
            stream.deliver(await feed.fetch_events(client_id, after=last_event_id))
            has_news = True
            while not stream.is_closed:
                if has_news:
                    transitions = stream.take()
                    last_event_id = max([last_event_id, *(row.id for row in transitions)])
                    yield News(transitions, await self.get(client_id), last_event_id)
                else:
                    yield None
                has_news = await stream.wait(keep_alive)

    async def get_latency(self) -> list[PhaseLatencyRow]:
        """Return all phases, in order, with what they took in the last day; up to minutes old.

        It takes a pass over the events of a day. So one caller reads at a time, the others get the
        rows of before, and the next read has to wait.
        """
        if time.monotonic() < self._latency_until:
            return self._latency
        if self._latency and self._reading_latency.locked():
            return self._latency
        async with self._reading_latency:
            began = time.monotonic()
            if began < self._latency_until:
                return self._latency
            self._latency = await fetch_rows(self._pool, PhaseLatencyRow, PROGRESS_QUERIES.latency)
            # By the time that it took: on a large platform a pass takes seconds.
            now = time.monotonic()
            rest = max(LATENCY_MAX_AGE.total_seconds(), (now - began) / LATENCY_SHARE)
            self._latency_until = now + rest
            return self._latency


def get_expected_ready_at(
    client: ClientStatusRow, began_at: datetime | None, latency: Sequence[PhaseLatencyRow]
) -> datetime | None:
    """Return when a client is ready if it takes what others took. Pure; may be in the past.

    Args:
        client: with its newest job.
        began_at: when its job entered its present phase.
        latency: of all phases, in order.
    """
    if client.job_status not in LIVE_STATUSES:
        return None
    began = began_at or client.since
    phases = [row for row in latency if row.workflow == client.workflow]
    names = [row.phase for row in phases]
    if began is None or client.phase not in names:
        return None
    ahead = timedelta(0)
    for row in phases[names.index(client.phase) :]:
        if row.p50_seconds is None:
            return None
        ahead += timedelta(seconds=row.p50_seconds)
    return began + ahead


def describe_progress(
    client: ClientStatusRow, *, remedy: str | None = None, is_late: bool = False
) -> str:
    """Return a client's progress as a sentence for the person who waits for it. Pure.

    Args:
        client: with its newest job.
        remedy: what to do about its failure (`pgworker.remedy`).
        is_late: it takes longer than others did.
    """
    try:
        status = ClientStatus(client.status or "")
    except ValueError:
        # A null, or a word of an adopted table.
        return _write_sentence(NEVER_REQUESTED)
    state = _STATE[status]
    if client.phase_number and client.job_status in {JobStatus.RUNNING, JobStatus.WAITING}:
        state += f" (phase {client.phase_number} of {client.phase_count})"
    if status is ClientStatus.FAILED:
        return _write_sentence(state, remedy)
    if status is ClientStatus.CANCELLED:
        return _write_sentence(state, "retry it to continue with what exists")
    if client.job_status == JobStatus.WAITING and client.error_kind is not None:
        return _write_sentence(state, "an error delayed it, and it is retried automatically")
    return _write_sentence(state, "it is taking longer than usual" if is_late else None)


def _write_sentence(state: str, rest: str | None = None) -> str:
    sentence = f"{state}; {rest}" if rest else state
    return f"{sentence[0].upper()}{sentence[1:]}."
