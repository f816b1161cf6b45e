"""Faults of one server that holds the queue and the tenants: the worker recovers by itself."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from tests.faults.checks import (
    LOST_SESSION,
    add_clients,
    assert_nothing_duplicated_or_lost,
    assert_reported_once,
    prepare,
    wait_until_all_are_ready,
)
from tests.support.clusters import RELOAD, Server, running_server
from tests.support.tcp_proxy import running_proxy_to
from tests.support.worker_process import DEFAULT_LEASE, running_worker
from tests.support.workers import within

SOME_ARE_READY = "select count(*) >= 2 from clients where provisioning_status = 'ready'"
OURS = "from pg_stat_activity where application_name like 'pgworker%' and pid <> pg_backend_pid()"
WAIT_FOR_CLAIM = """
do $$
begin
    while not exists (select from pg_locks where not granted and locktype = 'transactionid') loop
        perform pg_sleep(0.001);
    end loop;
end
$$
"""
NO_ATTEMPT_COUNTED = "select sum(attempts + crashes) = 0 from client_provisioning_jobs"


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    # A session that waits for a lock checks for a deadlock once, after this time: before a claim
    # stops waiting (200 ms), but long enough for the deadlock to be complete.
    async with running_server(deadlock_timeout="150ms") as started:
        await prepare(started)
        yield started


@pytest.mark.parametrize(
    "how",
    [pytest.param(signal.SIGINT, id="fast"), pytest.param(signal.SIGQUIT, id="immediate")],
)
async def test_a_restart_of_the_server_under_load_loses_nothing(
    server: Server, tmp_path: Path, how: signal.Signals
) -> None:
    await add_clients(server, 6)
    async with running_worker(tmp_path, DATABASE_URL=server.dsn, **DEFAULT_LEASE) as worker:
        await server.wait_until(SOME_ARE_READY)
        await worker.wait_for("listen_connected")
        await server.stop(how)
        await worker.wait_for("database_unreachable")
        await server.start()
        await worker.wait_for("database_recovered")
        await add_clients(server, 4, name="late")

        await wait_until_all_are_ready(server, worker)

        await assert_nothing_duplicated_or_lost(server, tenants=None)
        assert_reported_once(worker, *LOST_SESSION)
        assert [line["server_restarted"] for line in worker.events("listen_connected")] == [
            False,
            True,
        ]
        assert await worker.stop() == 0


async def test_a_worker_recovers_when_all_its_sessions_are_terminated_at_once(
    server: Server, tmp_path: Path
) -> None:
    await add_clients(server, 6)
    async with running_worker(tmp_path, DATABASE_URL=server.dsn, **DEFAULT_LEASE) as worker:
        await server.wait_until(SOME_ARE_READY)
        await worker.wait_for("listen_connected")
        # The worker is stopped meanwhile. Otherwise the first session could be replaced before the
        # last one ends: that would be two outages.
        worker.send(signal.SIGSTOP)
        await server.run(f"select pg_terminate_backend(pid) {OURS}")
        await server.wait_until(f"select not exists (select {OURS})")
        worker.send(signal.SIGCONT)
        await worker.wait_for("database_recovered")
        await add_clients(server, 4, name="late")

        await wait_until_all_are_ready(server, worker)

        await assert_nothing_duplicated_or_lost(server, tenants=None)
        assert_reported_once(worker, *LOST_SESSION)
        assert not any(line["server_restarted"] for line in worker.events("listen_connected"))


async def test_a_worker_waits_for_a_server_that_takes_no_writes_for_a_while(
    server: Server, tmp_path: Path
) -> None:
    await add_clients(server, 6)
    async with running_worker(tmp_path, DATABASE_URL=server.dsn, **DEFAULT_LEASE) as worker:
        await server.wait_until(SOME_ARE_READY)
        await server.run("alter system set default_transaction_read_only = on", RELOAD)
        (failed,) = await worker.wait_for("database_unreachable")
        # `alter system` works in a read-only transaction; a session may turn it off for itself.
        await server.run("alter system reset default_transaction_read_only", RELOAD)
        await worker.wait_for("database_recovered")
        await server.wait_until(
            "select not current_setting('default_transaction_read_only')::boolean"
        )
        await add_clients(server, 4, name="late")

        await wait_until_all_are_ready(server, worker)

        await assert_nothing_duplicated_or_lost(server, tenants=None)
        assert_reported_once(worker, "takes no writes")
        assert failed["level"] == "warning"


async def test_a_worker_waits_out_a_statement_timeout_that_ends_every_statement(
    server: Server, tmp_path: Path
) -> None:
    # For the worker's role, as a DBA would set it; a role's settings apply to new sessions.
    await server.run("create role platform login superuser password 'p'")
    mine = server.dsn.replace(f"postgres:{server.password}@", "platform:p@")
    await add_clients(server, 6)
    async with running_worker(tmp_path, DATABASE_URL=mine, **DEFAULT_LEASE) as worker:
        await server.wait_until(SOME_ARE_READY)
        blocker = await asyncpg.connect(server.dsn)
        # The worker's statements wait for a lock, so they certainly take longer than the limit.
        async with blocker.transaction():
            await blocker.execute("lock table client_provisioning_jobs in exclusive mode")
            await server.run(
                "alter role platform set statement_timeout = '50ms'",
                "select pg_terminate_backend(pid) from pg_stat_activity where usename = 'platform'"
                " and application_name = 'pgworker'",
            )
            await worker.wait_for("database_unreachable")
            await server.wait_until(
                "select count(*) > 0 from pg_stat_activity where usename = 'platform'"
            )
        await server.run(
            "alter role platform reset statement_timeout",
            "select pg_terminate_backend(pid) from pg_stat_activity where usename = 'platform'"
            " and application_name = 'pgworker'",
        )
        await blocker.close()
        await worker.wait_for("database_recovered")
        await add_clients(server, 4, name="late")

        await wait_until_all_are_ready(server, worker)

        await assert_nothing_duplicated_or_lost(server, tenants=None)
        assert len(worker.events("worker_started")) == 1


async def block_claim(server: Server, then: str) -> None:
    """Let a claim wait for a client that another transaction has changed; then end that one.

    The server itself waits for the claim, as the claim doesn't wait long.

    Args:
        server: with a worker.
        then: statements of the other transaction while the claim waits.
    """
    await server.run("select pgworker.pause('all')")
    await add_clients(server, 1)
    other = await asyncpg.connect(server.dsn)
    try:
        await other.execute("begin")
        # A deadlock has one victim, which must not be this session: it checks an hour later.
        await other.execute("set local deadlock_timeout = '1h'")
        await other.execute("update clients set name = name")
        ending = asyncio.create_task(other.execute(f"{WAIT_FOR_CLAIM}; {then}; commit"))
        await server.run("select pgworker.resume('all')")
        await within(ending)
    finally:
        await other.close()


async def test_a_deadlock_is_retried_without_an_attempt(server: Server, tmp_path: Path) -> None:
    async with running_worker(tmp_path, DATABASE_URL=server.dsn, **DEFAULT_LEASE) as worker:
        await worker.wait_for("listen_connected")
        # This completes the deadlock before the claim checks for one.
        await block_claim(server, "select from client_provisioning_jobs for update")

        await wait_until_all_are_ready(server, worker)

        await assert_nothing_duplicated_or_lost(server, tenants=None)
        assert "deadlock detected" in server.log
        # The claim is repeated job by job: a row that can't be changed is no outage.
        assert worker.events("database_unreachable") == []
        assert await server.value(NO_ATTEMPT_COUNTED)


async def test_a_serialisation_failure_is_retried_without_an_attempt(
    server: Server, tmp_path: Path
) -> None:
    await server.run(
        "alter database postgres set default_transaction_isolation = 'repeatable read'"
    )
    async with running_worker(tmp_path, DATABASE_URL=server.dsn, **DEFAULT_LEASE) as worker:
        await worker.wait_for("listen_connected")
        await block_claim(server, "select")

        await wait_until_all_are_ready(server, worker)

        await assert_nothing_duplicated_or_lost(server, tenants=None)
        assert "could not serialize access" in server.log
        assert worker.events("database_unreachable") == []
        assert await server.value(NO_ATTEMPT_COUNTED)


async def test_a_worker_recovers_when_its_password_is_changed_and_changed_back(
    server: Server, tmp_path: Path
) -> None:
    await server.run("create role platform login superuser password 'p'")
    mine = server.dsn.replace(f"postgres:{server.password}@", "platform:p@")
    async with running_worker(tmp_path, DATABASE_URL=mine, **DEFAULT_LEASE) as worker:
        await worker.wait_for("listen_connected")
        await server.run(
            "alter role platform password 'q'",
            "select pg_terminate_backend(pid) from pg_stat_activity where usename = 'platform'",
        )
        await worker.wait_for("database_unreachable")
        await server.run("alter role platform password 'p'")
        await worker.wait_for("database_recovered")
        await add_clients(server, 2)

        await wait_until_all_are_ready(server, worker)

        assert_reported_once(worker, *LOST_SESSION, "refuses the login")


async def test_a_worker_recovers_when_all_its_connections_are_half_open(
    server: Server, tmp_path: Path
) -> None:
    await add_clients(server, 6)
    async with (
        running_proxy_to(server.dsn) as (network, through),
        running_worker(tmp_path, DATABASE_URL=through, PGWORKER_TENANTS_URL=server.dsn) as worker,
    ):
        await server.wait_until(SOME_ARE_READY)
        await worker.wait_for("listen_connected")
        # As when a firewall drops its state: no byte arrives any more, and neither end notices.
        assert network.half_open() > 1
        await add_clients(server, 4, name="late")

        await wait_until_all_are_ready(server, worker)

        await assert_nothing_duplicated_or_lost(server, tenants=None)
        # Each part that waited on a dead connection reports it, and that the next one answers.
        failures = len(worker.events("database_unreachable"))
        assert failures > 0
        await worker.wait_for("database_recovered", count=failures)
        assert len(worker.events("worker_started")) == 1
        assert "Traceback" not in worker.output
        # A worker that can't renew its leases stops its jobs, and claims them again.
        assert await server.value("select sum(attempts) = 0 from client_provisioning_jobs")
