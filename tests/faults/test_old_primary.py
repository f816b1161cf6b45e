"""The old primary lives on after a fail-over, and answers: nobody may be fooled by it."""

from __future__ import annotations

from pathlib import Path

from tests.faults.checks import (
    add_clients,
    assert_nothing_was_made_twice_or_lost,
    prepare,
    until_all_are_ready,
)
from tests.support.clusters import RELOAD, running_server, running_standby
from tests.support.worker_process import running_worker

SOME_ARE_READY = "select count(*) >= 2 from clients where provisioning_status = 'ready'"
WRITTEN = "select coalesce(max(id), 0) from pgworker.event_log"
SESSIONS = (
    "select count(*) = 0 from pg_stat_activity where application_name like 'pgworker%'"
    " and pid <> pg_backend_pid() and datname = 'postgres'"
)


async def test_a_worker_leaves_an_old_primary_that_lives_on_read_only(tmp_path: Path) -> None:
    async with running_server() as primary:
        await prepare(primary)
        async with running_standby(primary) as standby:
            await add_clients(primary, 6)
            both = f"postgresql://postgres:{primary.password}@{primary.address},{standby.address}"
            # The tenants are on the one that is promoted, whoever the platform's primary is.
            async with running_worker(tmp_path, DATABASE_URL=f"{both}/postgres") as worker:
                await primary.wait_until(SOME_ARE_READY)
                # What a fail-over tool does to a primary that it can still reach. Its sessions
                # stay, and so does the address that comes first in the URL.
                await primary.run("alter system set default_transaction_read_only = on", RELOAD)
                await worker.wait_for("database_unreachable")
                # Nobody waits there for a standby that has gone its own way.
                await primary.run("alter system set synchronous_standby_names = ''", RELOAD)
                await standby.promote()
                await worker.wait_for("database_recovered")
                left_at = await primary.value(WRITTEN)
                await add_clients(standby, 4, name="late")

                await until_all_are_ready(standby, worker)

                await assert_nothing_was_made_twice_or_lost(standby, tenants=None)
                assert await primary.value(WRITTEN) == left_at
                # No session that would notify us stays there either: the late clients were heard.
                await primary.wait_until(SESSIONS)
                assert len(worker.events("worker_started")) == 1
                assert "Traceback" not in worker.output
                assert await worker.stop() == 0
