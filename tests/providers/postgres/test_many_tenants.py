"""Many databases at once, on a server that has few connections to give."""

from __future__ import annotations

import asyncpg
import pytest

from pgworker.db.migrate import migrate
from tests.support.clusters import running_server
from tests.support.stack import CANONICAL, running_stack

CLIENTS = 50
# Three of them are the superuser's. A worker takes at most 9 for the platform and 10 for tenants.
MAX_CONNECTIONS = 30


async def test_fifty_tenants_of_twenty_slots_fit_into_thirty_connections(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with running_server(max_connections=str(MAX_CONNECTIONS)) as server:
        await server.run("create database platform")
        dsn = server.dsn_of("platform")
        connection = await asyncpg.connect(dsn)
        await migrate(connection)
        await connection.close()
        async with running_stack(
            dsn, monkeypatch, simulated=None, settings={"PGWORKER_CONCURRENCY": 20}
        ) as stack:
            await stack.add_many(CLIENTS)

            left = await stack.run_until_empty()

            assert left.failed == 0
            assert await stack.count("select count(*) from clients where project_ref is null") == 0
            assert stack.log.find("phase_failed") == []
            assert [each for each in stack.log.find("phase_snoozed") if each.get("error")] == []
            # Those that began when the template was there were copied.
            first_file = min(file.name for file in CANONICAL.glob("*.sql"))
            names = [entry["event"] for entry in stack.log.entries]
            later = {
                entry["job_id"]
                for entry in stack.log.entries[names.index("template_built") :]
                if entry["event"] == "phase_started" and entry["phase"] == "create_project"
            }
            applied = {
                entry["job_id"] for entry in stack.log.find("migration_applied", file=first_file)
            }
            assert later
            assert not later & applied
