"""One client's story on one screen: what state it is in, why, and what to press."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pgworker.models import ClientStatus, JobStatus

if TYPE_CHECKING:
    from uuid import UUID

    from pgworker.queue.operations import Operations, Row

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

    client: Row
    phases: dict[str, float]
    last_answer: str | None
    breakers: list[Row]
    events: list[Row]
    advice: tuple[str, ...]


async def explain(
    operations: Operations, client_id: UUID, *, events: int = EVENTS_SHOWN
) -> Explanation:
    """Gather everything that is known of a client's way."""
    (client,) = await operations.clients(client_id=client_id)
    spans = await operations.phase_seconds([client_id])
    help_of_failure = await operations.what_helps(client_id)
    return Explanation(
        client=client,
        phases={span["phase"]: span["seconds"] for span in spans},
        last_answer=await operations.last_answer(client_id),
        breakers=await operations.open_breakers(),
        events=await operations.history(client_id, limit=events),
        advice=advise(client, help_of_failure),
    )


def advise(client: Row, help_of_failure: str | None) -> tuple[str, ...]:
    """Return what a person can do, from a row of `client_status`. Pure."""
    client_id, job_status = client["client_id"], client["job_status"]
    retry, cancel = f"pgworker retry {client_id}", f"pgworker cancel {client_id}"
    if job_status == JobStatus.FAILED:
        advice = help_of_failure or "mend what the error names"
        lines = [advice] if retry in advice else [advice, f"try again: {retry}"]
        return (*lines, f"give up: {cancel}")
    if job_status == JobStatus.CANCELLED:
        return (f"start again, with what exists already: {retry}",)
    if job_status is None:
        if client["status"] == ClientStatus.READY:
            return ("nothing: it is ready",)
        return (f"provision it, in SQL: select pgworker.enqueue('{client_id}');",)
    if job_status == JobStatus.SUCCEEDED:
        return (f"nothing: it is {client['status']}",)
    blocked = client["blocked_because"] or ""
    if "no worker is alive" in blocked:
        return ("start a worker: pgworker run",)
    if "paused" in blocked:
        return ("end the pause: pgworker resume",)
    if client["error_kind"] == "auth":
        return ("the provider refuses our credential: pgworker doctor names it",)
    return ("nothing: it goes on by itself", f"give up: {cancel}")
