"""A `postgres` tenant end to end, beside CREATE DATABASE and the same migrations by psql."""

from __future__ import annotations

import asyncio
import os
import time
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any
from uuid import UUID

import asyncpg

from bench import field
from bench.daemons import daemons
from bench.figures import median
from bench.rounds import Subject, in_turns
from bench.running import ROOT, RunFailed
from pgworker.db.postmaster import find_program

if TYPE_CHECKING:
    from bench.running import Bench
    from bench.server import BenchServer

# The first ones warm caches up, and have the provider make a template for those to come.
WARM_UP = 2
TENANTS = 5
PATIENCE_SECONDS = 60
# Tenants, and what a worker that has left was about to make a template of.
MADE = "select datname from pg_database where datname ~ 'pgw_[0-9a-f]{32}' and not datistemplate"
HAS_TEMPLATE = (
    "select exists (select from pg_database where datname ~ '^template_pgw_[0-9a-f]{32}$')"
)
SIGN_UP = "insert into clients (name, auto_provision) values ('tenant', true) returning id"
STATUS = "select provisioning_status, provisioning_error from clients where id = $1"
# A client's end tells of itself: whoever polls would charge us half of a pause, and disturb. The
# notification is a part of what is measured.
TELL = """
create function bench_tell() returns trigger language plpgsql as
$$begin perform pg_notify('bench_tenant', new.id::text); return null; end$$;
create trigger bench_tell after update on clients for each row
when (old.provisioning_status <> new.provisioning_status
    and new.provisioning_status in ('ready', 'failed'))
execute function bench_tell();
"""


async def measure(bench: Bench) -> list[dict[str, Any]]:
    """Make tenants one after the other, ours and raw ones in turn."""
    return await in_turns(
        bench,
        [
            Subject(
                {"label": "postgres tenant"},
                "bench_template",
                partial(bench.template, field.BEST, prepared=0),
                partial(_run, bench.server),
            )
        ],
    )


async def _run(server: BenchServer, database: str) -> dict[str, Any]:
    dsn = server.dsn_of(database)
    ours, raw = [], []
    eye = await Eye.open(dsn)
    with TemporaryDirectory(prefix="pgworker-bench-") as folder:
        async with daemons(1, dsn, Path(folder)):
            for number in range(WARM_UP + TENANTS):
                if number == WARM_UP > 0:
                    await _template_is_made(server)
                ours.append(await eye.time_a_tenant())
                raw.append(await _raw(server, f"bench_raw_{number}"))
    await eye.close()
    await server.gone(database)
    for (name,) in await server.admin.fetch(MADE):
        await server.drop(name)
        await server.admin.execute(f"drop role if exists {name}")
    seconds, raw_seconds = median(ours[WARM_UP:]), median(raw[WARM_UP:])
    return {
        "seconds": seconds,
        "raw_seconds": raw_seconds,
        "ratio": seconds / raw_seconds,
        "first_seconds": ours[0],
        "all_seconds": ours,
        "all_raw_seconds": raw,
    }


async def _template_is_made(server: BenchServer) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not await server.admin.fetchval(HAS_TEMPLATE):
            await asyncio.sleep(0.02)


class Eye:
    """Signs clients up, and sees when they are ready."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self._connection = connection
        self._heard: asyncio.Queue[tuple[UUID, float]] = asyncio.Queue()

    @classmethod
    async def open(cls, dsn: str) -> Eye:
        connection = await asyncpg.connect(dsn)
        eye = cls(connection)
        await connection.execute(TELL)
        await connection.add_listener("bench_tenant", eye._hear)
        return eye

    async def close(self) -> None:
        await self._connection.close()

    async def time_a_tenant(self) -> float:
        """Return the seconds from a client's insert until it shows `ready`."""
        began = time.perf_counter()
        client: UUID = await self._connection.fetchval(SIGN_UP)
        async with asyncio.timeout(PATIENCE_SECONDS):
            ended_client, ended = await self._heard.get()
        assert ended_client == client, "one after the other"
        status, error = await self._connection.fetchrow(STATUS, client)
        if status != "ready":
            raise RunFailed(f"the tenant is {status} after {ended - began:.0f} s: {error}")
        return ended - began

    def _hear(self, _: object, __: int, ___: str, client: str) -> None:
        self._heard.put_nowait((UUID(client), time.perf_counter()))


async def _raw(server: BenchServer, database: str) -> float:
    """Return the seconds of CREATE DATABASE and of one psql that applies all migrations."""
    files = sorted((ROOT / "supabase" / "migrations").glob("*.sql"))
    began = time.perf_counter()
    await server.admin.execute(f"create database {database}")
    process = await asyncio.create_subprocess_exec(
        find_program("psql"),
        *("--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", server.dsn_of(database)),
        *(f"--file={file}" for file in files),
        env=os.environ | {"PGOPTIONS": "-c client_min_messages=warning"},
        stdout=asyncio.subprocess.DEVNULL,
    )
    code = await process.wait()
    seconds = time.perf_counter() - began
    await server.drop(database)
    if code != 0:
        raise RunFailed("psql could not apply the migrations")
    return seconds
