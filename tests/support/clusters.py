"""PostgreSQL servers of a single test, which it may stop, crash, promote and fence."""

from __future__ import annotations

import asyncio
import os
import random
import secrets
import signal
import socket
import tempfile
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import asyncpg

from pgworker.db.postmaster import SUPERUSER, Cluster, PidFile
from tests.support.polling import TIMEOUT_SECONDS, eventually, wait_until_in

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

# Durable enough: a crashed server recovers from its log, which the kernel still holds.
SETTINGS = {
    "fsync": "off",
    "shared_buffers": "32MB",
    "max_connections": "100",
    "wal_level": "replica",
    "max_wal_size": "128MB",
    "min_wal_size": "32MB",
    "wal_keep_size": "64MB",
}
EPHEMERAL_PORTS = Path("/proc/sys/net/ipv4/ip_local_port_range")


@dataclass
class Server:
    """One PostgreSQL server of a test.

    Attributes:
        settings: added to those of every server here; used at the next start.
    """

    cluster: Cluster
    port: int
    password: str = field(repr=False)
    settings: dict[str, str] = field(default_factory=dict)

    @property
    def dsn(self) -> str:
        """The superuser's DSN."""
        return f"postgresql://{SUPERUSER}:{self.password}@127.0.0.1:{self.port}/postgres"

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        """The log of the server so far."""
        return self.cluster.log.read_text(errors="replace")

    @property
    def pid(self) -> int | None:
        """The pid of the running server; None when it doesn't run."""
        try:
            found = PidFile.parse((self.cluster.path / "postmaster.pid").read_text())
        except FileNotFoundError:
            return None
        alive = found is not None and Path(f"/proc/{found.pid}").exists()
        return found.pid if found is not None and alive else None

    async def start(self) -> None:
        await asyncio.to_thread(self.cluster.start, self.port, {**SETTINGS, **self.settings})

    async def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Stop it: SIGINT is fast (sessions are ended), SIGQUIT immediate (a crash)."""
        pid = self.pid
        if pid is None:
            return
        os.kill(pid, how)
        await eventually(lambda: not Path(f"/proc/{pid}").exists())

    async def run(self, *statements: str, database: str = "postgres") -> None:
        connection = await asyncpg.connect(self.dsn_of(database), timeout=TIMEOUT_SECONDS)
        try:
            for statement in statements:
                await connection.execute(statement)
        finally:
            await connection.close()

    async def value(self, query: str, *arguments: object, database: str = "postgres") -> object:
        connection = await asyncpg.connect(self.dsn_of(database), timeout=TIMEOUT_SECONDS)
        try:
            return await connection.fetchval(query, *arguments)
        finally:
            await connection.close()

    async def wait_until(self, condition: str) -> None:
        """Wait until the query is true."""
        await wait_until_in(self.dsn, condition)

    async def crash(self) -> None:
        """Stop it at once, without a checkpoint."""
        await self.stop(signal.SIGQUIT)

    async def promote(self) -> None:
        """Promote a standby; return when it takes writes."""
        # The statement doesn't wait: its snapshot could conflict with what is still to be replayed,
        # and then the server cancels it.
        await self.run("select pg_promote(wait => false)")
        await self.wait_until("select not pg_is_in_recovery()")

    def dsn_of(self, database: str) -> str:
        return f"{self.dsn.rpartition('/')[0]}/{database}"


@asynccontextmanager
async def running_server(**settings: str) -> AsyncIterator[Server]:
    """Run a new server while the block runs."""
    with tempfile.TemporaryDirectory(prefix="pgworker-fault-") as folder:
        server = await asyncio.to_thread(_create, Path(folder).resolve(), settings)
        await server.start()
        try:
            yield server
        finally:
            await server.crash()


@asynccontextmanager
async def running_standby(primary: Server) -> AsyncIterator[Server]:
    """Run a standby of the primary, which waits for it at each commit.

    With asynchronous replication a fail-over would lose the newest commits, and no worker could
    prevent that. The standby has the primary's settings.
    """
    with tempfile.TemporaryDirectory(prefix="pgworker-fault-") as folder:
        standby = await asyncio.to_thread(_copy, Path(folder).resolve(), primary)
        await standby.start()
        await primary.run("alter system set synchronous_standby_names = '*'", RELOAD)
        await primary.wait_until(
            "select count(*) = 1 from pg_stat_replication where sync_priority > 0"
        )
        try:
            yield standby
        finally:
            await standby.crash()


RELOAD = "select pg_reload_conf()"


def _create(folder: Path, settings: Mapping[str, str]) -> Server:
    password = secrets.token_urlsafe(16)
    server = Server(_cluster(folder), free_port(), password, dict(settings))
    file = folder / "password"
    file.write_text(f"{password}\n")
    server.cluster.initialise(file, durable=False)
    return server


def _copy(folder: Path, primary: Server) -> Server:
    cluster = _cluster(folder)
    cluster._run(
        "pg_basebackup",
        f"--pgdata={cluster.path}",
        f"--dbname={primary.dsn}?application_name=standby",
        "--wal-method=stream",
        "--checkpoint=fast",
        "--write-recovery-conf",
        "--no-sync",
        failure="pg_basebackup failed",
    )
    return Server(cluster, free_port(), primary.password, dict(primary.settings))


def _cluster(folder: Path) -> Cluster:
    return Cluster(folder / "postgres", folder / "postgres.log")


def free_port() -> int:
    """Return a port that is free, and stays free while its server is stopped.

    It isn't an ephemeral port: the kernel would give it to one of the many connections of other
    tests.
    """
    lowest, highest = map(int, EPHEMERAL_PORTS.read_text().split())
    others = [*range(1024, lowest), *range(highest + 1, 65536)] or [0]
    while True:
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", random.choice(others)))
            port: int = probe.getsockname()[1]
            return port
