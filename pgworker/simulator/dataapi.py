"""Each project's Data API, as far as smoke checks use it: reads of PostgREST, health of auth.

Answers follow PostgREST 13 and the gateway in front of it. Keys of the new kinds aren't JWTs and
are refused as Bearer token.
"""

from __future__ import annotations

from typing import Any

import asyncpg

from pgworker.simulator.databases import fetch_rows
from pgworker.simulator.keys import ApiKey
from pgworker.simulator.management import GOTRUE
from pgworker.simulator.replies import Refused, Reply
from pgworker.simulator.state import VANISHED, Project, Status
from pgworker.simulator.statements import QUERIES
from pgworker.simulator.world import Call

INSUFFICIENT_PRIVILEGE = "42501"
PAUSED = 540
UNKNOWN_HOST = 530
READ_PARAMETERS = {"select", "limit", "offset"}


class _GatewayRefused(Refused):
    """A refusal with a body of its own."""

    def __init__(self, status: int, body: Any) -> None:
        super().__init__(status, "refused by the gateway")
        self.reply = Reply(status, body)


async def read_root(call: Call) -> Reply:
    """`GET /rest/v1/`: the OpenAPI description of the exposed relations."""
    project = _find_reachable_project(call, "rest")
    _authenticate(call, project)
    async with call.world.databases.connect(project) as connection:
        names = [row["relname"] for row in await connection.fetch(QUERIES.exposed_relations)]
    description = {
        "swagger": "2.0",
        "info": {"title": "standard public schema", "version": "13.0.4"},
        "paths": {"/": {"get": {}}} | {f"/{name}": {"get": {}} for name in names},
    }
    return Reply(200, description, content_type="application/openapi+json")


async def read_table(call: Call) -> Reply:
    """`GET /rest/v1/{table}`: rows, as the key's role sees them."""
    project = _find_reachable_project(call, "rest")
    key = _authenticate(call, project)
    table = call.path["table"]
    columns, limit, offset = _read_parameters(call)
    async with call.world.databases.connect(project) as connection:
        if not await connection.fetchval(QUERIES.find_exposed_relation, table):
            raise _refuse_as_postgrest(
                404, "PGRST205", f"Could not find the table 'public.{table}' in the schema cache"
            )
        sql = f"select {columns} from public.{_quoted(table)} limit {limit} offset {offset}"
        try:
            async with connection.transaction(readonly=True):
                await connection.execute(f"set local role {key.role}")
                rows = await fetch_rows(connection, sql)
        except asyncpg.PostgresError as error:
            raise _refuse_as_postgrest(
                _choose_status(error.sqlstate, key.role), error.sqlstate, error.args[0]
            ) from None
    return Reply(200, rows)


async def auth_health(call: Call) -> Reply:
    """`GET /auth/v1/health`."""
    project = _find_reachable_project(call, "auth")
    _authenticate(call, project)
    return Reply(200, GOTRUE)


def _find_reachable_project(call: Call, service: str) -> Project:
    """Return the project, whose service must answer; its host exists before that."""
    try:
        project = call.get_project()
    except Refused:
        raise _GatewayRefused(UNKNOWN_HOST, "error code: 1016") from None
    status = call.world.projects.status(project)
    if status in {Status.INACTIVE, Status.PAUSING, VANISHED}:
        raise _GatewayRefused(PAUSED, {"message": "Project paused"})
    if call.world.projects.service_status(project, service) != "ACTIVE_HEALTHY":
        if service == "rest":
            raise _refuse_as_postgrest(
                503, "PGRST002", "Could not query the database for the schema cache. Retrying."
            )
        raise _GatewayRefused(503, {"message": "name resolution failed"})
    return project


def _authenticate(call: Call, project: Project) -> ApiKey:
    """Return the key that the request carries."""
    given = call.headers.get("apikey") or dict(call.query).get("apikey")
    if not given:
        raise _GatewayRefused(
            401,
            {
                "message": "No API key found in request",
                "hint": "No `apikey` request header or url param was found.",
            },
        )
    key = _find_key(project, given)
    if key is None:
        raise _GatewayRefused(
            401,
            {
                "message": "Invalid API key",
                "hint": "Double check your Supabase `anon` or `service_role` API key.",
            },
        )
    scheme, _, bearer = call.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer":
        return key
    named = _find_key(project, bearer.strip())
    if named is None or named.type != "legacy":
        raise _refuse_as_postgrest(401, "PGRST301", "Expected 3 parts in JWT; got 1")
    return named


def _find_key(project: Project, value: str) -> ApiKey | None:
    return next((key for key in project.keys if key.value == value), None)


def _read_parameters(call: Call) -> tuple[str, int, int]:
    parameters = {name: value for name, value in call.query if name != "apikey"}
    unknown = parameters.keys() - READ_PARAMETERS
    if unknown:
        raise _refuse_as_postgrest(400, "PGRST100", f"the simulator does not know {min(unknown)}")
    select = parameters.get("select", "*")
    columns = "*" if select == "*" else ", ".join(_quoted(name) for name in select.split(","))
    try:
        limit, offset = (int(parameters.get(n, d)) for n, d in (("limit", "1000"), ("offset", "0")))
    except ValueError:
        raise _refuse_as_postgrest(
            400, "PGRST100", "limit and offset must be whole numbers"
        ) from None
    if limit < 0 or offset < 0:
        raise _refuse_as_postgrest(416, "PGRST103", "Requested range not satisfiable")
    return columns, limit, offset


def _choose_status(sqlstate: str, role: str) -> int:
    """Return the status that PostgREST answers for an error of the server."""
    if sqlstate == INSUFFICIENT_PRIVILEGE:
        return 401 if role == "anon" else 403
    return 404 if sqlstate in {"42P01", "42883"} else 400


def _refuse_as_postgrest(status: int, code: str, message: str) -> _GatewayRefused:
    return _GatewayRefused(
        status, {"code": code, "details": None, "hint": None, "message": message}
    )


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
