"""The routes: token, rate limit, scopes and faults come first, then the operation."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from hmac import compare_digest
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from pgworker.simulator import control, dataapi, management
from pgworker.simulator.faults import Becomes, Subject, play
from pgworker.simulator.ledger import Entry
from pgworker.simulator.limits import Grant
from pgworker.simulator.replies import Refused, Reply
from pgworker.simulator.world import Call, World

Handler = Callable[[Call], Awaitable[Reply]]
# All personal tokens of one user share their rate limits.
USER = "simulated-user"
ANONYMOUS = "anonymous"
REF = re.compile(r"^[a-z]{20}$")
SLUG = re.compile(r"^[\w-]+$")


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of one path.

    Attributes:
        scope: the OAuth scope that a token needs; None for the Data API, which has keys of its own.
    """

    name: str
    method: str
    path: str
    scope: str | None
    handler: Handler


OPERATIONS: tuple[Operation, ...] = tuple(
    Operation(name, method, path, scope, handler)
    for name, method, path, scope, handler in (
        (
            "list_organizations",
            "GET",
            "/v1/organizations",
            "organizations:read",
            management.list_organizations,
        ),
        (
            "get_organization",
            "GET",
            "/v1/organizations/{slug}",
            "organizations:read",
            management.get_organization,
        ),
        (
            "list_organization_projects",
            "GET",
            "/v1/organizations/{slug}/projects",
            "projects:read",
            management.list_organization_projects,
        ),
        ("list_projects", "GET", "/v1/projects", "projects:read", management.list_projects),
        ("create_project", "POST", "/v1/projects", "projects:write", management.create_project),
        # Before {ref}, which would match its path.
        (
            "available_regions",
            "GET",
            "/v1/projects/available-regions",
            "organizations:read",
            management.available_regions,
        ),
        ("get_project", "GET", "/v1/projects/{ref}", "projects:read", management.get_project),
        (
            "delete_project",
            "DELETE",
            "/v1/projects/{ref}",
            "projects:write",
            management.delete_project,
        ),
        (
            "get_health",
            "GET",
            "/v1/projects/{ref}/health",
            "projects:read",
            management.get_health,
        ),
        (
            "pause_project",
            "POST",
            "/v1/projects/{ref}/pause",
            "projects:write",
            management.pause_project,
        ),
        (
            "restore_project",
            "POST",
            "/v1/projects/{ref}/restore",
            "projects:write",
            management.restore_project,
        ),
        (
            "list_api_keys",
            "GET",
            "/v1/projects/{ref}/api-keys",
            "secrets:read",
            management.list_api_keys,
        ),
        (
            "create_api_key",
            "POST",
            "/v1/projects/{ref}/api-keys",
            "secrets:write",
            management.create_api_key,
        ),
        (
            "get_legacy_api_keys",
            "GET",
            "/v1/projects/{ref}/api-keys/legacy",
            "secrets:read",
            management.get_legacy_api_keys,
        ),
        (
            "run_query",
            "POST",
            "/v1/projects/{ref}/database/query",
            "database:write",
            management.run_query,
        ),
        (
            "run_read_only_query",
            "POST",
            "/v1/projects/{ref}/database/query/read-only",
            "database:read",
            management.run_read_only_query,
        ),
        (
            "update_password",
            "PATCH",
            "/v1/projects/{ref}/database/password",
            "database:write",
            management.update_password,
        ),
        (
            "get_pooler",
            "GET",
            "/v1/projects/{ref}/config/database/pooler",
            "database:read",
            management.get_pooler,
        ),
        *(
            (
                f"{method.lower()}_migrations",
                method,
                "/v1/projects/{ref}/database/migrations",
                "database:write",
                management.partners_only,
            )
            for method in ("GET", "POST", "PUT", "DELETE")
        ),
        ("read_root", "GET", "/projects/{ref}/rest/v1/", None, dataapi.read_root),
        ("read_table", "GET", "/projects/{ref}/rest/v1/{table}", None, dataapi.read_table),
        ("auth_health", "GET", "/projects/{ref}/auth/v1/health", None, dataapi.auth_health),
    )
)


class _Dropped(Response):
    """Resets the connection instead of answering."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self._world = world

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        self._world.abort_connection(scope)
        # The server must have noticed before we return without an answer; else it sends a 500.
        while (await receive())["type"] != "http.disconnect":
            pass


def build_app(world: World) -> Starlette:
    """Return the ASGI application of this world."""
    world.faults.operations = frozenset(operation.name for operation in OPERATIONS)
    routes: list[BaseRoute] = [_route(world, operation) for operation in OPERATIONS]
    return Starlette(
        routes=[*routes, *control.build_routes(world)],
        exception_handlers={HTTPException: _reject_unknown_route},
    )


def build_response(reply: Reply) -> Response:
    """Return the reply as an HTTP response."""
    if reply.body is None:
        content, content_type = b"", None
    elif isinstance(reply.body, str):
        html = reply.body.lstrip().startswith("<")
        content, content_type = reply.body.encode(), "text/html" if html else "text/plain"
    else:
        content, content_type = json.dumps(reply.body).encode(), "application/json"
    if reply.truncated:
        content = content[: len(content) // 2]
    return Response(
        content,
        status_code=reply.status,
        headers=reply.headers,
        media_type=reply.content_type or content_type,
    )


def _route(world: World, operation: Operation) -> Route:
    async def endpoint(request: Request) -> Response:
        call = Call(
            world=world,
            path={name: str(value) for name, value in request.path_params.items()},
            query=request.query_params.multi_items(),
            headers={name.lower(): value for name, value in request.headers.items()},
            body=await request.body(),
        )
        entry = _open_entry(call, operation, request.url.path)
        try:
            reply = await _answer(call, operation, entry)
        finally:
            entry.ended = True
        if reply is None:
            return _Dropped(world)
        entry.status = reply.status
        return build_response(reply)

    return Route(operation.path, endpoint, methods=[operation.method], name=operation.name)


def _open_entry(call: Call, operation: Operation, path: str) -> Entry:
    return call.world.ledger.open_entry(
        at=call.world.settings.clock(),
        operation=operation.name,
        method=operation.method,
        path=path,
        # A key may travel as a query parameter of the Data API.
        query=[(name, value) for name, value in call.query if name != "apikey"],
        project=call.path.get("ref"),
    )


async def _answer(call: Call, operation: Operation, entry: Entry) -> Reply | None:
    """Answer a request, or return None to drop its connection."""
    if operation.scope is None:
        return await _answer_with_faults(call, operation, entry)
    token = _find_token(call)
    user = ANONYMOUS if token is None else USER
    grant = call.world.limits.take((user, _choose_limit_scope(call), operation.name))
    try:
        _admit(call, operation, token, grant)
        reply = await _answer_with_faults(call, operation, entry)
    except Refused as refused:
        reply = refused.reply
    if reply is None:
        return None
    # Headers of an ordered fault take precedence.
    given = {name.lower() for name in reply.headers}
    for name, value in grant.headers.items():
        if name.lower() not in given:
            reply.headers[name] = value
    return reply


async def _answer_with_faults(call: Call, operation: Operation, entry: Entry) -> Reply | None:
    order = call.world.faults.match(_build_subject(call, operation))

    async def run_operation() -> Reply:
        reply = await _run_operation(call, operation, entry)
        if order is not None and isinstance(order.fault, Becomes):
            _change_status(call, entry, order.fault.status)
        return reply

    if order is None:
        return await run_operation()
    entry.fault = order.fault.kind
    return await play(order, run_operation)


async def _run_operation(call: Call, operation: Operation, entry: Entry) -> Reply:
    try:
        _check_path(call)
        reply = await operation.handler(call)
    except Refused as refused:
        return refused.reply
    entry.took_effect = True
    if operation.handler is management.create_project:
        entry.project = reply.body["ref"]
        call.world.ledger.record_created(call.world.projects.get(reply.body["ref"]), entry)
    return reply


def _change_status(call: Call, entry: Entry, status: str) -> None:
    if entry.project is None or not entry.took_effect:
        return
    project = call.world.projects.get(entry.project)
    if entry.operation == "create_project":
        project.replace_final_status(status)
    else:
        project.enter(status, at=call.world.settings.clock())


def _find_token(call: Call) -> str | None:
    """Return the token of the request, if the simulator knows it."""
    scheme, _, given = call.headers.get("authorization", "").partition(" ")
    settings = call.world.settings
    for known in (settings.token, *settings.scoped_tokens):
        if scheme.lower() == "bearer" and compare_digest(given.encode(), known.encode()):
            return known
    return None


def _admit(call: Call, operation: Operation, token: str | None, grant: Grant) -> None:
    """Check the token, the rate limit and the token's scopes, in this order."""
    if token is None:
        raise Refused(401, "Unauthorized")
    if not grant.allowed:
        raise Refused(429, "ThrottlerException: Too Many Requests")
    scopes = call.world.settings.scoped_tokens.get(token)
    if scopes is not None and operation.scope not in scopes:
        raise Refused(403, f"Forbidden resource: the token lacks the scope {operation.scope}")


def _check_path(call: Call) -> None:
    if not REF.match(call.path.get("ref", "a" * 20)):
        raise Refused(400, "ref: must be 20 letters from a to z")
    if not SLUG.match(call.path.get("slug", "a")):
        raise Refused(400, "slug: must be letters, digits, _ and -")


def _choose_limit_scope(call: Call) -> str:
    """Return whose limit a request uses: a project's, an organization's, or only the user's."""
    named = call.path.get("ref") or call.path.get("slug")
    return named or _read_field(call, "organization_slug")


def _build_subject(call: Call, operation: Operation) -> Subject:
    ref = call.path.get("ref")
    names = {project.ref: project.name for project in call.world.projects.all()}
    requested = _read_field(call, "name") if operation.name == "create_project" else None
    return Subject(
        operation=operation.name,
        project=ref,
        project_name=names.get(ref, requested) if ref else requested,
        query=dict(call.query),
        body=call.body.decode(errors="replace"),
    )


def _read_field(call: Call, name: str) -> str:
    """Return a text at the top level of the body; empty when the body isn't a JSON object."""
    try:
        value: Any = json.loads(call.body)[name]
    except (ValueError, KeyError, TypeError):
        return ""
    return value if isinstance(value, str) else ""


async def _reject_unknown_route(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    return build_response(Reply(status, {"message": f"Cannot {request.method} {request.url.path}"}))
