"""A pooler in transaction mode in front of the platform's database (PGWORKER_LISTEN_URL)."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from tests.faults.checks import (
    add_clients,
    assert_nothing_duplicated_or_lost,
    prepare,
    wait_until_all_are_ready,
)
from tests.support.clusters import Server, free_port, running_server
from tests.support.polling import eventually
from tests.support.worker_process import DEFAULT_LEASE, running_worker

PGBOUNCER = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
UNPRIVILEGED_ID = 65534

pytestmark = pytest.mark.skipif(
    PGBOUNCER is None, reason="pgbouncer is missing: apt-get install pgbouncer"
)


@asynccontextmanager
async def running_pooler(server: Server) -> AsyncIterator[str]:
    """Run pgbouncer in transaction mode in front of the server; yield the DSN through it."""
    with tempfile.TemporaryDirectory(prefix="pgworker-pooler-") as folder:
        async with _run_pooler(Path(folder), server) as through:
            yield through


@asynccontextmanager
async def _run_pooler(folder: Path, server: Server) -> AsyncIterator[str]:
    assert PGBOUNCER is not None
    port = free_port()
    users = folder / "users.txt"
    users.write_text(f'"postgres" "{server.password}"\n')
    config = folder / "pgbouncer.ini"
    config.write_text(
        "[databases]\n"
        f"* = host=127.0.0.1 port={server.port}\n"
        "[pgbouncer]\n"
        f"listen_addr = 127.0.0.1\nlisten_port = {port}\n"
        f"unix_socket_dir =\nauth_type = scram-sha-256\nauth_file = {users}\n"
        # Few enough for a worker's sessions to share them.
        "pool_mode = transaction\ndefault_pool_size = 3\n"
    )
    # pgbouncer refuses to run as root.
    is_root = os.getuid() == 0
    for path in (folder, users, config) if is_root else ():
        os.chown(path, UNPRIVILEGED_ID, UNPRIVILEGED_ID)
    process = await asyncio.create_subprocess_exec(
        PGBOUNCER,
        "--quiet",
        config,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        user=UNPRIVILEGED_ID if is_root else None,
        group=UNPRIVILEGED_ID if is_root else None,
        extra_groups=[] if is_root else None,
    )
    try:
        await eventually(lambda: process.returncode is not None or _answers(port))
        assert process.returncode is None, "pgbouncer ended at once"
        yield f"postgresql://postgres:{server.password}@127.0.0.1:{port}/postgres"
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


def _answers(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


@pytest.mark.parametrize("listening", ["direct", "off"])
async def test_a_worker_behind_a_pooler_in_transaction_mode_provisions_all_clients(
    tmp_path: Path, listening: str
) -> None:
    async with running_server() as server, running_pooler(server) as through:
        await prepare(server)
        await add_clients(server, 12)
        async with running_worker(
            tmp_path,
            DATABASE_URL=through,
            PGWORKER_LISTEN_URL=server.dsn if listening == "direct" else "off",
            PGWORKER_TENANTS_URL=server.dsn,
            **DEFAULT_LEASE,
        ) as worker:
            await wait_until_all_are_ready(server, worker)

            await assert_nothing_duplicated_or_lost(server, tenants=None)
            assert worker.events("database_unreachable") == []
            assert len(worker.events("listen_connected")) == (listening == "direct")
            assert await worker.stop() == 0
