"""Puts a failpoint before and after every step of a worker, from outside pgworker.

Steps are the statements on the platform's database, those on a tenant's, and HTTP requests. The
methods of asyncpg and httpx are replaced, so that no line of pgworker can avoid the failpoints.
"""

from __future__ import annotations

import os
import weakref
from typing import TYPE_CHECKING, Any

import asyncpg
import httpx

from chaos.boundaries import BoundaryNames, name_commit
from pgworker.tenants.postgres_connection import PostgresTenantConnection

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from chaos.failpoints import FailpointRegistry

STATEMENTS = ("execute", "fetch", "fetchrow", "fetchval")
# What asyncpg says when a connection breaks during a statement.
CONNECTION_LOST = "connection was closed in the middle of operation"


class Instrumentation:
    """The replaced methods of this process; they do nothing until `failpoints` is set.

    Attributes:
        failpoints: set by each forked worker to its own.
    """

    def __init__(self) -> None:
        self.failpoints: FailpointRegistry | None = None
        self._names = BoundaryNames.load()
        self._tenants: weakref.WeakSet[Any] = weakref.WeakSet()
        self._transactions: weakref.WeakKeyDictionary[Any, list[str]] = weakref.WeakKeyDictionary()
        self._wrap_statements()
        self._wrap_requests()
        self._track_tenant_connections()
        self._tag_sessions()

    def _wrap_statements(self) -> None:
        for method in STATEMENTS:
            setattr(asyncpg.Connection, method, self._wrap(getattr(asyncpg.Connection, method)))

    def _wrap(self, call: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def wrapped(connection: Any, query: str, *arguments: Any, **options: Any) -> Any:
            if self.failpoints is None:
                return await call(connection, query, *arguments, **options)
            name = self._name(connection, query)
            self.failpoints.hit(f"before {name}")
            try:
                result = await call(connection, query, *arguments, **options)
            except asyncpg.PostgresError:
                # The server has answered, with an error.
                self.failpoints.hit(f"after {name}")
                raise
            if self.failpoints.hit(f"after {name}"):
                connection.terminate()
                raise asyncpg.ConnectionDoesNotExistError(CONNECTION_LOST)
            return result

        return wrapped

    def _name(self, connection: Any, query: str) -> str:
        if query == connection.get_reset_query():
            return "reset session"
        name = self._names.name_statement(query)
        if connection in self._tenants:
            return f"tenant {name}"
        if name == "begin":
            self._transactions[connection] = []
        elif name in {"commit", "rollback"}:
            statements = self._transactions.pop(connection, [])
            return name_commit(statements) if name == "commit" else name
        elif connection in self._transactions:
            self._transactions[connection].append(name)
        return name

    def _wrap_requests(self) -> None:
        send = httpx.AsyncClient.send

        async def wrapped(client: Any, request: Any, **options: Any) -> Any:
            if self.failpoints is None:
                return await send(client, request, **options)
            name = self._names.name_request(request.method, request.url.path, request.content)
            self.failpoints.hit(f"before {name}")
            response = await send(client, request, **options)
            if self.failpoints.hit(f"after {name}"):
                await response.aclose()
                raise httpx.ReadError("the answer was lost", request=request)
            return response

        httpx.AsyncClient.send = wrapped  # type: ignore[method-assign, assignment]

    def _track_tenant_connections(self) -> None:
        """Remember which connections lead to tenants: their boundaries are named so."""
        prepare = PostgresTenantConnection.prepare

        async def wrapped(tenant: Any) -> None:
            self._tenants.add(tenant._connection)
            if self.failpoints is not None:
                self.failpoints.hit("after tenant connect")
            await prepare(tenant)

        PostgresTenantConnection.prepare = wrapped  # type: ignore[method-assign, assignment]

    def _tag_sessions(self) -> None:
        """Put the pid into each session's name, so that the witnesses know which process wrote."""
        connect = asyncpg.connect

        def tagged(*arguments: Any, **options: Any) -> Any:
            settings = dict(options.pop("server_settings", None) or {})
            name = f"{settings.get('application_name', 'pgworker')} pid={os.getpid()}"
            settings["application_name"] = name
            return connect(*arguments, server_settings=settings, **options)

        asyncpg.connect = tagged
