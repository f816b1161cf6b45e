"""The recipe of docs/adopting.md works as it stands there."""

from __future__ import annotations

import re
from pathlib import Path

import asyncpg
import pytest

from pgworker.db.migrate import migrate
from tests.support.jobs import jobs_in

PAGE = Path(__file__).parents[2] / "docs" / "adopting.md"


@pytest.mark.skipif(not PAGE.exists(), reason="the wheel brings no docs")
async def test_a_bridge_keeps_a_table_with_another_key_in_step(empty_database: str) -> None:
    table, bridge, existing = re.findall(
        r"^```sql\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )
    connection = await asyncpg.connect(empty_database)
    try:
        await connection.execute(table)
        await connection.execute("insert into accounts (title) values ('before')")
        await migrate(connection)
        await connection.execute(bridge)
        await connection.execute(existing)
        await connection.execute(
            "insert into accounts (title, wants_backend) values ('Acme', true), ('Bolt', false)"
        )
    finally:
        await connection.close()

    async with jobs_in(empty_database) as jobs:
        (job,) = await jobs.claim(10)
        assert await jobs.complete(job) == set()
        rows = await jobs.pool.fetch(
            "select title, backend_status, client_id is not null from accounts order by id"
        )
    assert [tuple(row) for row in rows] == [
        ("before", None, True),
        ("Acme", "ready", True),
        ("Bolt", None, True),
    ]
