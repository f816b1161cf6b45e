"""The databases behind `database/query` and the Data API: a real one for each project."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

import asyncpg
import postgast

from pgworker.errors import PgworkerError
from pgworker.simulator.state import Project
from pgworker.simulator.statements import QUERIES

# Of one simulator at a time: it shares the server with pgworker and its tests.
MAX_CONNECTIONS = 16

# The API's numbers are JavaScript's: a larger bigint arrives as text.
MAX_EXACT_INTEGER = 2**53 - 1


class SqlFailed(PgworkerError):
    """The server refused a statement; the message is the one that the Management API shows.

    Attributes:
        sqlstate: five characters.
        primary: the message of the server without position, detail and hint.
    """

    def __init__(self, error: asyncpg.PostgresError, sql: str, *, offset: int = 0) -> None:
        super().__init__(format_error(error, sql, offset=offset))
        self.sqlstate = error.sqlstate
        self.primary = error.args[0]


class StillRunning(PgworkerError):
    """The time limit was reached; the statement continues and may commit."""


def role_name(ref: str) -> str:
    """Return the project's login role, which is its user name at the pooler as well."""
    return f"postgres.{ref}"


def database_name(ref: str) -> str:
    """Return the name of the project's database on the real server."""
    return f"simulator_{ref}"


class Databases:
    """Creates, opens and drops the projects' databases. A database is created when first used."""

    def __init__(self, admin_dsn: str, *, query_seconds: float) -> None:
        self._admin_dsn = admin_dsn
        self._query_seconds = query_seconds
        self._slots = asyncio.Semaphore(MAX_CONNECTIONS)
        self._locks: dict[str, asyncio.Lock] = {}
        self._created: dict[str, str] = {}
        self._running: set[asyncio.Task[list[dict[str, Any]]]] = set()
        self._roles_lock = asyncio.Lock()
        self._has_roles = False

    async def ensure(self, project: Project) -> None:
        """Create the project's role and database unless they exist. Safe to repeat."""
        async with self._locks.setdefault(project.ref, asyncio.Lock()):
            if project.ref in self._created:
                return
            # One connection after the other: callers that each held a slot while waiting for a
            # second one would deadlock.
            async with self._admin() as admin:
                await self._create_api_roles(admin)
                await self._create(admin, project)
            async with self._admin(database_name(project.ref)) as inside:
                await _prepare_schemas(inside, project)
            self._created[project.ref] = project.database_password

    async def set_password(self, project: Project, password: str) -> None:
        """Change the project's password; logins with the old one are refused from then on."""
        await self.ensure(project)
        async with self._admin() as admin:
            sql = await _quote_statements(admin, project.ref, password)
            await admin.execute(QUERIES.hash_passwords_quickly)
            await admin.execute(sql["alter_role"])
        project.database_password = password
        self._created[project.ref] = password

    async def drop(self, ref: str) -> None:
        """Drop the project's database and role, with every connection to it."""
        async with self._locks.setdefault(ref, asyncio.Lock()):
            if self._created.pop(ref, None) is None:
                return
            async with self._admin() as admin:
                sql = await _quote_statements(admin, ref, "")
                await admin.execute(sql["drop_database"])
                await admin.execute(sql["drop_role"])

    async def aclose(self) -> None:
        """Drop every database, which ends the statements that still run in it."""
        for ref in list(self._created):
            await self.drop(ref)
        await asyncio.gather(*self._running, return_exceptions=True)

    async def run(
        self,
        project: Project,
        query: str,
        parameters: list[Any],
        *,
        read_only: bool = False,
        bare_search_path: bool = False,
    ) -> list[dict[str, Any]]:
        """Run statements as the project's role and return the rows of the last one.

        Raises:
            SqlFailed: the server refused one; all of them are rolled back, as in one simple query.
            StillRunning: the time limit was reached.
        """
        await self.ensure(project)
        task = asyncio.create_task(
            self._run(project, query, parameters, read_only, bare_search_path),
            name=f"simulated-query-{project.ref}",
        )
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        done, _ = await asyncio.wait({task}, timeout=self._query_seconds)
        if not done:
            raise StillRunning("Connection terminated due to connection timeout")
        return task.result()

    @asynccontextmanager
    async def connect(self, project: Project) -> AsyncIterator[asyncpg.Connection]:
        """Open a connection as the project's role."""
        await self.ensure(project)
        async with self._slots:
            connection = await asyncpg.connect(
                self._admin_dsn,
                user=role_name(project.ref),
                password=project.database_password,
                database=database_name(project.ref),
                statement_cache_size=0,
            )
            try:
                yield connection
            finally:
                connection.terminate()

    async def _run(
        self,
        project: Project,
        query: str,
        parameters: list[Any],
        read_only: bool,  # noqa: FBT001 (passed on by `run`)
        bare_search_path: bool,  # noqa: FBT001
    ) -> list[dict[str, Any]]:
        async with self.connect(project) as connection:
            if read_only:
                await connection.execute("set default_transaction_read_only to on")
            if bare_search_path:
                await connection.execute("set search_path to ''")
            if parameters:
                return await _run_with_parameters(connection, query, parameters)
            return await _run_script(connection, query)

    async def _create_api_roles(self, admin: asyncpg.Connection) -> None:
        async with self._roles_lock:
            if self._has_roles:
                return
            async with admin.transaction():
                await admin.execute(QUERIES.lock_api_roles)
                await admin.execute(QUERIES.create_api_roles)
            self._has_roles = True

    async def _create(self, admin: asyncpg.Connection, project: Project) -> None:
        sql = await _quote_statements(admin, project.ref, project.database_password)
        await admin.execute(QUERIES.hash_passwords_quickly)
        await admin.execute(sql["create_role"])
        await admin.execute(sql["grant_roles"])
        if not await admin.fetchval(QUERIES.is_superuser):
            await admin.execute(sql["grant_owner"])
        await admin.execute(sql["create_database"])
        await admin.execute(sql["revoke_database"])

    @asynccontextmanager
    async def _admin(self, database: str | None = None) -> AsyncIterator[asyncpg.Connection]:
        async with self._slots:
            connection = await asyncpg.connect(self._admin_dsn, database=database)
            try:
                yield connection
            finally:
                connection.terminate()


async def _prepare_schemas(inside: asyncpg.Connection, project: Project) -> None:
    await inside.execute(QUERIES.create_platform_schemas)
    grants = await inside.fetchval(QUERIES.own_platform_schemas, role_name(project.ref))
    await inside.execute(grants)


async def _quote_statements(admin: asyncpg.Connection, ref: str, password: str) -> asyncpg.Record:
    return await admin.fetchrow(
        QUERIES.quote_statements, role_name(ref), password, database_name(ref)
    )


async def _run_script(connection: asyncpg.Connection, query: str) -> list[dict[str, Any]]:
    """Run statements as one simple query does: in one transaction unless they say otherwise."""
    parts = split(query)
    if parts is None:
        # Our parser refuses it: the server gives the real error, or is newer than the parser.
        try:
            await connection.execute(query)
        except asyncpg.PostgresError as error:
            raise SqlFailed(error, query) from None
        return []
    rows: list[dict[str, Any]] = []
    together = len(parts) > 1
    for offset, part in parts:
        try:
            if together and not connection.is_in_transaction():
                await connection.execute("begin")
            rows = await fetch_rows(connection, part)
        except asyncpg.PostgresError as error:
            raise SqlFailed(error, query, offset=offset) from None
    if connection.is_in_transaction():
        try:
            await connection.execute("commit")
        except asyncpg.PostgresError as error:
            raise SqlFailed(error, query) from None
    return rows


async def _run_with_parameters(
    connection: asyncpg.Connection, query: str, parameters: list[Any]
) -> list[dict[str, Any]]:
    """Run one statement; its parameters are sent as text, so that the server finds their types."""
    prefix = "prepare simulated as "
    parts = split(query) or [(0, query)]
    try:
        if len(parts) > 1:
            raise asyncpg.PostgresSyntaxError(
                "cannot insert multiple commands into a prepared statement"
            )
        await connection.execute(prefix + query)
        texts = [_format_parameter(value) for value in parameters]
        literals = await connection.fetchval(QUERIES.literals, texts)
        return await fetch_rows(connection, f"execute simulated({literals})")
    except asyncpg.PostgresError as error:
        raise SqlFailed(error, query, offset=-len(prefix)) from None


def split(query: str) -> list[tuple[int, str]] | None:
    """Return the statements of a script and where each starts, or None when it doesn't parse."""
    try:
        statements = postgast.split(query)
    except postgast.PgQueryError:
        return None
    parts: list[tuple[int, str]] = []
    end = 0
    for statement in statements:
        start = query.index(statement, end)
        end = start + len(statement)
        parts.append((start, statement))
    return parts


def format_error(error: asyncpg.PostgresError, sql: str, *, offset: int = 0) -> str:
    """Return a server's error as psql prints it: with its line, detail, hint and context."""
    severity = getattr(error, "severity", None) or "ERROR"
    lines = [f"{severity}:  {error.sqlstate}: {error.args[0]}"]
    position = getattr(error, "position", None)
    if position is not None:
        lines += _format_position(sql, int(position) + offset)
    for label, name in (("DETAIL", "detail"), ("HINT", "hint"), ("CONTEXT", "context")):
        text = getattr(error, name, None)
        if text:
            lines.append(f"{label}:  {text}")
    return "\n".join(lines)


def _format_position(sql: str, position: int) -> Iterable[str]:
    before = sql[: max(0, position - 1)]
    number = before.count("\n") + 1
    column = len(before) - (before.rfind("\n") + 1)
    label = f"LINE {number}: "
    text = sql.split("\n")[number - 1]
    return [label + text, " " * (len(label) + column) + "^"]


async def fetch_rows(connection: asyncpg.Connection, sql: str) -> list[dict[str, Any]]:
    """Run one statement and return its rows; values without a JSON type become text."""
    statement = await connection.prepare(sql)
    documents = {
        attribute.name
        for attribute in statement.get_attributes()
        if attribute.type.name in {"json", "jsonb"}
    }
    return [
        {
            name: json.loads(value) if name in documents and value else _convert_to_json(value)
            for name, value in record.items()
        }
        for record in await statement.fetch()
    ]


def _convert_to_json(value: Any) -> Any:
    match value:
        case int() if abs(value) > MAX_EXACT_INTEGER:
            return str(value)
        case None | bool() | int() | float() | str():
            return value
        case bytes():
            return "\\x" + value.hex()
        case list():
            return [_convert_to_json(item) for item in value]
        case datetime():
            return str(value).replace("+00:00", "+00")
        case _:
            return str(value)


def _format_parameter(value: Any) -> str | None:
    match value:
        case None:
            return None
        case str():
            return value
        case bool():
            return "true" if value else "false"
        case list():
            return "{" + ",".join(_format_array_item(item) for item in value) + "}"
        case dict():
            return json.dumps(value)
        case _:
            return str(value)


def _format_array_item(value: Any) -> str:
    text = _format_parameter(value)
    if text is None:
        return "NULL"
    return text if isinstance(value, list) else json.dumps(text, ensure_ascii=False)
