"""`pgworker reconcile`, as a process against a simulator."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from pgworker.simulator import Answer, Simulator, SimulatorSettings, running_simulator
from tests.cli.conftest import PROGRAM, Pgworker, Sql
from tests.support.stack import build_environment

KEYS = [
    *("kind", "provider", "message", "advice", "ref", "name", "client_id", "client_name"),
    *("created_at", "remedy", "is_deletable", "outcome"),
]


class Setup:
    """A platform with its simulator, and the command that compares them."""

    def __init__(self, pgworker: Pgworker, simulator: Simulator, database: str) -> None:
        self._pgworker = pgworker
        self.simulator = simulator
        self.variables = {
            name: str(value) for name, value in build_environment(simulator).items()
        } | {"DATABASE_URL": database}

    async def run(self, *arguments: str, **changes: str | None) -> Any:
        """Run a command in a thread, so that the simulator keeps answering."""
        return await asyncio.to_thread(self._pgworker, *arguments, **self.variables | changes)

    async def findings(self, *arguments: str) -> list[dict[str, Any]]:
        result = await self.run("reconcile", "--json", *arguments)
        assert result.stderr == ""
        found: list[dict[str, Any]] = json.loads(result.stdout)
        return found

    def plant(self) -> str:
        return self.simulator.projects.plant(f"pgworker-{uuid4()}").ref

    def is_there(self, ref: str) -> bool:
        return any(
            project.ref == ref and status != "VANISHED"
            for project, status in self.simulator.projects.listed()
        )


@pytest.fixture
async def setup(pgworker: Pgworker, database: str) -> AsyncIterator[Setup]:
    async with running_simulator(SimulatorSettings(admin_dsn=database)) as simulator:
        yield Setup(pgworker, simulator, database)


@pytest.fixture
async def ready(setup: Setup, sql: Sql, database: str) -> str:
    """The ref of a client that was really provisioned."""
    await sql(database, "insert into clients (name, auto_provision) values ('Acme', true)")
    result = await setup.run("run", "--drain", PGWORKER_PROJECT_POLL_SECONDS="0.05")
    assert result.returncode == 0, result.stderr
    (row,) = await sql(database, "select project_ref from clients")
    return str(row["project_ref"])


async def test_no_difference_is_exit_code_0_and_an_empty_list(setup: Setup, ready: str) -> None:
    result = await setup.run("reconcile")
    assert (result.returncode, result.stdout) == (0, "")
    assert "no differences" in result.stderr
    assert await setup.findings() == []


async def test_a_finding_is_exit_code_1_and_a_line_with_what_to_do(
    setup: Setup, ready: str
) -> None:
    ref = setup.plant()
    for arguments in ((), ("--fix",)):
        result = await setup.run("reconcile", *arguments)
        assert result.returncode == 1
        header, line = result.stdout.splitlines()
        assert header.split("  ")[0] == "finding"
        assert "what to do" in header
        assert line.startswith("orphan")
        assert f"pgworker reconcile --delete {ref}" in line
        assert ready not in result.stdout
    assert setup.is_there(ref), "it is not ours to delete"


async def test_findings_as_json_have_stable_keys(setup: Setup) -> None:
    ref = setup.plant()
    (finding,) = await setup.findings()
    assert list(finding) == KEYS
    assert (finding["kind"], finding["ref"], finding["outcome"]) == ("orphan", ref, None)
    assert finding["is_deletable"] is True


async def test_a_fix_says_what_it_did_and_exits_0_when_no_finding_remains(
    setup: Setup, ready: str, sql: Sql, database: str
) -> None:
    await sql(database, "update clients set project_ref = null")
    assert (await setup.run("reconcile")).returncode == 1

    result = await setup.run("reconcile", "--fix")

    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("fixed: client 'Acme' shows no ref")
    (row,) = await sql(database, "select project_ref from clients")
    assert row["project_ref"] == ready


async def test_only_a_named_tenant_is_deleted_and_only_when_no_client_owns_it(
    setup: Setup, ready: str
) -> None:
    named, other = setup.plant(), setup.plant()
    for refs in (("--delete", ready), ("--delete", named, "--delete", "unknown-ref")):
        result = await setup.run("reconcile", *refs, "--yes")
        assert result.returncode == 1
        assert "nothing was deleted" in result.stderr
        assert setup.is_there(named)

    result = await setup.run("reconcile", "--delete", named, "--yes")

    assert (result.returncode, result.stdout) == (0, f"{named}: deleted\n")
    assert not setup.is_there(named)
    assert setup.is_there(other)
    assert setup.is_there(ready)


async def test_several_are_deleted_at_once_and_one_that_fails_stops_no_other(setup: Setup) -> None:
    refs = [setup.plant() for _ in range(3)]
    setup.simulator.faults.order(operation="delete_project", fault=Answer(500), project=refs[0])
    named = [argument for ref in refs for argument in ("--delete", ref)]

    result = await setup.run("reconcile", *named, "--yes", "--json")

    assert result.returncode == 1
    assert refs[0] in result.stderr
    deleted = json.loads(result.stdout)
    assert [(each["ref"], each["outcome"]) for each in deleted] == [
        (ref, "deleted") for ref in refs[1:]
    ]
    assert [setup.is_there(ref) for ref in refs] == [True, False, False]


@pytest.mark.parametrize(("answer", "code", "is_deleted"), [("y\n", 0, True), ("n\n", 1, False)])
async def test_a_person_at_a_terminal_is_asked_first(
    setup: Setup,
    environment: dict[str, str],
    tmp_path: Path,
    answer: str,
    code: int,
    is_deleted: bool,
) -> None:
    ref = setup.plant()
    keyboard, terminal = pty.openpty()
    try:
        process = await asyncio.create_subprocess_exec(
            *(PROGRAM, "reconcile", "--delete", ref),
            cwd=tmp_path,
            env=environment | setup.variables,
            stdin=terminal,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        os.write(keyboard, answer.encode())
        async with asyncio.timeout(60):
            _, asked = await process.communicate()
    finally:
        os.close(keyboard)
        os.close(terminal)

    assert process.returncode == code
    assert f"Delete for good, with all data: {ref}?" in asked.decode()
    assert "no client here has the id" in asked.decode()
    assert setup.is_there(ref) is not is_deleted


async def test_without_a_terminal_nothing_is_deleted_unless_yes_is_given(setup: Setup) -> None:
    ref = setup.plant()
    result = await setup.run("reconcile", "--delete", ref)
    assert result.returncode == 2
    assert "give --yes" in result.stderr
    assert setup.is_there(ref)


async def test_a_listing_that_fails_on_its_second_page_is_reported_and_no_project_is_called_gone(
    setup: Setup, ready: str
) -> None:
    (project,) = setup.simulator.projects.all()
    project.enter("VANISHED", at=0)
    for number in range(120):
        setup.simulator.projects.plant(f"customer {number}")
    setup.simulator.faults.order(
        operation="list_organization_projects",
        fault=Answer(500),
        times=None,
        query={"offset": "[1-9]*"},
    )
    result = await setup.run("reconcile")
    assert result.returncode == 1
    assert "provider supabase could not be inspected" in result.stdout
    assert ready not in result.stdout
    assert [each["kind"] for each in await setup.findings()] == ["unseen"]


async def test_a_provider_that_is_not_configured_is_a_finding_and_no_crash(setup: Setup) -> None:
    for arguments in ((), ("--provider", "supabase")):
        result = await setup.run("reconcile", *arguments, SUPABASE_ACCESS_TOKEN=None)
        assert result.returncode == 1
        assert "SUPABASE_ACCESS_TOKEN is not set" in result.stdout
        assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("--provider", "heroku"),
        ("--fix", "--delete", "x"),
        ("--yes",),
    ],
)
def test_a_call_that_makes_no_sense_is_refused(pgworker: Pgworker, arguments: list[str]) -> None:
    assert pgworker("reconcile", *arguments).returncode == 2


def test_an_unreachable_platform_is_exit_code_69(pgworker: Pgworker) -> None:
    result = pgworker("reconcile", DATABASE_URL="postgresql://u:hunter2@127.0.0.1:1/x")
    assert result.returncode == 69
    assert "hunter2" not in result.stderr
