"""What every test of a fault asks of the platform afterwards."""

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


# What may be said when a session is gone or the next one can't be had.
LOST_SESSION = (
    "the server ended the session",
    "the server closed the connection",
    "the connection broke",
    "can't be reached",
)


async def prepare(server: Server) -> None:
    """Make pgworker's schema."""
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


async def until_all_are_ready(server: Server, worker: WorkerProcess) -> None:
    """Wait for every client; a worker that ends meanwhile fails the test with its last words."""
    waiting = asyncio.ensure_future(server.wait_until(ALL_READY))
    dying = asyncio.ensure_future(worker.wait())
    try:
        await asyncio.wait({waiting, dying}, return_when=asyncio.FIRST_COMPLETED)
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
        dying.cancel()
        await asyncio.gather(waiting, dying, return_exceptions=True)


async def assert_nothing_was_made_twice_or_lost(server: Server, *, tenants: Server | None) -> None:
    """Compare clients, jobs, audit trail and the databases that are really there."""
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
    assert counts == [1], "a job succeeded more than once, or without a word"


def assert_told_once(worker: WorkerProcess, *sentences: str) -> None:
    """Assert that it went on in the same process, and said once what happened and that it ended.

    Args:
        sentences: what it may have said, in part: which statement meets the trouble first is
            nobody's to choose, and each is told what is true of its own session.
    """
    (failed,) = worker.events("database_unreachable")
    assert any(words in failed["error"] for words in sentences), worker.output
    (back,) = worker.events("database_recovered")
    assert back["seconds"] >= 0
    assert len(worker.events("worker_started")) == 1
    assert "Traceback" not in worker.output
