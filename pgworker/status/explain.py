"""One client on one screen: what state it is in, why, and what a person can do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pgworker.models import LIVE_STATUSES, ClientStatus, JobStatus

if TYPE_CHECKING:
    from uuid import UUID

    from pgworker.status.queries import StatusReader
    from pgworker.status.rows import BreakerRow, ClientStatusRow, EventRow

# What fits on a terminal together with the rest of `pgworker why`.
EVENTS_SHOWN = 8


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a client is in its state.

    Attributes:
        phases: seconds in each phase begun so far, in order.
        last_answer: the provider's, about the tenant.
        breakers: credentials that the provider refuses now.
        events: the newest ones, oldest first.
        advice: what a person can do, a line each.
    """

    client: ClientStatusRow
    phases: dict[str, float]
    last_answer: str | None
    breakers: list[BreakerRow]
    events: list[EventRow]
    advice: tuple[str, ...]


async def explain(
    status: StatusReader, client_id: UUID, *, events: int = EVENTS_SHOWN
) -> Explanation:
    """Return everything that is known about a client's provisioning.

    Raises:
        UnknownClient: there is none of that id.
    """
    client = await status.get_client_status(client_id)
    spans = await status.list_phase_seconds([client_id])
    remedy = await status.get_advice(client_id)
    return Explanation(
        client=client,
        phases={span.phase: span.seconds for span in spans},
        last_answer=await status.get_last_answer(client_id),
        breakers=await status.list_open_breakers(),
        events=await status.list_events(client_id, limit=events),
        advice=advise(client, remedy),
    )


# By the status of the newest job. What a sentence quotes may hold braces, but is filled in only.
_SENTENCES = {
    JobStatus.FAILED: "Failed in {phase}: needs a person. What was done so far is kept.",
    JobStatus.RUNNING: "In progress: a worker is running {phase}.",
    JobStatus.QUEUED: "Queued for {phase}: {reason}.",
    JobStatus.WAITING: "Waiting in {phase}: {reason}.",
    JobStatus.CANCELLED: "Cancelled in {phase}. What exists at the provider stays there.",
}
# A running job is blocked when its lease has expired, and no worker has taken it over yet.
_STALLED = "Stalled in {phase}: {reason}."


def describe_state(client: ClientStatusRow) -> str:
    """Return a client's state in one sentence, for the operator. Pure."""
    if client.job_status is None or client.job_status == JobStatus.SUCCEEDED:
        return _describe_idle(client)
    sentence = _SENTENCES[JobStatus(client.job_status)]
    if client.job_status == JobStatus.RUNNING and client.blocked_because:
        sentence = _STALLED
    phase = client.phase
    if client.phase_number is not None:
        phase = f"{phase} (phase {client.phase_number} of {client.phase_count})"
    return sentence.format(phase=phase, reason=client.blocked_because or "the next try")


def _describe_idle(client: ClientStatusRow) -> str:
    """Return the state of a client without a job that could still do something."""
    is_ready, has_job = client.status == ClientStatus.READY, client.job_status is not None
    if has_job:
        return "Ready: provisioned and checked." if is_ready else f"Done: it is {client.status}."
    # A platform that had clients before pgworker may mark them as ready itself.
    return "Ready." if is_ready else "Provisioning was never requested for this client."


@dataclass(frozen=True, slots=True)
class Action:
    """A button.

    Attributes:
        name: `retry` or `cancel`.
        label: what the button says.
        consequence: what pressing it does, in one sentence.
        asks_first: it costs money or can't be undone.
    """

    name: str
    label: str
    consequence: str
    asks_first: bool


def get_actions(client: ClientStatusRow) -> tuple[Action, ...]:
    """Return what a person can do about a client, the likeliest first. Pure."""
    # Asks first: a project whose client was cancelled may still be billed.
    cancel = Action(
        "cancel",
        "Cancel",
        "Stops the work on this client. What exists at the provider stays there, and may "
        "keep costing money.",
        asks_first=True,
    )
    if client.job_status == JobStatus.FAILED:
        return (_get_retry(client), cancel)
    if client.job_status == JobStatus.CANCELLED:
        # A new job, from the first phase on: so it may create a project, whatever the old one did.
        return (
            Action(
                "retry",
                "Start again",
                "Starts over and reuses what exists; it may create the client's project, which "
                "the provider bills.",
                asks_first=True,
            ),
        )
    return (cancel,) if client.job_status in LIVE_STATUSES else ()


def _get_retry(client: ClientStatusRow) -> Action:
    """Return the retry of a failed job; it asks first where the phase may cost money."""
    consequence = (
        f"Continues at {client.phase} and keeps what was done so far; nothing is created twice."
    )
    if client.may_cost_money:
        consequence += " It may create the client's project, which the provider bills."
    return Action("retry", "Retry", consequence, asks_first=client.may_cost_money)


# By the code of what blocks an unfinished job (sql/views/04_client_status.sql); the others end by
# themselves.
_ADVICE = {
    "no_worker": "start a worker: pgworker run",
    "paused": "end the pause: pgworker resume",
    "breaker_open": "replace the credential that the provider refuses: pgworker doctor names it",
}


def advise(client: ClientStatusRow, remedy: str | None) -> tuple[str, ...]:
    """Return what a person can do about a client, a line each, with the commands to type. Pure.

    Args:
        client: with its newest job.
        remedy: what to do about its failed job; the view `failed_jobs` has it.
    """
    retry, cancel = f"pgworker retry {client.client_id}", f"pgworker cancel {client.client_id}"
    match client.job_status:
        case JobStatus.FAILED:
            first = remedy or "fix what the error names"
            # The remedy of some kinds is to retry all jobs of that kind.
            again = () if retry in first else (f"try again: {retry}",)
            return (first, *again, f"give up: {cancel}")
        case JobStatus.CANCELLED:
            return (f"start over, reusing what exists: {retry}",)
        case None if client.status != ClientStatus.READY:
            return (f"provision it, in SQL: select pgworker.enqueue('{client.client_id}');",)
        case None | JobStatus.SUCCEEDED:
            return (f"nothing: it is {client.status}",)
    if client.blocked_code in _ADVICE:
        return (_ADVICE[client.blocked_code],)
    return ("nothing: it continues by itself", f"give up: {cancel}")
