"""The operator's overview: JSON, or the console for a browser. And what concerns many clients."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response
from starlette.responses import StreamingResponse

from pgworker.api import console
from pgworker.api.auth import READ, MayAdminister, MayOperate, MayRead
from pgworker.api.conditional import NOT_MODIFIED, answer
from pgworker.api.problems import ProblemRoute, Refused, answers, wants_html
from pgworker.api.service import ServiceDep
from pgworker.api.shapes import GroupRetried, Overview, PauseState, Scope
from pgworker.api.streams import STREAM, change_messages, stream
from pgworker.status.overview import get_queue_report

router = APIRouter(route_class=ProblemRoute, prefix="/admin/provisioning", tags=["admin"])


@router.get("", response_model=Overview, responses={**answers(422), **NOT_MODIFIED})
async def overview(
    request: Request,
    service: ServiceDep,
    principal: MayRead,
    limit: Annotated[int, Query(ge=1, le=1000, description="failed and queued clients, each")] = 50,
) -> Response:
    """Tell how the queue is, with the queued and failed clients and their most recent error.

    Whoever accepts `text/html` gets the console.
    """
    if wants_html(request):
        response = await console.overview(request, service, principal)
    else:
        report = await get_queue_report(
            service.status, service.pages, service.progresses, limit=limit
        )
        response = answer(request, Overview.from_report(report))
    response.headers["Vary"] = "Accept"
    return response


@router.get(
    "/events",
    response_class=StreamingResponse,
    responses={**STREAM},
    dependencies=[READ],
)
async def follow_changes(service: ServiceDep) -> Response:
    """Tell, as Server-Sent Events named `changed`, that something has: time to look again."""
    return await stream(change_messages(service.watching))


@router.post("/failures/{group_id}/retry", responses=answers(409, 422))
async def retry_group(
    service: ServiceDep,
    principal: MayOperate,
    group_id: Annotated[str, Path(pattern=r"^[0-9a-f]{16}$", description="of `failed_groups`")],
) -> GroupRetried:
    """Retry all clients that failed with the same error."""
    count = await service.commands.retry_group(group_id, by=principal.name)
    if not count:
        raise Refused(HTTPStatus.CONFLICT, f"no failed job is left of the group {group_id}")
    return GroupRetried(retried=count)


@router.post("/pause", responses=answers(400, 404, 413, 422))
async def pause(scope: Scope, service: ServiceDep, principal: MayAdminister) -> PauseState:
    """Start no further phases of a workflow, or of any; what runs goes on."""
    is_news = await service.commands.pause(scope.scope, by=principal.name)
    return PauseState(scope=scope.scope, is_paused=True, is_news=is_news)


@router.post("/resume", responses=answers(400, 413, 422))
async def resume(scope: Scope, service: ServiceDep, principal: MayAdminister) -> PauseState:
    """Take a pause back."""
    is_news = await service.commands.resume(scope.scope, by=principal.name)
    return PauseState(scope=scope.scope, is_paused=False, is_news=is_news)
