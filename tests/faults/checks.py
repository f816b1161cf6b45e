"""Checks that every test of a fault makes at its end."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from pgworker.db.migrate import migrate
from pgworker.db.pool import connect

if TYPE_CHECKING:
    from tests.support.clusters import Server
    from tests.support.worker_process import WorkerProcess

ALL_READY = (
    "select count(*) = (select count(*) from clients)"
    " from clients where provisioning_status = 'ready' and provisioning_error is null"
)


# Parts of the messages for a lost session, or for a new one that can't be opened.
LOST_SESSION = (
    "the server ended the session",
    "the server closed the connection",
    "the connection broke",
    "can't be reached",
)


async def prepare(server: Server) -> None:
    """Create pgworker's schema."""
    connection = await connect(server.dsn)
    try:
        await migrate(connection)
    finally:
        await connection.close()


async def add_clients(server: Server, count: int, *, name: str = "client") -> None:
    await server.run(
        f"insert into clients (name, auto_provision)"
        f" select '{name} ' || n, true from generate_series(1, {count}) as n"
    )


async def wait_until_all_are_ready(server: Server, worker: WorkerProcess) -> None:
    """Wait for every client; a worker that ends meanwhile fails the test, with its output."""
    waiting = asyncio.ensure_future(server.wait_until(ALL_READY))
    ending = asyncio.ensure_future(worker.wait())
    try:
        await asyncio.wait({waiting, ending}, return_when=asyncio.FIRST_COMPLETED)
        assert worker.is_running, worker.output
        await waiting
    except TimeoutError:
        rows = await server.value(
            "select jsonb_pretty(jsonb_agg(to_jsonb(job))) from client_provisioning_jobs as job"
            " where status <> 'succeeded'"
        )
        raise AssertionError(f"not ready: {rows}\n{worker.output}") from None
    finally:
        waiting.cancel()
        ending.cancel()
        await asyncio.gather(waiting, ending, return_exceptions=True)


async def assert_nothing_duplicated_or_lost(server: Server, *, tenants: Server | None) -> None:
    """Compare clients, jobs, audit trail and the databases that exist."""
    clients = await server.value(
        "select array_agg('pgw_' || replace(id::text, '-', '') order by id) from clients"
    )
    databases = await (tenants or server).value(
        "select array_agg(datname::text order by datname) from pg_database"
        " where datname like 'pgw\\_%'"
    )
    assert databases == clients
    assert (
        await server.value("select array_agg(project_ref order by id) from clients") == clients
    ), "a client shows a project that isn't its own"
    assert await server.value("select bool_and(status = 'succeeded') from client_provisioning_jobs")
    counts = await server.value(
        "select array_agg(distinct count order by count) from ("
        " select count(*) filter (where event = 'succeeded') as count"
        " from pgworker.event_log where job_id is not null group by job_id) as of_job"
    )
    assert counts == [1], "a job succeeded more than once, or without an event"


def assert_reported_once(worker: WorkerProcess, *sentences: str) -> None:
    """Assert that the same process continued, and reported once the outage and its end.

    Args:
        worker: the process.
        sentences: parts of the message that are possible. Any statement may meet the outage first,
            and its message depends on the state of its own session.
    """
    (failed,) = worker.events("database_unreachable")
    assert any(words in failed["error"] for words in sentences), worker.output
    (back,) = worker.events("database_recovered")
    assert back["seconds"] >= 0
    assert len(worker.events("worker_started")) == 1
    assert "Traceback" not in worker.output
