"""The platform's server is lost for good, and its standby is promoted."""

from __future__ import annotations

import signal
from pathlib import Path

from tests.faults.checks import (
    add_clients,
    assert_nothing_duplicated_or_lost,
    prepare,
    wait_until_all_are_ready,
)
from tests.support.clusters import running_server, running_standby
from tests.support.worker_process import running_worker

SOME_ARE_READY = "select count(*) >= 2 from clients where provisioning_status = 'ready'"


async def test_a_worker_follows_its_database_to_a_promoted_standby(tmp_path: Path) -> None:
    async with running_server() as primary:
        await prepare(primary)
        async with running_standby(primary) as standby:
            await add_clients(primary, 6)
            both = f"postgresql://postgres:{primary.password}@{primary.address},{standby.address}"
            async with running_worker(tmp_path, DATABASE_URL=f"{both}/postgres") as worker:
                await primary.wait_until(SOME_ARE_READY)
                await primary.stop(signal.SIGQUIT)
                await worker.wait_for("database_unreachable")
                await standby.promote()
                await worker.wait_for("database_recovered")
                await add_clients(standby, 4, name="late")

                await wait_until_all_are_ready(standby, worker)

                await assert_nothing_duplicated_or_lost(standby, tenants=None)
                assert len(worker.events("worker_started")) == 1
                assert standby.address in {
                    line["host"]
                    for line in worker.events("database_host_changed", "listen_connected")
                }
                assert "Traceback" not in worker.output
                assert await worker.stop() == 0
