"""Puts a gate before and after every step of a worker, from outside: pgworker holds none of it.

Steps are the statements on the platform's database, those on a tenant's, and HTTP requests. What
is replaced are methods of asyncpg and httpx, so that no line of pgworker can go past the gate.
"""

from __future__ import annotations

import os
import weakref
from typing import TYPE_CHECKING, Any

import asyncpg
import httpx

from chaos.boundaries import Names, of_commit
from pgworker.tenants.postgres_connection import PostgresTenantConnection

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from chaos.failpoints import Gate

STATEMENTS = ("execute", "fetch", "fetchrow", "fetchval")
# What a severed connection makes of a statement under way.
CONNECTION_LOST = "connection was closed in the middle of operation"


class Instrumented:
    """The seams of this process; nothing is gated until a gate is there.

    Attributes:
        gate: a forked worker sets its own.
        http_timeout_scale: what time-outs of requests are multiplied with.
    """

    def __init__(self) -> None:
        self.gate: Gate | None = None
        self.http_timeout_scale = 1.0
        self._names = Names.of_our_files()
        self._tenants: weakref.WeakSet[Any] = weakref.WeakSet()
        self._transactions: weakref.WeakKeyDictionary[Any, list[str]] = weakref.WeakKeyDictionary()
        self._gate_statements()
        self._gate_requests()
        self._tell_tenants_apart()
        self._tell_workers_apart()

    def _gate_statements(self) -> None:
        for method in STATEMENTS:
            setattr(asyncpg.Connection, method, self._gated(getattr(asyncpg.Connection, method)))

    def _gated(self, call: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def gated(connection: Any, query: str, *arguments: Any, **options: Any) -> Any:
            if self.gate is None:
                return await call(connection, query, *arguments, **options)
            name = self._name(connection, query)
            self.gate.passes(f"before {name}")
            try:
                result = await call(connection, query, *arguments, **options)
            except asyncpg.PostgresError:
                # The server has answered, though with a no.
                self.gate.passes(f"after {name}")
                raise
            if self.gate.passes(f"after {name}"):
                connection.terminate()
                raise asyncpg.ConnectionDoesNotExistError(CONNECTION_LOST)
            return result

        return gated

    def _name(self, connection: Any, query: str) -> str:
        if query == connection.get_reset_query():
            return "reset session"
        name = self._names.of_statement(query)
        if connection in self._tenants:
            return f"tenant {name}"
        if name == "begin":
            self._transactions[connection] = []
        elif name in {"commit", "rollback"}:
            statements = self._transactions.pop(connection, [])
            return of_commit(statements) if name == "commit" else name
        elif connection in self._transactions:
            self._transactions[connection].append(name)
        return name

    def _gate_requests(self) -> None:
        send = httpx.AsyncClient.send

        async def gated(client: Any, request: Any, **options: Any) -> Any:
            if self.gate is None:
                return await send(client, request, **options)
            timeouts = request.extensions["timeout"]
            request.extensions["timeout"] = {
                what: None if seconds is None else seconds * self.http_timeout_scale
                for what, seconds in timeouts.items()
            }
            name = self._names.of_request(request.method, request.url.path, request.content)
            self.gate.passes(f"before {name}")
            response = await send(client, request, **options)
            if self.gate.passes(f"after {name}"):
                await response.aclose()
                raise httpx.ReadError("the answer got lost", request=request)
            return response

        httpx.AsyncClient.send = gated  # type: ignore[method-assign, assignment]

    def _tell_tenants_apart(self) -> None:
        prepare = PostgresTenantConnection.prepare

        async def gated(tenant: Any) -> None:
            self._tenants.add(tenant._connection)
            if self.gate is not None:
                self.gate.passes("after tenant connect")
            await prepare(tenant)

        PostgresTenantConnection.prepare = gated  # type: ignore[method-assign, assignment]

    def _tell_workers_apart(self) -> None:
        """Let every session name its process, so that witnesses in the database know the writer."""
        connect = asyncpg.connect

        def named(*arguments: Any, **options: Any) -> Any:
            settings = dict(options.pop("server_settings", None) or {})
            name = f"{settings.get('application_name', 'pgworker')} pid={os.getpid()}"
            settings["application_name"] = name
            return connect(*arguments, server_settings=settings, **options)

        asyncpg.connect = named
