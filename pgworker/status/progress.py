"""How far a client is, for people who wait for it: where it stands, until when, in a sentence."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

from pgworker.db.queries import load
from pgworker.errors import UnknownClient
from pgworker.models import LIVE_STATUSES, ClientStatus, ErrorKind, JobStatus
from pgworker.status.rows import ClientStatusRow, PhaseLatencyRow, fetch_rows

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence
    from uuid import UUID

    from pgworker.db.pool import Pool
    from pgworker.status.events import Watching
    from pgworker.status.rows import TransitionRow

# The statistics read a day's events: as seldom as they are of use, and a small part of the time.
LATENCY_EVERY = timedelta(seconds=60)
LATENCY_SHARE = 0.02
# Below what browsers, proxies and load balancers take for a dead connection.
KEEP_ALIVE = timedelta(seconds=15)

FINAL = frozenset(
    {
        ClientStatus.NOT_PROVISIONED,
        ClientStatus.READY,
        ClientStatus.FAILED,
        ClientStatus.CANCELLED,
        ClientStatus.DEPROVISIONED,
    }
)

_DOING = {
    ClientStatus.NOT_PROVISIONED: "nobody has asked for it to be provisioned",
    ClientStatus.QUEUED: "it waits in line",
    ClientStatus.CREATING_PROJECT: "its project is being created",
    ClientStatus.WAITING_FOR_PROJECT: "its project is coming up",
    ClientStatus.SCHEMA_SYNCING: "its schema is being applied",
    ClientStatus.SMOKE_CHECKING: "it is being checked",
    ClientStatus.READY: "it is ready",
    ClientStatus.FAILED: "it failed",
    ClientStatus.CANCELLED: "it was cancelled",
    ClientStatus.DEPROVISIONING: "it is being taken down",
    ClientStatus.DEPROVISIONED: "it was taken down",
}
_NEEDED = {
    ErrorKind.QUOTA: "something must be bought or freed at the provider, then retry it",
    ErrorKind.AUTH: "the provider needs a credential that it accepts, then retry it",
    ErrorKind.PERMANENT: "somebody must mend what the error names, then retry it",
    ErrorKind.UNKNOWN: "somebody must look whether it happened at the provider, then retry it",
    ErrorKind.TRANSIENT: "the other side was not well for long; retry it",
    ErrorKind.THROTTLED: "the other side was not well for long; retry it",
}


class ProgressQueries(NamedTuple):
    """The statements of `sql/queries/progress.sql`."""

    client: str
    latency: str


PROGRESS_QUERIES = load(ProgressQueries, "queries/progress.sql")


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a client is.

    Attributes:
        client: its row of `client_status`.
        expected_ready_at: by what others took in the last day; None when nobody can tell, or when
            that time has passed.
        is_late: that time has passed.
        sentence: for whoever waits; without technical detail.
        newest_event_id: of the client's events.
    """

    client: ClientStatusRow
    expected_ready_at: datetime | None
    is_late: bool
    sentence: str
    newest_event_id: int

    @property
    def is_final(self) -> bool:
        """Whether nothing more happens by itself."""
        return self.client.job_status not in LIVE_STATUSES and self.client.status in FINAL


@dataclass(frozen=True, slots=True)
class News:
    """What a follower is told.

    Attributes:
        transitions: events since the last news, oldest first.
        progress: where the client stands now.
        told: the newest event that was told of, now or before.
    """

    transitions: Sequence[TransitionRow]
    progress: Progress
    told: int

    @property
    def is_all(self) -> bool:
        """Whether the progress has no transition that wasn't told of."""
        return self.told >= self.progress.newest_event_id


class Progresses:
    """Tells how far clients are. Every method may raise `DatabaseUnreachable`."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._latency: list[PhaseLatencyRow] = []
        self._latency_until = 0.0
        self._asking = asyncio.Lock()

    async def of(self, client_id: UUID) -> Progress:
        """Return how far a client is.

        Raises:
            UnknownClient: there is none of that id.
        """
        row = await self._pool.fetchrow(PROGRESS_QUERIES.client, client_id)
        if row is None:
            raise UnknownClient(f"there is no client {client_id}")
        *columns, began_at, newest_event_id = row
        client = ClientStatusRow._make(columns)
        now = datetime.now(UTC)
        expected = expected_ready_at(client, began_at, await self.latency())
        is_late = expected is not None and expected <= now
        return Progress(
            client=client,
            expected_ready_at=None if is_late else expected,
            is_late=is_late,
            sentence=sentence_of(client, is_late=is_late),
            newest_event_id=newest_event_id,
        )

    async def follow(
        self,
        watching: Watching,
        client_id: UUID,
        *,
        after: int | None = None,
        keep_alive: timedelta = KEEP_ALIVE,
    ) -> AsyncGenerator[News | None]:
        """Yield where the client stands, then its news; None now and then, when all is quiet.

        Ends only when the process does.

        Args:
            watching: the streams of this process.
            client_id: whom to follow.
            after: begin with the transitions behind this event; None: with those to come.
            keep_alive: how long to be quiet.

        Raises:
            UnknownClient, TooManyStreams: before anything is yielded.
        """
        begin = await self.of(client_id)
        told = begin.newest_event_id if after is None else after
        async with watching.stream(client_id, after=told) as stream:
            # What was missed comes with the first news; from here on we are notified.
            stream.deliver(await watching.events(client_id, after=told))
            is_news = True
            while not stream.is_closed:
                if is_news:
                    transitions = stream.take()
                    told = max([told, *(row.id for row in transitions)])
                    yield News(transitions, await self.of(client_id), told)
                else:
                    yield None
                is_news = await stream.wait(keep_alive)

    async def latency(self) -> list[PhaseLatencyRow]:
        """Return all phases, in order, with what they took in the last day; up to minutes old.

        Asked for by one at a time, and seldom: it takes a pass over the events of a day.
        """
        if time.monotonic() < self._latency_until or (self._latency and self._asking.locked()):
            return self._latency
        async with self._asking:
            began = time.monotonic()
            if began < self._latency_until:
                return self._latency
            self._latency = await fetch_rows(self._pool, PhaseLatencyRow, PROGRESS_QUERIES.latency)
            now = time.monotonic()
            rest = max(LATENCY_EVERY.total_seconds(), (now - began) / LATENCY_SHARE)
            self._latency_until = now + rest
            return self._latency


def expected_ready_at(
    client: ClientStatusRow, began_at: datetime | None, latency: Sequence[PhaseLatencyRow]
) -> datetime | None:
    """Return when a client is ready if it takes what others took. Pure; may be in the past.

    Args:
        client: its row of `client_status`.
        began_at: when its job began its present phase.
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


def sentence_of(client: ClientStatusRow, *, is_late: bool = False) -> str:
    """Return where a client stands, as a sentence for whoever waits for it. Pure."""
    try:
        status = ClientStatus(client.status or "")
    except ValueError:
        # A null, or a word that an adopted table had before.
        return "Nobody has asked for it to be provisioned."
    doing = _DOING[status]
    if client.phase_number and client.job_status in {JobStatus.RUNNING, JobStatus.WAITING}:
        doing += f" (phase {client.phase_number} of {client.phase_count})"
    rest = ""
    if status is ClientStatus.FAILED and client.error_kind is not None:
        rest = _NEEDED[ErrorKind(client.error_kind)]
    elif status is ClientStatus.CANCELLED:
        rest = "retry it to go on with what exists"
    elif client.job_status == JobStatus.WAITING and client.error_kind is not None:
        rest = "an error held it up, and it is tried again by itself"
    elif is_late:
        rest = "it takes longer than usual"
    sentence = f"{doing}; {rest}" if rest else doing
    return f"{sentence[0].upper()}{sentence[1:]}."
