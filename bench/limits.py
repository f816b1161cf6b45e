"""The limits of the machine: bare asyncpg on a plain table, without any guarantee.

Throughput: rows are claimed, fetched and completed, 500 with each statement, on each of so many
connections. Latency: a bare LISTEN connection is notified by the trigger of an insert; no queue
that is woken by notifications can be faster. A listener that first claims the row durably waits for
a second commit.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import asyncpg

from bench.contender import BULK, main

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

SCHEMA = """
create table jobs (
    id bigint generated always as identity primary key,
    status text not null default 'queued',
    priority smallint not null default 0,
    payload jsonb not null default '{}',
    created_at timestamptz not null default now(),
    claimed_at timestamptz,
    finished_at timestamptz
);
create index jobs_queued on jobs (priority desc, id) where status = 'queued';
create function notify_jobs() returns trigger language plpgsql as
$$ begin perform pg_notify('jobs', ''); return null; end $$;
create trigger jobs_inserted after insert on jobs for each statement execute function notify_jobs();
"""
INSERT = "insert into jobs (payload) select '{}' from generate_series(1, $1::int)"
CLAIM = """
update jobs set status = 'running', claimed_at = now()
where id = any(array(
    select id from jobs where status = 'queued'
    order by priority desc, id limit $1 for update skip locked
))
returning id, payload, created_at
"""
COMPLETE = "update jobs set status = 'done', finished_at = now() where id = any($1::bigint[])"


class BareLoop:
    """Settings: `connections` that claim (0: one that listens), `batch_size` (0: don't claim)."""

    unfinished = "select exists (select from jobs where status <> 'done')"

    def __init__(self, dsn: str, settings: Mapping[str, Any]) -> None:
        self._dsn = dsn
        self._settings = settings
        self._is_listening = asyncio.Event()

    async def prepare(self, jobs: int) -> None:
        connection = await asyncpg.connect(self._dsn)
        await connection.execute(SCHEMA)
        await connection.close()

    async def enqueue(self, jobs: int) -> Callable[[], Awaitable[None]]:
        connection = await asyncpg.connect(self._dsn)
        statement = await connection.prepare(INSERT)

        async def go() -> None:
            for start in range(0, jobs, BULK):
                await statement.fetch(min(BULK, jobs - start))

        return go

    async def enqueue_one(self) -> Callable[[], Awaitable[None]]:
        # It gets no notification of what is inserted before it listens.
        await self._is_listening.wait()
        connection = await asyncpg.connect(self._dsn)
        statement = await connection.prepare(INSERT)

        async def go() -> None:
            await statement.fetch(1)

        return go

    async def work(self, on_start: Callable[[], None]) -> None:
        if self._settings["connections"] == 0:
            await self._listen(on_start)
        async with asyncio.TaskGroup() as loops:
            for _ in range(self._settings["connections"]):
                loops.create_task(self._loop(on_start))

    async def _listen(self, on_start: Callable[[], None]) -> None:
        listener, claimer = await asyncpg.connect(self._dsn), await asyncpg.connect(self._dsn)
        claim = await claimer.prepare(CLAIM)
        batch_size = self._settings["batch_size"]
        notified = asyncio.Event()
        await listener.add_listener("jobs", lambda *_: notified.set())
        self._is_listening.set()
        while await notified.wait():
            notified.clear()
            if batch_size:
                await claim.fetch(batch_size)
            on_start()

    async def _loop(self, on_start: Callable[[], None]) -> None:
        connection = await asyncpg.connect(self._dsn)
        claim = await connection.prepare(CLAIM)
        complete = await connection.prepare(COMPLETE)
        while rows := await claim.fetch(self._settings["batch_size"]):
            for _ in rows:
                on_start()
            await complete.fetch([row["id"] for row in rows])
        await asyncio.Future()


if __name__ == "__main__":
    main(BareLoop)
