"""PostgreSQL servers of a campaign's own, that may be torn down while workers use them."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import socket
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import asyncpg

from pgworker.db.postmaster import SUPERUSER, Cluster
from tests.chaos.evidence import DATABASES, ROLES
from tests.support.server import dsn_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

# The machine stays up in a campaign, only PostgreSQL falls: nothing is lost without fsync, but
# a commit must have been written before it is told of (synchronous_commit stays on).
SETTINGS = {
    "fsync": "off",
    "full_page_writes": "off",
    "max_connections": "400",
    "shared_buffers": "64MB",
    "max_wal_senders": "4",
    "checkpoint_timeout": "1h",
    "max_wal_size": "4GB",
}


@dataclass(slots=True)
class Server:
    """One cluster on a port that it keeps.

    Attributes:
        dsn: of its superuser, straight to the server.
    """

    cluster: Cluster
    port: int
    password: str = field(repr=False)

    @property
    def dsn(self) -> str:
        return f"postgresql://{SUPERUSER}:{self.password}@127.0.0.1:{self.port}/postgres"

    def dsn_of(self, database: str) -> str:
        return dsn_of(self.dsn, database)

    async def start(self) -> None:
        await asyncio.to_thread(self.cluster.start, self.port, SETTINGS)

    async def crash(self) -> None:
        """End it at once, without a checkpoint: an immediate shutdown, as after a crash."""
        running = await asyncio.to_thread(self.cluster.running)
        assert running is not None
        os.kill(running.pid, signal.SIGQUIT)
        async with asyncio.timeout(30):
            while Path(f"/proc/{running.pid}").exists():  # noqa: ASYNC110  # not our child
                await asyncio.sleep(0.01)

    async def promote(self) -> None:
        """Let a standby take writes from now on."""
        await self.run("select pg_promote()")

    async def stop(self) -> None:
        await asyncio.to_thread(self.cluster.stop)

    async def run(self, *statements: str, database: str = "postgres") -> None:
        connection = await asyncpg.connect(self.dsn_of(database))
        try:
            for statement in statements:
                await connection.execute(statement)
        finally:
            await connection.close()

    async def drop_tenants(self) -> None:
        """Drop the databases and roles that the provider `postgres` made here."""
        connection = await asyncpg.connect(self.dsn)
        try:
            for row in await connection.fetch(DATABASES):
                await connection.execute(f'drop database "{row["name"]}" with (force)')
            for row in await connection.fetch(ROLES):
                await connection.execute(f'drop role "{row["name"]}"')
        finally:
            await connection.close()


@asynccontextmanager
async def running_server(folder: Path) -> AsyncIterator[Server]:
    """Make a cluster in the folder and run it while the block runs."""
    folder.mkdir()
    password = secrets.token_hex(8)
    password_file = folder / "password"
    password_file.write_text(password)
    cluster = Cluster(folder / "data", folder / "server.log")
    await asyncio.to_thread(cluster.initialise, password_file, durable=False)
    server = Server(cluster, free_port(), password)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


@asynccontextmanager
async def running_standby(primary: Server, folder: Path) -> AsyncIterator[Server]:
    """Copy a server and run the copy as its synchronous standby while the block runs.

    A commit that somebody was told of is on the standby as well: a fail-over loses none.
    """
    folder.mkdir()
    standby = Server(Cluster(folder / "data", folder / "server.log"), free_port(), primary.password)
    await asyncio.to_thread(
        standby.cluster._run,
        "pg_basebackup",
        f"--pgdata={standby.cluster.path}",
        f"--dbname={primary.dsn}",
        "--write-recovery-conf",
        "--wal-method=stream",
        "--checkpoint=fast",
        "--no-sync",
        failure="pg_basebackup failed",
    )
    await standby.start()
    await primary.run("alter system set synchronous_standby_names = '*'", "select pg_reload_conf()")
    try:
        yield standby
    finally:
        await standby.stop()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
