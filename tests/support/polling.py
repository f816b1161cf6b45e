"""Waiting for what no event announces: other processes, and the state of PostgreSQL's sessions."""

from __future__ import annotations

import asyncio
import inspect
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, overload

import asyncpg

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping

T = TypeVar("T")

TIMEOUT_SECONDS = 120
INTERVAL_SECONDS = 0.01

WAITING_FOR_LOCKS = """
select count(*)
from pg_stat_activity
where datname = current_database() and wait_event_type = 'Lock'
"""


class Queryable(Protocol):
    """A connection, or a pool of them."""

    async def fetchval(self, query: str, /, *arguments: Any) -> Any: ...


@overload
async def eventually(probe: Callable[[], Awaitable[T]], *, timeout: float = ...) -> T: ...


@overload
async def eventually(probe: Callable[[], T], *, timeout: float = ...) -> T: ...


async def eventually(probe: Callable[[], Any], *, timeout: float = TIMEOUT_SECONDS) -> Any:
    """Call the probe until it returns something true; return that.

    Raises:
        TimeoutError: it didn't within so many seconds.
    """
    async with asyncio.timeout(timeout):
        while True:
            found = probe()
            if inspect.isawaitable(found):
                found = await found
            if found:
                return found
            await asyncio.sleep(INTERVAL_SECONDS)


async def wait_for_log(logs: Iterable[Mapping[str, Any]], event: str) -> None:
    """Return once the event is among the captured logs."""
    await eventually(lambda: any(log["event"] == event for log in logs))


async def wait_until_in(dsn: str, condition: str, *arguments: Any) -> Any:
    """Return the value of the query on this database once it is true."""
    connection = await asyncpg.connect(dsn, timeout=TIMEOUT_SECONDS)
    try:
        return await wait_until(connection, condition, *arguments)
    finally:
        await connection.close()


async def wait_until(connection: Queryable, condition: str, *arguments: Any) -> Any:
    """Return the value of the query once it is true."""
    return await eventually(lambda: connection.fetchval(condition, *arguments))


async def wait_for_lock(connection: Queryable) -> int:
    """Return how many sessions of this database wait for a lock, once one does.

    Not for a connection in a transaction: PostgreSQL shows it the sessions of its first look.
    """
    return int(await wait_until(connection, WAITING_FOR_LOCKS))
