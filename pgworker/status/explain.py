"""One client's story on one screen: what state it is in, why, and what to press."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pgworker.models import LIVE_STATUSES, ClientStatus, JobStatus

if TYPE_CHECKING:
    from uuid import UUID

    from pgworker.status.queries import StatusReader
    from pgworker.status.rows import BreakerRow, ClientStatusRow, EventRow

EVENTS_SHOWN = 8


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a client is where it is.

    Attributes:
        client: its row of `client_status`.
        phases: seconds in each phase begun so far, in order.
        last_answer: the provider's, about the tenant.
        breakers: credentials that the provider refuses now; rows of `pgworker.breakers`.
        events: the newest ones, oldest first.
        advice: what to press, a line each.
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
    """Gather everything that is known of a client's way."""
    client = await status.get_client_status(client_id)
    spans = await status.list_phase_seconds([client_id])
    help_of_failure = await status.get_advice(client_id)
    return Explanation(
        client=client,
        phases={span.phase: span.seconds for span in spans},
        last_answer=await status.get_last_answer(client_id),
        breakers=await status.list_open_breakers(),
        events=await status.list_events(client_id, limit=events),
        advice=advise(client, help_of_failure),
    )


def sentence(client: ClientStatusRow) -> str:
    """Return a client's state in one sentence, from a row of `client_status`. Pure."""
    phase = client.phase
    if client.phase_number is not None:
        phase = f"{phase} (phase {client.phase_number} of {client.phase_count})"
    match client.job_status:
        case JobStatus.FAILED:
            return f"Failed in {phase}: it needs a person, and keeps everything that was done."
        case JobStatus.RUNNING if client.blocked_because:
            return f"Left behind in {phase}: {client.blocked_because}."
        case JobStatus.RUNNING:
            return f"Under way: a worker is on {phase}."
        case JobStatus.QUEUED:
            return f"In line for {phase}: {client.blocked_because}."
        case JobStatus.WAITING:
            return f"Waiting in {phase}: {client.blocked_because or 'its time'}."
        case JobStatus.CANCELLED:
            return f"Cancelled in {phase}; what exists at the provider stays there."
        case JobStatus.SUCCEEDED if client.status == ClientStatus.READY:
            return "Ready: provisioned and checked."
        case JobStatus.SUCCEEDED:
            return f"Done: it is {client.status}."
        case _ if client.status == ClientStatus.READY:
            return "Ready."
        case _:
            return "Nobody has asked for this client to be provisioned."


@dataclass(frozen=True, slots=True)
class Action:
    """Something that a person may press.

    Attributes:
        name: `retry` or `cancel`.
        label: what the button says.
        consequence: what pressing it does, in one sentence.
        asks_first: it costs money or can't be taken back.
    """

    name: str
    label: str
    consequence: str
    asks_first: bool


def actions(client: ClientStatusRow) -> tuple[Action, ...]:
    """Return what can be pressed for a client, the likeliest first. Pure."""
    status, phase = client.job_status, client.phase
    cancel = Action(
        "cancel",
        "Cancel",
        "Stops the work on this client. What exists at the provider stays there, and may go on "
        "costing money.",
        asks_first=True,
    )
    if status == JobStatus.FAILED:
        makes = phase == "create_project"
        goes_on = f"Goes on at {phase} with everything that was done; nothing is made twice."
        return (
            Action(
                "retry",
                "Retry",
                f"{goes_on} It may create the client's project, which the provider bills."
                if makes
                else goes_on,
                asks_first=makes,
            ),
            cancel,
        )
    if status == JobStatus.CANCELLED:
        return (
            Action(
                "retry",
                "Start again",
                "Begins anew with what exists already; it may create the client's project, which "
                "the provider bills.",
                asks_first=True,
            ),
        )
    if status in LIVE_STATUSES:
        return (cancel,)
    return ()


def advise(client: ClientStatusRow, help_of_failure: str | None) -> tuple[str, ...]:
    """Return what a person can do, from a row of `client_status`. Pure."""
    client_id, job_status = client.client_id, client.job_status
    retry, cancel = f"pgworker retry {client_id}", f"pgworker cancel {client_id}"
    if job_status == JobStatus.FAILED:
        advice = help_of_failure or "mend what the error names"
        lines = [advice] if retry in advice else [advice, f"try again: {retry}"]
        return (*lines, f"give up: {cancel}")
    if job_status == JobStatus.CANCELLED:
        return (f"start again, with what exists already: {retry}",)
    if job_status is None:
        if client.status == ClientStatus.READY:
            return ("nothing: it is ready",)
        return (f"provision it, in SQL: select pgworker.enqueue('{client_id}');",)
    if job_status == JobStatus.SUCCEEDED:
        return (f"nothing: it is {client.status}",)
    match client.blocked_code:
        case "no_worker":
            return ("start a worker: pgworker run",)
        case "paused":
            return ("end the pause: pgworker resume",)
    if client.error_kind == "auth":
        return ("the provider refuses our credential: pgworker doctor names it",)
    return ("nothing: it goes on by itself", f"give up: {cancel}")
