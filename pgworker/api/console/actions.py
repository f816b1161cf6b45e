"""The buttons. A GET asks for confirmation (and is the dialog's content), a POST acts."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from uuid import UUID

from fastapi import APIRouter, Request, Response

from pgworker.api.auth import MayAdminister, MayOperate
from pgworker.api.console.flash import redirect_with_flash
from pgworker.api.console.rendering import OVERVIEW, PageRoute, get_path, render_page
from pgworker.api.problems import Refused
from pgworker.api.service import ServiceDep
from pgworker.errors import NotRetryable
from pgworker.status.commands import EVERYTHING
from pgworker.status.explain import get_actions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pgworker.api.service import Service
    from pgworker.api.sessions import Principal

# In a dialog; the page behind it has all of them.
NAMES_SHOWN = 12

router = APIRouter(route_class=PageRoute)


# -- one client -------------------------------------------------------------------------------


@router.get("/admin/provisioning/clients/{client_id}/retry", name="console_retry")
async def ask_retry(
    request: Request, service: ServiceDep, principal: MayOperate, client_id: UUID
) -> Response:
    """Ask whether to retry a client."""
    return await _ask_about(request, service, principal, client_id, "retry")


@router.post("/admin/provisioning/clients/{client_id}/retry")
async def retry(
    request: Request, service: ServiceDep, principal: MayOperate, client_id: UUID
) -> Response:
    """Queue a client's failed or cancelled job again.

    Raises:
        NotRetryable: it has none.
        UnknownClient: there is none of that id.
    """
    await service.commands.retry(client_id, by=principal.name)
    return redirect_with_flash(request, "console_client", "retried", client_id=client_id)


@router.get("/admin/provisioning/clients/{client_id}/cancel", name="console_cancel")
async def ask_cancel(
    request: Request, service: ServiceDep, principal: MayOperate, client_id: UUID
) -> Response:
    """Ask whether to stop the work on a client."""
    return await _ask_about(request, service, principal, client_id, "cancel")


@router.post("/admin/provisioning/clients/{client_id}/cancel")
async def cancel(
    request: Request, service: ServiceDep, principal: MayOperate, client_id: UUID
) -> Response:
    """Stop the work on a client.

    Raises:
        UnknownClient: there is none of that id.
    """
    count = await service.commands.cancel(client_id, by=principal.name)
    message = "cancelled" if count else "not-cancelled"
    return redirect_with_flash(request, "console_client", message, client_id=client_id)


async def _ask_about(
    request: Request, service: Service, principal: Principal, client_id: UUID, name: str
) -> Response:
    """Return the question before an action on a client.

    Raises:
        NotRetryable: the client's state doesn't allow the action.
        UnknownClient: there is none of that id.
    """
    client = await service.status.get_client_status(client_id)
    action = next((each for each in get_actions(client) if each.name == name), None)
    if action is None:
        # The page was older than the client's state.
        raise NotRetryable(f"{client.client_name} is {client.status}: there is nothing to {name}")
    is_cancel = name == "cancel"
    return _render_question(
        request,
        principal,
        question=f"{action.label} {client.client_name}?",
        consequence=action.consequence,
        yes=f"{action.label} it" if is_cancel else action.label,
        no="Keep going" if is_cancel else "Not now",
        look="danger" if is_cancel else "primary",
        action=get_path(request, f"console_{name}", client_id=client_id),
        back=get_path(request, "console_client", client_id=client_id),
    )


# -- a group ----------------------------------------------------------------------------------


@router.get("/admin/provisioning/errors/{key}/retry", name="console_retry_group")
async def ask_retry_group(
    request: Request, service: ServiceDep, principal: MayOperate, key: str
) -> Response:
    """Ask whether to retry all clients that failed with the same error.

    Raises:
        Refused: 404, no client is failed with it any more.
    """
    group = await service.status.get_failed_group(key)
    if group is None:
        raise Refused(HTTPStatus.NOT_FOUND, "no client is failed with that error any more")
    rows = await service.status.list_clients_of_group(key, limit=NAMES_SHOWN)
    number = "1 client" if group.jobs == 1 else f"{group.jobs:,} clients"
    consequence = (
        f"Each continues at {group.phase} and keeps what was done so far; nothing is created twice."
    )
    if group.may_cost_money:
        consequence += " Their projects may be created, which the provider bills."
    return _render_question(
        request,
        principal,
        question=f"Retry {number}?",
        consequence=consequence,
        names=[row.client_name for row in rows],
        more=group.jobs - len(rows),
        yes=f"Retry {number}",
        no="Not now",
        look="primary",
        action=get_path(request, "console_retry_group", key=key),
        back=get_path(request, OVERVIEW),
    )


@router.post("/admin/provisioning/errors/{key}/retry")
async def retry_group(
    request: Request, service: ServiceDep, principal: MayOperate, key: str
) -> Response:
    """Queue the failed jobs of a group again."""
    number = await service.commands.retry_group(key, by=principal.name)
    message = "group-retried" if number else "group-gone"
    return redirect_with_flash(request, OVERVIEW, message, number=number)


# -- everything -------------------------------------------------------------------------------


@router.post("/admin/provisioning/everything/pause", name="console_pause")
async def pause(request: Request, service: ServiceDep, principal: MayAdminister) -> Response:
    """Let no further phase start. It can be undone at once, so there is no confirmation."""
    await service.commands.pause(EVERYTHING, by=principal.name)
    return redirect_with_flash(request, OVERVIEW, "paused")


@router.post("/admin/provisioning/everything/resume", name="console_resume")
async def resume(request: Request, service: ServiceDep, principal: MayAdminister) -> Response:
    """End the pause."""
    await service.commands.resume(EVERYTHING, by=principal.name)
    return redirect_with_flash(request, OVERVIEW, "resumed")


def _render_question(
    request: Request,
    principal: Principal,
    *,
    names: Sequence[str] = (),
    more: int = 0,
    **values: Any,
) -> Response:
    return render_page(
        request, "confirm.html", principal=principal, names=names, more=more, **values
    )
