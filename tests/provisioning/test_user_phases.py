"""Phases that users add take part like our own."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest

from pgworker.errors import BadConfiguration
from pgworker.provisioning.workflow import find_workflows
from tests.support.stack import Stack, running_stack

MODULE = """
from pgworker.errors import Permanent
from pgworker.models import ClientStatus, Done
from pgworker.provisioning.phases.await_project import AwaitProject
from pgworker.provisioning.phases.create_project import CreateProject
from pgworker.provisioning.phases.schema_sync import SchemaSync
from pgworker.provisioning.phases.smoke_checks import SmokeChecks
from pgworker.provisioning.workflow import Workflow

RUNS = []


class SeedData:
    name = "seed_data"
    client_status = {status}

    async def run(self, ctx):
        RUNS.append((ctx.client.status, ctx.job.job_type))
        async with ctx.connect(await ctx.credentials()) as connection:
            await connection.execute({sql!r})
        return Done(checkpoint={{"seeded": True}})


class Namesake(SeedData):
    name = "schema_sync"


with_seeds = Workflow(
    "provision", (CreateProject(), AwaitProject(), SchemaSync(), SeedData(), SmokeChecks())
)
not_a_workflow = [SeedData()]
"""
SEED = "insert into public.app_settings (key, value, is_public) values ('seed', '1', true)"

Open = Callable[..., AbstractAsyncContextManager[Stack]]


@pytest.fixture
def seeding(database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Open:
    """Return what opens a stack whose workflow has a phase `seed_data` after `schema_sync`."""

    def opened(*, status: str = "ClientStatus.SCHEMA_SYNCING", sql: str = SEED) -> Any:
        name = f"user_phases_{tmp_path.name.replace('-', '_')}"
        (tmp_path / f"{name}.py").write_text(MODULE.format(status=status, sql=sql))
        monkeypatch.syspath_prepend(str(tmp_path))
        settings = {"PGWORKER_WORKFLOW": f"{name}:with_seeds"}
        return running_stack(database, monkeypatch, simulated={}, settings=settings)

    return opened


def phases_in(log: Any) -> list[str]:
    return [entry["phase"] for entry in log.find("phase_succeeded")]


async def test_a_phase_of_the_users_runs_in_its_place_and_the_views_know_it(
    seeding: Open,
) -> None:
    async with seeding() as stack:
        client_id = await stack.add()
        await stack.run_until_empty()

        assert phases_in(stack.log) == [
            "create_project",
            "await_project",
            "schema_sync",
            "seed_data",
            "smoke_checks",
        ]
        assert (await stack.fetch_client(client_id))["provisioning_status"] == "ready"
        job = await stack.fetch_row(
            "select * from pgworker.job_status where client_id = $1", client_id
        )
        assert (job["phase"], job["phase_number"], job["phase_count"]) == ("smoke_checks", 5, 5)
        assert (await stack.fetch_job(client_id))["checkpoint"]["seeded"] is True
        timed = await stack.platform.pool.fetch("select phase from pgworker.phase_latency")
        assert "seed_data" in {row["phase"] for row in timed}


@pytest.mark.parametrize(
    ("status", "shown"),
    [("ClientStatus.SMOKE_CHECKING", "smoke_checking"), ("None", "schema_syncing")],
    ids=["its own", "none of its own"],
)
async def test_a_client_shows_the_status_of_the_phase_or_keeps_the_one_before(
    seeding: Open, status: str, shown: str
) -> None:
    async with seeding(status=status, sql="select pg_sleep(0)") as stack:
        order = _hang_in_the_seed(stack)
        client_id = await stack.add()
        async with stack.running() as daemon:
            await order.reached.wait()
            view = await stack.fetch_row(
                "select * from pgworker.client_status where client_id = $1", client_id
            )
            order.release()
            await daemon

        assert (view["status"], view["phase"], view["phase_number"]) == (shown, "seed_data", 4)


def _hang_in_the_seed(stack: Stack) -> Any:
    from pgworker.simulator import Hang

    return stack.faults.order(operation="run_query", fault=Hang(), contains="pg_sleep(0)")


async def test_sql_that_the_tenant_refuses_fails_the_users_phase_with_the_servers_words(
    seeding: Open,
) -> None:
    async with seeding(sql="insert into public.nowhere values (1)") as stack:
        client_id = await stack.add()
        await stack.run_until_empty()

        job = await stack.fetch_job(client_id)
        assert (job["status"], job["job_type"], job["error_kind"]) == (
            "failed",
            "seed_data",
            "permanent",
        )
        assert 'seed_data: relation "public.nowhere" does not exist [42P01]' in job["last_error"]


async def test_a_retry_resumes_at_the_users_phase(seeding: Open) -> None:
    async with seeding(sql="insert into public.made_later values (1)") as stack:
        client_id = await stack.add()
        await stack.run_until_empty()
        stored = await stack.platform.secrets().of_client(client_id)
        ref = (await stack.fetch_client(client_id))["project_ref"]
        provider = stack.platform.providers.default
        from pgworker.providers.base import Credentials

        async with provider.connect(ref, Credentials(stored)) as connection:
            await connection.execute(
                "create table public.made_later (n int);"
                "alter table public.made_later enable row level security;"
                "grant select on public.made_later to service_role"
            )
        await stack.retry(client_id)
        await stack.run_until_empty()

        assert (await stack.fetch_client(client_id))["provisioning_status"] == "ready"
        assert phases_in(stack.log).count("schema_sync") == 1
        assert stack.count_creates() == 1


@pytest.mark.parametrize(
    ("attribute", "message"),
    [
        ("nowhere", "has no attribute 'nowhere'"),
        ("not_a_workflow", "is not a pgworker Workflow"),
    ],
)
def test_what_is_not_a_workflow_is_refused_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, attribute: str, message: str
) -> None:
    (tmp_path / "user_workflows_refused.py").write_text(MODULE.format(status=None, sql=SEED))
    monkeypatch.syspath_prepend(str(tmp_path))

    with pytest.raises(BadConfiguration, match=f"PGWORKER_WORKFLOW: .*{message}"):
        find_workflows(f"user_workflows_refused:{attribute}")


def test_a_module_that_is_not_there_is_refused_by_its_name() -> None:
    with pytest.raises(BadConfiguration, match="PGWORKER_WORKFLOW: no_such_module:flow"):
        find_workflows("no_such_module:flow")


def test_two_phases_of_one_name_are_refused() -> None:
    from pgworker.provisioning.phases.schema_sync import SchemaSync
    from pgworker.provisioning.workflow import Workflow

    with pytest.raises(BadConfiguration, match="phases need names of their own"):
        Workflow("provision", (SchemaSync(), SchemaSync()))
