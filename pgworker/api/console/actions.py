"""What can be pressed. A GET asks first (and is the content of the dialog), a POST does it."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from uuid import UUID

from fastapi import APIRouter, Request, Response

from pgworker.api.auth import MayAdminister, MayOperate
from pgworker.api.console.rendering import PageRoute, page, path_of
from pgworker.api.console.telling import go_back
from pgworker.api.problems import Refused
from pgworker.api.service import ServiceDep
from pgworker.errors import NotRetryable
from pgworker.status.commands import EVERYTHING
from pgworker.status.explain import actions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pgworker.api.service import Service
    from pgworker.api.sessions import Principal

NAMES_SHOWN = 12

router = APIRouter(route_class=PageRoute)


# -- one client -------------------------------------------------------------------------------


@router.get("/admin/provisioning/clients/{client_id}/retry", name="console_retry")
async def ask_retry(
    request: Request, service: ServiceDep, principal: MayOperate, client_id: UUID
) -> Response:
    """Ask whether a client shall be retried."""
    return await _ask_about(request, service, principal, client_id, "retry")


@router.post("/admin/provisioning/clients/{client_id}/retry")
async def retry(
    request: Request, service: ServiceDep, principal: MayOperate, client_id: UUID
) -> Response:
    """Put a client's failed job back in line."""
    await service.commands.retry(client_id, by=principal.name)
    return go_back(request, "console_client", "retried", client_id=client_id)


@router.get("/admin/provisioning/clients/{client_id}/cancel", name="console_cancel")
async def ask_cancel(
    request: Request, service: ServiceDep, principal: MayOperate, client_id: UUID
) -> Response:
    """Ask whether the work on a client shall stop."""
    return await _ask_about(request, service, principal, client_id, "cancel")


@router.post("/admin/provisioning/clients/{client_id}/cancel")
async def cancel(
    request: Request, service: ServiceDep, principal: MayOperate, client_id: UUID
) -> Response:
    """Stop the work on a client."""
    done = (
        "cancelled"
        if await service.commands.cancel(client_id, by=principal.name)
        else "not-cancelled"
    )
    return go_back(request, "console_client", done, client_id=client_id)


async def _ask_about(
    request: Request, service: Service, principal: Principal, client_id: UUID, name: str
) -> Response:
    row = await service.status.get_client_status(client_id)
    action = next((each for each in actions(row) if each.name == name), None)
    if action is None:
        raise NotRetryable(f"{row.client_name} is {row.status}: there is nothing to {name}")
    is_cancel = name == "cancel"
    return _question(
        request,
        principal,
        question=f"{action.label} {row.client_name}?",
        consequence=action.consequence,
        yes=f"{action.label} it" if is_cancel else action.label,
        no="Keep going" if is_cancel else "Not now",
        look="danger" if is_cancel else "primary",
        action=path_of(request, f"console_{name}", client_id=client_id),
        back=path_of(request, "console_client", client_id=client_id),
    )


# -- a group ----------------------------------------------------------------------------------


@router.get("/admin/provisioning/errors/{key}/retry", name="console_retry_group")
async def ask_retry_group(
    request: Request, service: ServiceDep, principal: MayOperate, key: str
) -> Response:
    """Ask whether all clients that failed by one error shall be retried."""
    group = await service.status.get_failed_group(key)
    if group is None:
        raise Refused(HTTPStatus.NOT_FOUND, "no client is failed by that error any more")
    rows = await service.status.list_clients_of_group(key, limit=NAMES_SHOWN)
    number = "1 client" if group.jobs == 1 else f"{group.jobs:,} clients"
    consequence = (
        f"Each goes on at {group.phase} with everything that was done; nothing is made twice."
    )
    if group.phase == "create_project":
        consequence += " Their projects may be created, which the provider bills."
    return _question(
        request,
        principal,
        question=f"Retry {number}?",
        consequence=consequence,
        names=[row.client_name for row in rows],
        more=group.jobs - len(rows),
        yes=f"Retry {number}",
        no="Not now",
        look="primary",
        action=path_of(request, "console_retry_group", key=key),
        back=path_of(request, "overview"),
    )


@router.post("/admin/provisioning/errors/{key}/retry")
async def retry_group(
    request: Request, service: ServiceDep, principal: MayOperate, key: str
) -> Response:
    """Put all of them back in line."""
    number = await service.commands.retry_group(key, by=principal.name)
    done = "group-retried" if number else "group-gone"
    return go_back(request, "overview", done, number=number)


# -- everything -------------------------------------------------------------------------------


@router.post("/admin/provisioning/everything/pause", name="console_pause")
async def pause(request: Request, service: ServiceDep, principal: MayAdminister) -> Response:
    """Let no further phase start. It can be taken back at once, so that nothing asks before."""
    await service.commands.pause(EVERYTHING, by=principal.name)
    return go_back(request, "overview", "paused")


@router.post("/admin/provisioning/everything/resume", name="console_resume")
async def resume(request: Request, service: ServiceDep, principal: MayAdminister) -> Response:
    """Take the pause back."""
    await service.commands.resume(EVERYTHING, by=principal.name)
    return go_back(request, "overview", "resumed")


def _question(
    request: Request,
    principal: Principal,
    *,
    names: Sequence[str] = (),
    more: int = 0,
    **values: Any,
) -> Response:
    return page(request, "confirm.html", principal=principal, names=names, more=more, **values)
