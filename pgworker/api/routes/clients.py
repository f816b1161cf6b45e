"""Clients: create and list them, follow, retry and cancel their provisioning."""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Header, Query, Request, Response
from starlette.responses import StreamingResponse

from pgworker.api.auth import READ, MayOperate
from pgworker.api.badge import draw_badge
from pgworker.api.conditional import NOT_MODIFIED, make_json_response, make_response
from pgworker.api.problems import ProblemRoute, Refused, document_problems
from pgworker.api.service import ServiceDep
from pgworker.api.shapes import (
    Cancelled,
    ClientDetail,
    ClientPage,
    CreatedClient,
    JobPage,
    NewClient,
    Retried,
    Text,
    Word,
)
from pgworker.api.streams import STREAM, make_stream_response, stream_client
from pgworker.models import ClientStatus, ErrorKind, JobStatus
from pgworker.status.commands import ClientRequest
from pgworker.status.pages import Filter

router = APIRouter(route_class=ProblemRoute, tags=["clients"])

# W3C Trace Context, 3.2.2; a malformed header must be ignored (4.3).
TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")

Limit = Annotated[int, Query(ge=1, le=1000, description="rows on a page")]
Cursor = Annotated[
    str | None, Query(max_length=500, description="`next_cursor` of the page before")
]
Kind = Annotated[
    ErrorKind | None, Query(description="of the error of the unfinished or failed job")
]
Phase = Annotated[Word | None, Query(description="that the unfinished or failed job is in")]
Search = Annotated[
    Text | None, Query(description="part of the name in any case, or the client's id or project")
]
IfNoneMatch = Annotated[
    str | None, Header(description="ETag of an earlier answer: 304 when nothing has changed")
]
EventId = Annotated[
    int | None,
    Header(alias="Last-Event-ID", ge=0, lt=2**63, description="begin behind this event"),
]


@router.post(
    "/clients",
    status_code=HTTPStatus.CREATED,
    responses={
        **document_problems(400, 413, 422),
        201: {
            "headers": {
                "Location": {"schema": {"type": "string"}, "description": "of the client"},
                "Idempotency-Replayed": {
                    "schema": {"type": "string"},
                    "description": "`true`: created by an earlier request",
                },
            }
        },
    },
)
async def create_client(
    client: NewClient,
    request: Request,
    response: Response,
    service: ServiceDep,
    principal: MayOperate,
    idempotency_key: Annotated[
        str | None,
        Header(
            pattern=r"^[\x21-\x7e]{1,255}$",
            description="of the caller's choice; the same request with the same key creates one "
            "client, within a week",
        ),
    ] = None,
    traceparent: Annotated[
        str | None,
        Header(description="W3C trace context, which the job continues; ignored when malformed"),
    ] = None,
) -> CreatedClient:
    """Create a client and have it provisioned."""
    created = await service.commands.create_client(
        ClientRequest(
            name=client.name,
            auto_provision=client.auto_provision,
            additional_settings=client.additional_settings,
            traceparent=traceparent if TRACEPARENT.fullmatch(traceparent or "") else None,
            key=idempotency_key,
        ),
        by=principal.name,
    )
    url = request.url_for("show_client", client_id=str(created.client_id)).path
    response.headers["Location"] = url
    if not created.is_new:
        response.headers["Idempotency-Replayed"] = "true"
    return CreatedClient(
        id=created.client_id,
        name=client.name,
        auto_provision=client.auto_provision,
        url=url,
        events_url=f"{url}/events",
    )


@router.get(
    "/clients",
    response_model=ClientPage,
    responses={**document_problems(422), **NOT_MODIFIED},
    dependencies=[READ],
)
async def list_clients(
    request: Request,
    service: ServiceDep,
    status: Annotated[ClientStatus | None, Query(description="`provisioning_status`")] = None,
    kind: Kind = None,
    phase: Phase = None,
    text: Search = None,
    limit: Limit = 50,
    cursor: Cursor = None,
    if_none_match: IfNoneMatch = None,  # noqa: ARG001  # for OpenAPI; the request has it
) -> Response:
    """List clients with their newest jobs, newest client first."""
    wanted = Filter(status=status, kind=kind, phase=phase, text=text)
    page = await service.pages.list_clients(wanted, limit=limit, cursor=cursor)
    return make_json_response(request, ClientPage.from_page(page))


@router.get(
    "/clients/provisioning/jobs",
    response_model=JobPage,
    responses={**document_problems(422), **NOT_MODIFIED},
    dependencies=[READ],
)
async def list_jobs(
    request: Request,
    service: ServiceDep,
    status: JobStatus | None = None,
    kind: Kind = None,
    phase: Annotated[Word | None, Query(description="that the job is in, or ended in")] = None,
    text: Search = None,
    client_id: UUID | None = None,
    limit: Limit = 50,
    cursor: Cursor = None,
    if_none_match: IfNoneMatch = None,  # noqa: ARG001  # for OpenAPI; the request has it
) -> Response:
    """List jobs, newest first."""
    wanted = Filter(status=status, kind=kind, phase=phase, text=text, client_id=client_id)
    page = await service.pages.list_jobs(wanted, limit=limit, cursor=cursor)
    return make_json_response(request, JobPage.from_page(page))


@router.get(
    "/clients/{client_id}",
    response_model=ClientDetail,
    responses={**document_problems(404, 422), **NOT_MODIFIED},
    dependencies=[READ],
)
async def show_client(
    request: Request,
    service: ServiceDep,
    client_id: UUID,
    if_none_match: IfNoneMatch = None,  # noqa: ARG001  # for OpenAPI; the request has it
) -> Response:
    """Show a client's progress: all that a status badge needs."""
    return make_json_response(
        request, ClientDetail.from_progress(await service.progress.get(client_id))
    )


@router.get(
    "/clients/{client_id}/badge.svg",
    response_class=Response,
    responses={
        200: {"content": {"image/svg+xml": {"schema": {"type": "string"}}}},
        **document_problems(404, 422),
        **NOT_MODIFIED,
    },
    dependencies=[READ],
)
async def show_badge(
    request: Request,
    service: ServiceDep,
    client_id: UUID,
    if_none_match: IfNoneMatch = None,  # noqa: ARG001  # for OpenAPI; the request has it
) -> Response:
    """Draw a client's status."""
    picture = draw_badge(await service.progress.get(client_id))
    return make_response(request, picture.encode(), "image/svg+xml")


@router.get(
    "/clients/{client_id}/events",
    response_class=StreamingResponse,
    responses={
        **STREAM,
        204: {"description": "Nothing more comes: do not reconnect"},
        **document_problems(404, 422),
    },
    dependencies=[READ],
)
async def follow_client(
    service: ServiceDep,
    client_id: UUID,
    *,
    follow: Annotated[
        bool, Query(description="don't end when nothing more happens by itself")
    ] = False,
    last_event_id: EventId = None,
) -> Response:
    """Follow a client's transitions as they are made, as Server-Sent Events.

    `progress` has what `GET /clients/{client_id}` has, at the beginning and after each change;
    `transition` has the change. When the client is ready, failed or cancelled, `end` is the last
    event. A browser then reconnects by itself, and stops when it gets 204.
    """
    # An EventSource reconnects whenever the server closes; only a 204 stops it (HTML, 9.2.3).
    if last_event_id is not None and not follow:
        progress = await service.progress.get(client_id)
        if progress.is_final and progress.newest_event_id <= last_event_id:
            return Response(status_code=HTTPStatus.NO_CONTENT)
    news = service.progress.follow(service.feed, client_id, after=last_event_id)
    return await make_stream_response(stream_client(news, follow=follow))


@router.post("/clients/{client_id}/provisioning/retry", responses=document_problems(404, 409, 422))
async def retry_client(service: ServiceDep, client_id: UUID, principal: MayOperate) -> Retried:
    """Queue the client's failed or cancelled job again, at the phase where it ended."""
    return Retried(job_id=await service.commands.retry(client_id, by=principal.name))


@router.post("/clients/{client_id}/provisioning/cancel", responses=document_problems(404, 409, 422))
async def cancel_client(service: ServiceDep, client_id: UUID, principal: MayOperate) -> Cancelled:
    """Cancel the client's unfinished or failed job; what exists at the provider stays there."""
    count = await service.commands.cancel(client_id, by=principal.name)
    if not count:
        raise Refused(HTTPStatus.CONFLICT, f"client {client_id} has no unfinished or failed job")
    return Cancelled(cancelled=count)
