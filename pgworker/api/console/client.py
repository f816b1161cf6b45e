"""One client's page: its state in one sentence, what to press, and its whole story."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import UUID

from fastapi import APIRouter, Request, Response

from pgworker.api.auth import MayRead
from pgworker.api.console.rendering import PageRoute, page
from pgworker.api.console.telling import said_of
from pgworker.api.service import ServiceDep
from pgworker.models import JobStatus
from pgworker.status.explain import actions, explain, sentence
from pgworker.status.timeline import tell

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgworker.status.explain import Explanation

EVENTS_SHOWN = 500

router = APIRouter(route_class=PageRoute)


@dataclass(frozen=True, slots=True)
class PhaseShown:
    """A phase in the row of phases.

    Attributes:
        state: `done`, `now`, `failed` or `todo`; a class of the style sheet.
        words: the state, where no seconds are known.
    """

    phase: str
    state: str
    words: str
    seconds: float | None


@router.get("/admin/provisioning/clients/{client_id}", name="console_client")
async def client(
    request: Request, service: ServiceDep, principal: MayRead, client_id: UUID
) -> Response:
    """Show a client."""
    status = service.status
    found = await explain(status, client_id, events=EVENTS_SHOWN)
    row = found.client
    phases = await status.list_phases(row.workflow) if row.workflow else []
    has_failed = row.job_status == JobStatus.FAILED
    return page(
        request,
        "client.html",
        principal=principal,
        client=row,
        sentence=sentence(row),
        actions=actions(row),
        help=await status.get_remedy(row.error_kind) if has_failed else None,
        steps=list(_phases(found, phases)),
        entries=tuple(reversed(tell(found.events))),
        is_cut=len(found.events) == EVENTS_SHOWN,
        facts=list(_facts(found)),
        ledger=await status.list_steps(client_id),
        said=said_of(request),
    )


def _phases(found: Explanation, phases: list[str]) -> Iterator[PhaseShown]:
    row = found.client
    current = phases.index(row.phase) if row.phase in phases else -1
    is_over = row.job_status == JobStatus.SUCCEEDED
    for index, phase in enumerate(phases):
        seconds = found.phases.get(phase)
        if is_over or index < current:
            yield PhaseShown(phase, "done", "done", seconds)
        elif index > current:
            yield PhaseShown(phase, "todo", "to come", None)
        elif row.job_status == JobStatus.FAILED:
            yield PhaseShown(phase, "failed", "failed", seconds)
        elif row.job_status == JobStatus.CANCELLED:
            yield PhaseShown(phase, "todo", "cancelled", None)
        else:
            yield PhaseShown(phase, "now", "next" if seconds is None else "now", seconds)


def _facts(found: Explanation) -> Iterator[tuple[str, object]]:
    """Yield what there is to know in a word or two."""
    row = found.client
    tries = f"{row.attempts} of {row.max_attempts} in this phase" if row.attempts else None
    facts = (
        ("Project", row.project_ref),
        ("Address", row.project_url),
        ("Schema", row.schema_version),
        ("Provider said", found.last_answer),
        ("Held by", row.claimed_by),
        ("Tries", tries),
        ("Job", row.job_id),
    )
    yield from ((name, value) for name, value in facts if value is not None)
