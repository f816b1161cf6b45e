"""Differences between providers and ledger, on real servers: found, fixed, deleted when named."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest

from pgworker.errors import NotDeleted
from pgworker.maintenance.findings import Finding, FindingKind, Remedy
from pgworker.maintenance.reconcile import Reconciler
from pgworker.providers.postgres.provider import NAMES
from pgworker.providers.postgres.server import POSTGRES_QUERIES
from pgworker.simulator import Answer, Drop, Hang
from tests.support.stack import Stack, running_stack

Open = Callable[..., AbstractAsyncContextManager[Stack]]
LISTING = "list_organization_projects"


@pytest.fixture
def supabase(database: str, monkeypatch: pytest.MonkeyPatch) -> Open:
    def opened(
        *, settings: dict[str, Any] | None = None, **how: Any
    ) -> AbstractAsyncContextManager[Stack]:
        return running_stack(
            database, monkeypatch, simulated=how, settings=settings, invalid_answers=True
        )

    return opened


@pytest.fixture
def postgres(database: str, monkeypatch: pytest.MonkeyPatch) -> Open:
    @asynccontextmanager
    async def opened() -> AsyncIterator[Stack]:
        async with running_stack(database, monkeypatch, simulated=None) as stack:
            yield stack
            for row in await stack.platform.pool.fetch("select id from clients"):
                name = f"pgw_{row['id'].hex}"
                await stack.platform.pool.execute(f'drop database if exists "{name}" with (force)')
                await stack.platform.pool.execute(f'drop role if exists "{name}"')

    return opened


async def inspect(stack: Stack) -> list[Finding]:
    """Return the findings, without the tenants of other tests on the same server."""
    clients = {row["id"] for row in await stack.platform.pool.fetch("select id from clients")}
    findings = await Reconciler(stack.platform).inspect()
    if stack.running_simulator is not None:
        return list(findings)
    return [each for each in findings if each.client_id in clients]


async def kinds(stack: Stack) -> list[FindingKind]:
    return [each.kind for each in await inspect(stack)]


async def events(stack: Stack, *names: str) -> list[dict[str, Any]]:
    rows = await stack.platform.pool.fetch(
        "select event, actor, client_id, error, detail from pgworker.events"
        " where event = any($1) order by id",
        names,
    )
    return [dict(row) for row in rows]


async def a_ready_client(stack: Stack) -> UUID:
    client_id = await stack.add()
    await stack.run_until_empty()
    assert (await stack.fetch_client(client_id))["provisioning_status"] == "ready"
    return client_id


async def a_client_whose_create_was_lost(stack: Stack) -> UUID:
    """Its project exists, the answer was lost, and the job failed before it could look."""
    faults = stack.faults
    faults.order(operation="create_project", fault=Answer(504, after_effect=True))
    faults.order(operation=LISTING, fault=Answer(422), nth=2, times=None)
    client_id = await stack.add()
    await stack.run_until_empty()
    faults.clear()
    assert (await stack.fetch_job(client_id))["status"] == "failed"
    assert (await stack.fetch_client(client_id))["project_ref"] is None
    assert stack.count_creates() == 1
    return client_id


# -- supabase: the listing --------------------------------------------------------------------


async def test_an_orphan_on_the_last_page_is_found_and_projects_with_similar_names_are_not(
    supabase: Open,
) -> None:
    async with supabase() as stack:
        await a_ready_client(stack)
        stranger = uuid4()
        for number in range(120):
            stack.simulator.projects.plant(f"customer {number}")
        stack.simulator.projects.plant(f"pgworker-{stranger}-2")
        stack.simulator.projects.plant(f"pgworker-{str(stranger).upper()}")
        stack.simulator.projects.plant(f"pgworker-{stranger.hex}")
        stack.simulator.projects.plant(str(stranger))
        stack.simulator.projects.plant(f"pgworker-{uuid4()}", is_branch=True)
        stack.simulator.projects.plant(f"pgworker-{uuid4()}", status="REMOVED")
        stack.simulator.projects.plant(f"pgworker-{uuid4()}", status="GOING_DOWN")
        orphan = stack.simulator.projects.plant(f"pgworker-{stranger}")

        (finding,) = await inspect(stack)

        assert (finding.kind, finding.ref) == (FindingKind.ORPHAN, orphan.ref)
        assert finding.client_id == stranger
        assert finding.created_at is not None
        assert finding.remedy is None
        assert "another pgworker" in finding.advice
        pages = {dict(entry.query).get("offset") for entry in stack.ledger.find(LISTING)}
        assert pages >= {"0", "100"}


async def test_a_listing_that_fails_on_its_second_page_says_nothing_of_any_project(
    supabase: Open,
) -> None:
    async with supabase() as stack:
        await a_ready_client(stack)
        (project,) = stack.simulator.projects.all()
        project.enter("VANISHED", at=0)
        for number in range(120):
            stack.simulator.projects.plant(f"customer {number}")
        stack.simulator.projects.plant(f"pgworker-{uuid4()}")
        stack.faults.order(
            operation=LISTING, fault=Answer(500), times=None, query={"offset": "[1-9]*"}
        )

        (finding,) = await inspect(stack)

        assert finding.kind is FindingKind.UNSEEN
        assert "500" in finding.message

        stack.faults.clear()
        assert await kinds(stack) == [FindingKind.ORPHAN, FindingKind.GONE]


async def test_a_listing_that_fails_once_is_read_again(supabase: Open) -> None:
    async with supabase() as stack:
        await a_ready_client(stack)
        stack.faults.order(operation=LISTING, fault=Answer(500))
        assert await inspect(stack) == []


async def test_one_invalid_ref_hides_no_other_finding(supabase: Open) -> None:
    async with supabase() as stack:
        client_id = await a_ready_client(stack)
        orphan = stack.simulator.projects.plant(f"pgworker-{uuid4()}")
        (project,) = stack.simulator.projects.find_by_name(f"pgworker-{client_id}")
        project.enter("VANISHED", at=0)
        await stack.platform.pool.execute("update clients set project_ref = 'my own'")
        await stack.platform.pool.execute("update pgworker.intents set ref = null")

        found = [(each.kind, each.ref) for each in await inspect(stack)]

        assert found == [
            (FindingKind.UNSEEN, "my own"),
            (FindingKind.ORPHAN, orphan.ref),
            (FindingKind.MISMATCH, None),
        ]


# -- supabase: races --------------------------------------------------------------------------


async def test_a_project_created_during_the_inspection_is_not_an_orphan(supabase: Open) -> None:
    async with supabase() as stack:
        asked = stack.faults.order(operation=LISTING, fault=Hang())
        inspecting = asyncio.create_task(inspect(stack))
        await asked.reached.wait()
        # Client and project come now; the listing is read when they are there.
        await a_ready_client(stack)
        asked.release()

        assert await inspecting == []


async def test_a_project_whose_create_is_under_way_is_not_an_orphan(supabase: Open) -> None:
    async with supabase() as stack:
        made = stack.faults.order(operation="create_project", fault=Hang(after_effect=True))
        await stack.add()
        async with stack.running() as worker:
            await made.reached.wait()
            assert await inspect(stack) == []
            made.release()
            await worker


async def test_a_project_recorded_during_the_inspection_is_not_gone(supabase: Open) -> None:
    async with supabase() as stack:
        read = stack.faults.order(operation=LISTING, fault=Hang(after_effect=True))
        inspecting = asyncio.create_task(inspect(stack))
        await read.reached.wait()
        # The listing is read and on its way: what comes now isn't in it.
        await a_ready_client(stack)
        read.release()

        assert await inspecting == []


async def test_a_create_whose_job_is_waiting_is_no_finding(supabase: Open) -> None:
    async with supabase() as stack:
        stack.faults.order(operation="create_project", fault=Drop())
        await stack.add()
        async with stack.running(until_empty=False):
            await stack.wait_until_snoozed(1)
        await stack.let_time_pass(seconds=7200)

        assert (await kinds(stack), stack.count_creates()) == ([], 0)


# -- supabase: what a fix does ----------------------------------------------------------------


async def test_a_fix_queues_the_failed_job_and_its_next_attempt_adopts_the_project(
    supabase: Open,
) -> None:
    async with supabase() as stack:
        client_id = await a_client_whose_create_was_lost(stack)
        (finding,) = await inspect(stack)
        assert finding.kind is FindingKind.UNRECORDED
        assert (await stack.fetch_job(client_id))["status"] == "failed", (
            "an inspection changes nothing"
        )

        mended = await Reconciler(stack.platform).fix(finding)

        assert mended.outcome is not None
        assert await inspect(stack) == []
        assert (await stack.run_until_empty()).failed == 0
        assert stack.count_creates() == 1
        client = await stack.fetch_client(client_id)
        assert (client["provisioning_status"], client["project_ref"]) == ("ready", finding.ref)
        (event,) = await events(stack, "reconciled")
        assert event["client_id"] == client_id
        assert event["actor"].startswith("cli:")
        assert event["detail"] == {"remedy": "retry", "ref": finding.ref}


async def test_a_client_that_was_cancelled_meanwhile_is_not_started_again(supabase: Open) -> None:
    async with supabase() as stack:
        client_id = await a_client_whose_create_was_lost(stack)
        (finding,) = await inspect(stack)
        await stack.platform.commands.cancel(client_id)

        mended = await Reconciler(stack.platform).fix(finding)

        assert mended.outcome is None
        assert (await stack.fetch_job(client_id))["status"] == "cancelled"
        assert await events(stack, "reconciled") == []
        (finding,) = await inspect(stack)
        assert (finding.kind, finding.remedy) == (FindingKind.UNRECORDED, None)
        assert f"pgworker retry {client_id}" in finding.advice
        assert f"--delete {finding.ref}" in finding.advice


async def test_a_create_that_made_nothing_is_settled_once_its_time_is_over(supabase: Open) -> None:
    async with supabase() as stack:
        stack.faults.order(operation="create_project", fault=Drop())
        client_id = await stack.add()
        async with stack.running(until_empty=False):
            await stack.wait_until_snoozed(1)
        await stack.platform.commands.cancel(client_id)
        assert await inspect(stack) == [], "it may still show up"
        await stack.let_time_pass(seconds=121)

        (finding,) = await inspect(stack)
        assert (finding.kind, finding.remedy) == (FindingKind.UNANSWERED, Remedy.SETTLE)
        reconciler = Reconciler(stack.platform)
        assert (await reconciler.fix(finding)).outcome is not None

        assert await inspect(stack) == []
        assert (await reconciler.fix(finding)).outcome is None, "there is nothing left to settle"
        await stack.retry(client_id)
        assert (await stack.run_until_empty()).failed == 0
        assert stack.count_creates() == 1


async def test_a_create_that_is_sent_after_the_inspection_is_not_settled(supabase: Open) -> None:
    async with supabase() as stack:
        stack.faults.order(operation="create_project", fault=Drop())
        client_id = await stack.add()
        async with stack.running(until_empty=False):
            await stack.wait_until_snoozed(1)
        await stack.platform.commands.cancel(client_id)
        await stack.let_time_pass(seconds=121)
        (finding,) = await inspect(stack)
        await stack.platform.pool.execute("update pgworker.steps set intended_at = now()")

        assert (await Reconciler(stack.platform).fix(finding)).outcome is None


async def test_a_client_that_lost_the_ref_of_its_project_gets_it_back(supabase: Open) -> None:
    async with supabase() as stack:
        client_id = await a_ready_client(stack)
        before = await stack.fetch_client(client_id)
        await stack.platform.pool.execute(
            "update clients set project_ref = null, project_url = null"
        )
        (finding,) = await inspect(stack)
        assert finding.kind is FindingKind.MISMATCH

        await Reconciler(stack.platform).fix(finding)

        after = await stack.fetch_client(client_id)
        for column in ("project_ref", "project_url"):
            assert after[column] == before[column]
        assert await inspect(stack) == []


async def test_a_client_that_shows_another_ref_is_left_to_a_person(supabase: Open) -> None:
    async with supabase() as stack:
        client_id = await a_ready_client(stack)
        await stack.platform.pool.execute("update clients set project_ref = 'mine'")
        (finding,) = await inspect(stack)

        assert (await Reconciler(stack.platform).fix(finding)).outcome is None
        assert (await stack.fetch_client(client_id))["project_ref"] == "mine"
        assert "mine" in finding.message


# -- supabase: what is there and isn't --------------------------------------------------------


async def test_a_renamed_project_is_not_gone(supabase: Open) -> None:
    async with supabase() as stack:
        await a_ready_client(stack)
        (project,) = stack.simulator.projects.all()
        project.name = "Acme production"
        assert await inspect(stack) == []


@pytest.mark.parametrize("status", ["VANISHED", "GOING_DOWN", "REMOVED"])
async def test_a_deleted_project_is_gone(supabase: Open, status: str) -> None:
    async with supabase() as stack:
        client_id = await a_ready_client(stack)
        (project,) = stack.simulator.projects.all()
        project.enter(status, at=0)

        (finding,) = await inspect(stack)

        assert (finding.kind, finding.client_id) == (FindingKind.GONE, client_id)
        assert project.ref in finding.message


async def test_a_second_project_of_a_clients_name_is_a_duplicate(supabase: Open) -> None:
    async with supabase() as stack:
        client_id = await a_ready_client(stack)
        twin = stack.simulator.projects.plant(f"pgworker-{client_id}")
        (finding,) = await inspect(stack)
        assert (finding.kind, finding.ref) == (FindingKind.DUPLICATE, twin.ref)

        await Reconciler(stack.platform).delete(finding)

        assert await inspect(stack) == []
        (left,) = stack.simulator.projects.find_by_name(f"pgworker-{client_id}")
        assert left.ref == (await stack.fetch_client(client_id))["project_ref"]


async def test_a_ready_client_whose_keys_are_lost_is_reported(supabase: Open) -> None:
    async with supabase() as stack:
        client_id = await a_ready_client(stack)
        await stack.platform.pool.execute(
            "delete from pgworker.tenant_secrets where field in ('secret_key', 'service_role_key')"
        )
        (finding,) = await inspect(stack)
        assert finding.kind is FindingKind.SECRETS_MISSING

        # The advice works.
        assert f"select pgworker.enqueue('{client_id}');" in finding.advice
        await stack.platform.pool.execute(f"select pgworker.enqueue('{client_id}')")
        await stack.run_until_empty()
        assert await inspect(stack) == []


# -- supabase: deleting -----------------------------------------------------------------------


async def test_an_abandoned_project_is_deleted_when_it_is_named_and_the_audit_trail_records_it(
    supabase: Open,
) -> None:
    async with supabase() as stack:
        client_id = await a_client_whose_create_was_lost(stack)
        await stack.platform.commands.cancel(client_id)
        (finding,) = await inspect(stack)

        deleted = await Reconciler(stack.platform).delete(finding)

        assert deleted.outcome == "deleted"
        assert stack.simulator.projects.find_by_name(f"pgworker-{client_id}") == []
        trail = await events(stack, "tenant_deletion_began", "tenant_deleted")
        assert [event["event"] for event in trail] == ["tenant_deletion_began", "tenant_deleted"]
        for event in trail:
            assert event["client_id"] == client_id
            assert event["detail"]["ref"] == finding.ref
        await stack.let_time_pass(seconds=121)
        assert await inspect(stack) == [], "the create has an outcome now"


async def test_a_project_that_a_client_owns_by_now_is_not_deleted(supabase: Open) -> None:
    async with supabase() as stack:
        client_id = await a_client_whose_create_was_lost(stack)
        (finding,) = await inspect(stack)
        await stack.retry(client_id)
        reconciler = Reconciler(stack.platform)
        with pytest.raises(NotDeleted, match="unfinished and may adopt it"):
            await reconciler.delete(finding)
        await stack.run_until_empty()
        with pytest.raises(NotDeleted, match=f"the tenant of client {client_id}"):
            await reconciler.delete(finding)

        assert stack.ledger.find("delete_project") == []
        assert await events(stack, "tenant_deletion_began") == []
        assert len(stack.simulator.projects.find_by_name(f"pgworker-{client_id}")) == 1


async def test_a_deletion_that_the_provider_did_not_confirm_is_reported_as_uncertain(
    supabase: Open,
) -> None:
    async with supabase() as stack:
        stack.simulator.projects.plant(f"pgworker-{uuid4()}")
        (finding,) = await inspect(stack)
        stack.faults.order(operation="delete_project", fault=Answer(500))

        with pytest.raises(NotDeleted, match="may not have been deleted"):
            await Reconciler(stack.platform).delete(finding)

        trail = await events(stack, "tenant_deletion_began", "tenant_deletion_failed")
        assert [event["error"] is not None for event in trail] == [False, True]
        assert await kinds(stack) == [FindingKind.ORPHAN]


# -- every provider in use --------------------------------------------------------------------


async def test_a_provider_in_use_that_is_not_configured_is_a_finding_of_its_own(
    postgres: Open,
) -> None:
    async with postgres() as stack:
        client_id = await a_ready_client(stack)
        other = await stack.add("Other", provider="postgres")
        await stack.run_until_empty()
        await stack.platform.pool.execute(
            "update pgworker.intents set provider = 'supabase' where client_id = $1", other
        )
        findings = await Reconciler(stack.platform).inspect()

        (uninspected,) = (each for each in findings if each.kind is FindingKind.UNSEEN)
        assert uninspected.provider == "supabase"
        assert "SUPABASE_ACCESS_TOKEN is not set" in uninspected.message
        assert client_id not in {each.client_id for each in findings}
        only = await Reconciler(stack.platform).inspect("postgres")
        assert {each.provider for each in only} <= {"postgres"}


# -- postgres ---------------------------------------------------------------------------------


async def a_half_made_tenant(stack: Stack, *, steps: int) -> tuple[UUID, str]:
    """A client whose worker died in the middle of a create, once too often."""
    pool = stack.platform.pool
    client_id = await stack.add()
    name = f"pgw_{client_id.hex}"
    statements = [
        POSTGRES_QUERIES.create_roles.format(name=f"'{name}'"),
        POSTGRES_QUERIES.create_database.format(database=f'"{name}"'),
    ]
    for statement in statements[:steps]:
        await pool.execute(statement)
    await pool.execute(
        "insert into pgworker.intents (client_id, provider, name) values ($1, 'postgres', $2)",
        client_id,
        name,
    )
    await pool.execute(
        "insert into pgworker.steps (client_id, step, target) values ($1, 'create_project', $2)",
        client_id,
        name,
    )
    return client_id, name


async def give_up(stack: Stack) -> None:
    await stack.platform.pool.execute(
        "update client_provisioning_jobs set status = 'failed', error_kind = 'permanent',"
        " last_error = 'the worker fell silent 5 times', finished_at = now()"
    )


@pytest.mark.parametrize("steps", [1, 2], ids=["role without database", "database left open"])
async def test_a_half_made_tenant_is_finished_by_the_job_that_a_fix_queues(
    postgres: Open, steps: int
) -> None:
    async with postgres() as stack:
        client_id, name = await a_half_made_tenant(stack, steps=steps)
        assert await inspect(stack) == [], "its job is queued"
        await give_up(stack)

        (finding,) = await inspect(stack)
        assert (finding.kind, finding.ref) == (FindingKind.HALF_MADE, name)
        await Reconciler(stack.platform).fix(finding)
        await stack.run_until_empty()

        assert (await stack.fetch_client(client_id))["provisioning_status"] == "ready"
        assert await inspect(stack) == []


async def test_an_abandoned_half_made_tenant_is_deleted_when_it_is_named(
    postgres: Open,
) -> None:
    async with postgres() as stack:
        client_id, name = await a_half_made_tenant(stack, steps=2)
        await stack.platform.commands.cancel(client_id)
        (finding,) = await inspect(stack)

        await Reconciler(stack.platform).delete(finding)

        assert await inspect(stack) == []
        assert not await stack.count(
            "select count(*) from pg_roles, pg_database where $1 in (rolname, datname)", name
        )


async def test_a_dropped_database_is_gone_and_so_is_one_whose_drop_was_interrupted(
    postgres: Open,
) -> None:
    async with postgres() as stack:
        pool = stack.platform.pool
        client_id = await a_ready_client(stack)
        name = f"pgw_{client_id.hex}"
        # What a drop leaves behind that was interrupted (PostgreSQL 14.9, 15.4, 16).
        await pool.execute("update pg_database set datconnlimit = -2 where datname = $1", name)
        (finding,) = await inspect(stack)
        assert (finding.kind, "interrupted" in finding.message) == (FindingKind.GONE, True)

        await pool.execute(f'drop database "{name}" with (force)')
        (finding,) = await inspect(stack)
        assert (finding.kind, "only role" in finding.message) == (FindingKind.GONE, True)

        await pool.execute(f'drop role "{name}"')
        assert await kinds(stack) == [FindingKind.GONE]


async def test_a_tenant_that_was_opened_to_all_is_reported_and_the_advice_closes_it(
    postgres: Open,
) -> None:
    async with postgres() as stack:
        client_id = await a_ready_client(stack)
        name = f"pgw_{client_id.hex}"
        await stack.platform.pool.execute(f'grant connect on database "{name}" to public')
        (finding,) = await inspect(stack)
        assert finding.kind is FindingKind.HALF_MADE

        await stack.platform.pool.execute(finding.advice.removeprefix("finish it: "))
        assert await inspect(stack) == []


async def test_a_database_of_our_name_with_another_owner_is_left_alone(
    postgres: Open,
) -> None:
    async with postgres() as stack:
        pool = stack.platform.pool
        client_id = await stack.add()
        name = f"pgw_{client_id.hex}"
        await pool.execute(f'create database "{name}"')
        await stack.run_until_empty()
        assert (await stack.fetch_job(client_id))["status"] == "failed"

        (finding,) = await inspect(stack)

        assert (finding.kind, finding.ref) == (FindingKind.FOREIGN, name)
        reconciler = Reconciler(stack.platform)
        assert (await reconciler.fix(finding)).outcome is None
        with pytest.raises(NotDeleted):
            await reconciler.delete(finding)
        assert await stack.count("select count(*) from pg_database where datname = $1", name) == 1


async def test_a_tenants_server_that_does_not_answer_says_nothing_of_any_tenant(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    nowhere = {"PGWORKER_TENANTS_URL": "postgresql://u:hunter2@127.0.0.1:1/postgres"}
    async with running_stack(database, monkeypatch, simulated=None, settings=nowhere) as stack:
        (finding,) = await Reconciler(stack.platform).inspect()

        assert finding.kind is FindingKind.UNSEEN
        assert "hunter2" not in str(finding)


async def test_a_role_without_rights_on_the_catalogue_of_others_still_sees_every_tenant(
    postgres: Open, server_dsn: str
) -> None:
    async with postgres() as stack:
        client_id, name = await a_half_made_tenant(stack, steps=2)
        login = f"pgworker_test_{uuid4().hex[:12]}"
        await stack.platform.pool.execute(f"create role {login} login createdb createrole")
        try:
            connection = await asyncpg.connect(server_dsn)
            await connection.execute(f"set session authorization {login}")
            rows = await connection.fetch(
                POSTGRES_QUERIES.list_tenants.format(matches=f"~ '{NAMES}'")
            )
            await connection.close()
        finally:
            await stack.platform.pool.execute(f"drop role {login}")
        (row,) = (row for row in rows if row["name"] == name)
        assert (row["owner"], row["is_closed"], row["is_invalid"]) == (name, False, False)
        await stack.platform.commands.cancel(client_id)
