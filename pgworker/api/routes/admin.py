"""The operator's overview, as JSON or as the console; and commands that affect many clients."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response
from starlette.responses import StreamingResponse

from pgworker.api import console
from pgworker.api.auth import READ, MayAdminister, MayOperate, MayRead
from pgworker.api.conditional import NOT_MODIFIED, make_json_response
from pgworker.api.console.rendering import OVERVIEW
from pgworker.api.problems import ProblemRoute, Refused, document_problems, wants_html
from pgworker.api.service import ServiceDep
from pgworker.api.shapes import GroupRetried, Overview, PauseScope, PauseState
from pgworker.api.streams import STREAM, make_stream_response, stream_changes
from pgworker.status.overview import get_queue_report

router = APIRouter(route_class=ProblemRoute, prefix="/admin/provisioning", tags=["admin"])


@router.get(
    "",
    name=OVERVIEW,
    response_model=Overview,
    responses={**document_problems(422), **NOT_MODIFIED},
)
async def show_overview(
    request: Request,
    service: ServiceDep,
    principal: MayRead,
    limit: Annotated[int, Query(ge=1, le=1000, description="failed and queued clients, each")] = 50,
) -> Response:
    """Show the state of the queue, and queued and failed clients with their most recent error.

    A client that accepts `text/html` gets the console.
    """
    if wants_html(request):
        response = await console.show_overview(request, service, principal)
    else:
        report = await get_queue_report(
            service.status, service.pages, service.progress, limit=limit
        )
        response = make_json_response(request, Overview.from_report(report))
    response.headers["Vary"] = "Accept"
    return response


@router.get(
    "/events",
    response_class=StreamingResponse,
    responses={**STREAM},
    dependencies=[READ],
)
async def follow_changes(service: ServiceDep) -> Response:
    """Send a Server-Sent Event named `changed` when anything has changed: fetch the state again."""
    return await make_stream_response(stream_changes(service.feed))


@router.post("/failures/{group_id}/retry", responses=document_problems(409, 422))
async def retry_group(
    service: ServiceDep,
    principal: MayOperate,
    group_id: Annotated[str, Path(pattern=r"^[0-9a-f]{16}$", description="of `failed_groups`")],
) -> GroupRetried:
    """Retry all clients that failed with the same error."""
    count = await service.commands.retry_group(group_id, by=principal.name)
    if not count:
        raise Refused(HTTPStatus.CONFLICT, f"no job of the group {group_id} is failed any more")
    return GroupRetried(retried=count)


@router.post("/pause", responses=document_problems(400, 404, 413, 422))
async def pause(scope: PauseScope, service: ServiceDep, principal: MayAdminister) -> PauseState:
    """Start no further phases of a workflow, or of all; running phases end as usual."""
    is_news = await service.commands.pause(scope.scope, by=principal.name)
    return PauseState(scope=scope.scope, is_paused=True, is_news=is_news)


@router.post("/resume", responses=document_problems(400, 413, 422))
async def resume(scope: PauseScope, service: ServiceDep, principal: MayAdminister) -> PauseState:
    """End a pause."""
    is_news = await service.commands.resume(scope.scope, by=principal.name)
    return PauseState(scope=scope.scope, is_paused=False, is_news=is_news)
