"""Phases that users add take part like our own."""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from pgworker import errors, workflow
from pgworker.errors import BadConfiguration
from pgworker.provisioning.workflow import ENTRY_POINTS, find_workflows
from pgworker.simulator import Hang
from pgworker.workflow import Credentials, JobError, SchemaSync, TenantConnection, Workflow
from tests.support.stack import Stack, running_stack

MODULE = """
from pgworker.workflow import (
    AwaitProject, ClientStatus, CreateProject, Done, SchemaSync, SmokeChecks, Workflow
)


class SeedData:
    name = "seed_data"
    client_status = {status}
    may_cost_money = True

    async def run(self, ctx):
        async with ctx.connect(await ctx.credentials()) as connection:
            await connection.execute({sql!r})
        return Done(checkpoint={{"seeded": True}})


with_seeds = Workflow(
    "provision", (CreateProject(), AwaitProject(), SchemaSync(), SeedData(), SmokeChecks())
)
not_a_workflow = [SeedData()]
"""
SEED = "insert into public.app_settings (key, value, is_public) values ('seed', '1', true)"
DOCS = Path(__file__).parents[2] / "docs" / "phases.md"

Open = Callable[..., AbstractAsyncContextManager[Stack]]


@pytest.fixture
def seeding(database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Open:
    """Return a function that opens a stack with a phase `seed_data` after `schema_sync`."""

    def opened(*, status: str = "ClientStatus.SCHEMA_SYNCING", sql: str = SEED) -> Any:
        name = f"user_phases_{tmp_path.name.replace('-', '_')}"
        (tmp_path / f"{name}.py").write_text(MODULE.format(status=status, sql=sql))
        monkeypatch.syspath_prepend(str(tmp_path))
        settings = {"PGWORKER_WORKFLOW": f"{name}:with_seeds"}
        return running_stack(database, monkeypatch, simulated={}, settings=settings)

    return opened


def phases_in(log: Any) -> list[str]:
    return [entry["phase"] for entry in log.find("phase_succeeded")]


async def test_a_users_phase_runs_in_its_place_and_the_views_know_it(seeding: Open) -> None:
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


async def test_the_phases_that_may_cost_money_are_registered_as_such(seeding: Open) -> None:
    async with seeding() as stack:
        await stack.run_until_empty()

        rows = await stack.platform.pool.fetch(
            "select job_type from pgworker.phases where may_cost_money order by ordinal"
        )
        assert [row["job_type"] for row in rows] == ["create_project", "seed_data"]


@pytest.mark.parametrize(
    ("status", "shown"),
    [("ClientStatus.SMOKE_CHECKING", "smoke_checking"), ("None", "schema_syncing")],
    ids=["its own", "none of its own"],
)
async def test_a_client_shows_the_status_of_the_phase_or_keeps_the_one_before(
    seeding: Open, status: str, shown: str
) -> None:
    async with seeding(status=status, sql="select pg_sleep(0)") as stack:
        order = _let_the_seed_hang(stack)
        client_id = await stack.add()
        async with stack.running() as daemon:
            await order.reached.wait()
            view = await stack.fetch_row(
                "select * from pgworker.client_status where client_id = $1", client_id
            )
            order.release()
            await daemon

        assert (view["status"], view["phase"], view["phase_number"]) == (shown, "seed_data", 4)


def _let_the_seed_hang(stack: Stack) -> Any:
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


@asynccontextmanager
async def tenant_of(stack: Stack, client_id: Any) -> AsyncIterator[TenantConnection]:
    """Connect to the client's tenant, as a phase does."""
    stored = await stack.platform.secrets().get_fields(client_id)
    ref = (await stack.fetch_client(client_id))["project_ref"]
    async with stack.platform.providers.default.connect(ref, Credentials(stored)) as connection:
        yield connection


async def test_a_retry_resumes_at_the_users_phase(seeding: Open) -> None:
    async with seeding(sql="insert into public.made_later values (1)") as stack:
        client_id = await stack.add()
        await stack.run_until_empty()
        async with tenant_of(stack, client_id) as connection:
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


# -- finding them -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("attribute", "message"),
    [
        ("nowhere", "has no attribute 'nowhere'"),
        ("not_a_workflow", "is not a pgworker Workflow"),
    ],
)
def test_a_setting_that_names_no_workflow_is_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, attribute: str, message: str
) -> None:
    (tmp_path / "user_workflows_refused.py").write_text(MODULE.format(status=None, sql=SEED))
    monkeypatch.syspath_prepend(str(tmp_path))

    with pytest.raises(BadConfiguration, match=f"PGWORKER_WORKFLOW: .*{message}"):
        find_workflows(f"user_workflows_refused:{attribute}")


def test_a_module_that_is_not_there_is_refused_by_its_name() -> None:
    with pytest.raises(BadConfiguration, match="PGWORKER_WORKFLOW: no_such_module:flow"):
        find_workflows("no_such_module:flow")


def install(folder: Path, monkeypatch: pytest.MonkeyPatch, entry_points: dict[str, str]) -> None:
    """Make a folder on the path look like an installed package with these entry points."""
    info = folder / "acme_phases-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-phases\nVersion: 1.0\n")
    lines = [f"{name} = {value}" for name, value in entry_points.items()]
    (info / "entry_points.txt").write_text("\n".join([f"[{ENTRY_POINTS}]", *lines]))
    monkeypatch.syspath_prepend(str(folder))


@pytest.mark.parametrize("value", ["no_such_module:flow", "pgworker.workflow:nothing"])
def test_an_entry_point_that_can_not_be_imported_is_refused_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    install(tmp_path, monkeypatch, {"acme": value})

    with pytest.raises(BadConfiguration, match=r"entry point acme of pgworker\.workflows: "):
        find_workflows(None)


def test_two_phases_of_one_name_are_refused() -> None:
    with pytest.raises(BadConfiguration, match="phases need names of their own"):
        Workflow("provision", (SchemaSync(), SchemaSync()))


# -- what the docs show -----------------------------------------------------------------------


def read_block(language: str) -> str:
    """Return the one block of docs/phases.md in that language."""
    if not DOCS.exists():
        pytest.skip("the wheel brings no docs")
    (block,) = re.findall(
        rf"^```{language}\n(.*?)^```$", DOCS.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )
    return str(block)


@pytest.fixture(params=["a setting", "an entry point"])
def documented(
    request: pytest.FixtureRequest,
    database: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> AbstractAsyncContextManager[Stack]:
    """Return what opens a stack with the phases of docs/phases.md, found in both ways."""
    (tmp_path / "acme_phases.py").write_text(read_block("python"))
    monkeypatch.delitem(sys.modules, "acme_phases", raising=False)
    project = tomllib.loads(read_block("toml"))["project"]
    entry_points = project["entry-points"][ENTRY_POINTS]
    settings = {}
    if request.param == "a setting":
        monkeypatch.syspath_prepend(str(tmp_path))
        settings["PGWORKER_WORKFLOW"] = entry_points["acme"]
    else:
        install(tmp_path, monkeypatch, entry_points)
    return running_stack(database, monkeypatch, simulated={}, settings=settings)


async def test_the_example_of_the_docs_runs_as_it_stands_there(
    documented: AbstractAsyncContextManager[Stack],
) -> None:
    async with documented as stack:
        client_id = await stack.add(language="fr")
        refused = await stack.add("Globex", language="tlh")
        async with stack.running() as daemon:
            await stack.log.wait_for("job_failed")
            await stack.log.wait_for("phase_snoozed", phase="await_import")
            job = await stack.fetch_job(client_id)
            async with tenant_of(stack, client_id) as connection:
                await connection.execute(
                    "insert into public.app_settings (key, value) values ('imported_rows', '7')"
                )
            await stack.let_time_pass(seconds=60)
            await daemon

            assert job["checkpoint"]["language"] == "fr"
            async with tenant_of(stack, client_id) as connection:
                rows = await connection.fetch(
                    "select value from public.app_settings where key = 'language'"
                )
            assert rows == [{"value": "fr"}]

        assert (await stack.fetch_client(client_id))["provisioning_status"] == "ready"
        assert [entry["rows"] for entry in stack.log.find("import_found")] == [7]
        failed = await stack.fetch_job(refused)
        assert (failed["error_kind"], failed["attempts"]) == ("permanent", 1)
        assert "set it to one of de, en, fr, then retry" in failed["last_error"]


def test_every_error_that_decides_on_a_job_is_public_and_in_the_docs() -> None:
    deciding = {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, JobError) and value is not JobError
    }
    text = DOCS.read_text(encoding="utf-8") if DOCS.exists() else pytest.skip("no docs here")

    assert deciding <= set(workflow.__all__)
    assert {name for name in deciding if f"`{name}" not in text} == set()


HANGING = """
import asyncio
from datetime import timedelta

from pgworker.workflow import Done, Workflow


class Hangs:
    name = "create_project"
    client_status = None
    {timeout}
    runs = 0

    async def run(self, ctx):
        Hangs.runs += 1
        if Hangs.runs == 1:
            await asyncio.Event().wait()
        return Done()


workflow = Workflow("provision", (Hangs(),))
"""


@pytest.mark.parametrize(("own", "setting"), [("timeout = timedelta(seconds=0.2)", 900), ("", 0.2)])
async def test_a_phase_that_hangs_is_cancelled_and_tried_again(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own: str, setting: float
) -> None:
    name = f"hanging_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(HANGING.format(timeout=own))
    monkeypatch.syspath_prepend(str(tmp_path))
    settings = {
        "PGWORKER_WORKFLOW": f"{name}:workflow",
        "PGWORKER_PHASE_TIMEOUT_SECONDS": setting,
        "PGWORKER_BACKOFF_SECONDS": 0.01,
    }
    async with running_stack(database, monkeypatch, simulated=None, settings=settings) as stack:
        client_id = await stack.add()
        await stack.run_until_empty()

        job = await stack.fetch_job(client_id)
        assert job["status"] == "succeeded", job["last_error"]
        (failed,) = stack.log.find("phase_failed")
    assert failed["error_kind"] == "transient"
    assert (
        failed["error"]
        == "create_project was cancelled after 0.2 s (PGWORKER_PHASE_TIMEOUT_SECONDS)"
    )
