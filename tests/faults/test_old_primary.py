"""The old primary keeps answering after a fail-over: the worker must leave it."""

from __future__ import annotations

from pathlib import Path

from tests.faults.checks import (
    add_clients,
    assert_nothing_duplicated_or_lost,
    prepare,
    wait_until_all_are_ready,
)
from tests.support.clusters import RELOAD, running_server, running_standby
from tests.support.worker_process import running_worker

SOME_ARE_READY = "select count(*) >= 2 from clients where provisioning_status = 'ready'"
WRITTEN = "select coalesce(max(id), 0) from pgworker.event_log"
SESSIONS = (
    "select count(*) = 0 from pg_stat_activity where application_name like 'pgworker%'"
    " and pid <> pg_backend_pid() and datname = 'postgres'"
)


async def test_a_worker_leaves_an_old_primary_that_keeps_running_read_only(tmp_path: Path) -> None:
    async with running_server() as primary:
        await prepare(primary)
        async with running_standby(primary) as standby:
            await add_clients(primary, 6)
            both = f"postgresql://postgres:{primary.password}@{primary.address},{standby.address}"
            # Tenants are on the same servers: on whichever takes writes.
            async with running_worker(tmp_path, DATABASE_URL=f"{both}/postgres") as worker:
                await primary.wait_until(SOME_ARE_READY)
                # A fail-over tool does this to a primary that it can still reach. Its sessions stay
                # open, and its address stays the first in the URL.
                await primary.run("alter system set default_transaction_read_only = on", RELOAD)
                await worker.wait_for("database_unreachable")
                # Commits there must not wait for the standby, which is no standby any more.
                await primary.run("alter system set synchronous_standby_names = ''", RELOAD)
                await standby.promote()
                await worker.wait_for("database_recovered")
                left_at = await primary.value(WRITTEN)
                await add_clients(standby, 4, name="late")

                await wait_until_all_are_ready(standby, worker)

                await assert_nothing_duplicated_or_lost(standby, tenants=None)
                assert await primary.value(WRITTEN) == left_at
                # The listening session has moved as well: it notified the worker of late clients.
                await primary.wait_until(SESSIONS)
                assert len(worker.events("worker_started")) == 1
                assert "Traceback" not in worker.output
                assert await worker.stop() == 0
