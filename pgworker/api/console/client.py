"""One client's page: its state in one sentence, what a person can do, and its whole history."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import UUID

from fastapi import APIRouter, Request, Response

from pgworker.api.auth import MayRead
from pgworker.api.console.flash import get_flash
from pgworker.api.console.rendering import PageRoute, render_page
from pgworker.api.service import ServiceDep
from pgworker.models import JobStatus
from pgworker.status.explain import describe_state, explain, get_actions
from pgworker.status.timeline import build_timeline

if TYPE_CHECKING:
    from pgworker.status.explain import Explanation

# A client that waited for days has more; the page says how to read them.
EVENTS_SHOWN = 500

router = APIRouter(route_class=PageRoute)


@dataclass(frozen=True, slots=True)
class PhaseShown:
    """A phase in the row of phases.

    Attributes:
        state: `done`, `now`, `failed` or `todo`; a class of the style sheet.
        words: what is shown where there are no seconds.
    """

    phase: str
    state: str
    words: str
    seconds: float | None


@router.get("/admin/provisioning/clients/{client_id}", name="console_client")
async def show_client(
    request: Request, service: ServiceDep, principal: MayRead, client_id: UUID
) -> Response:
    """Show a client.

    Raises:
        UnknownClient: there is none of that id.
    """
    status = service.status
    found = await explain(status, client_id, events=EVENTS_SHOWN)
    client = found.client
    phases = await status.list_phases(client.workflow) if client.workflow else []
    has_failed = client.job_status == JobStatus.FAILED
    return render_page(
        request,
        "client.html",
        principal=principal,
        client=client,
        sentence=describe_state(client),
        actions=get_actions(client),
        remedy=await status.get_remedy(client.error_kind) if has_failed else None,
        phases=[_show_phase(found, phases, each) for each in phases],
        entries=tuple(reversed(build_timeline(found.events))),
        is_cut=len(found.events) == EVENTS_SHOWN,
        facts=_list_facts(found),
        steps=await status.list_steps(client_id),
        flash=get_flash(request),
    )


def _show_phase(found: Explanation, phases: list[str], phase: str) -> PhaseShown:
    """Return how a phase is shown: by its place before or after the one that the job is in."""
    client, seconds = found.client, found.phases.get(phase)
    index = phases.index(phase)
    current = phases.index(client.phase) if client.phase in phases else -1
    if client.job_status == JobStatus.SUCCEEDED or index < current:
        return PhaseShown(phase, "done", "done", seconds)
    if index > current:
        return PhaseShown(phase, "todo", "pending", None)
    if client.job_status == JobStatus.FAILED:
        return PhaseShown(phase, "failed", "failed", seconds)
    if client.job_status == JobStatus.CANCELLED:
        return PhaseShown(phase, "todo", "cancelled", None)
    return PhaseShown(phase, "now", "next" if seconds is None else "now", seconds)


def _list_facts(found: Explanation) -> list[tuple[str, object]]:
    """Return names and values; what is unknown is left out."""
    row = found.client
    attempts = f"{row.attempts} of {row.max_attempts} in this phase" if row.attempts else None
    facts: tuple[tuple[str, object], ...] = (
        ("Project", row.project_ref),
        ("Address", row.project_url),
        ("Schema", row.schema_version),
        ("Provider said", found.last_answer),
        ("Held by", row.claimed_by),
        ("Attempts", attempts),
        ("Job", row.job_id),
    )
    return [(name, value) for name, value in facts if value is not None]
