"""`pgworker reconcile`, as a process against a simulator."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import subprocess
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from pgworker.simulator import Answer, Simulator, SimulatorSettings, running_simulator
from tests.cli.conftest import PROGRAM
from tests.support.stack import build_environment

Pgworker = Callable[..., "subprocess.CompletedProcess[str]"]
Sql = Callable[..., Any]

KEYS = [
    *("kind", "provider", "message", "advice", "ref", "name", "client_id", "client_name"),
    *("created_at", "remedy", "is_deletable", "outcome"),
]


class Scene:
    """A platform with its simulator, and the command that looks at both."""

    def __init__(self, pgworker: Pgworker, simulator: Simulator, database: str) -> None:
        self._pgworker = pgworker
        self.simulator = simulator
        self.variables = {
            name: str(value) for name, value in build_environment(simulator).items()
        } | {"DATABASE_URL": database}

    async def run(self, *arguments: str, **changes: str | None) -> Any:
        """Run a command; the simulator goes on meanwhile."""
        return await asyncio.to_thread(self._pgworker, *arguments, **self.variables | changes)

    async def findings(self, *arguments: str) -> list[dict[str, Any]]:
        told = await self.run("reconcile", "--json", *arguments)
        assert told.stderr == ""
        found: list[dict[str, Any]] = json.loads(told.stdout)
        return found

    def plant(self) -> str:
        return self.simulator.projects.plant(f"pgworker-{uuid4()}").ref

    def is_there(self, ref: str) -> bool:
        return any(
            project.ref == ref and status != "VANISHED"
            for project, status in self.simulator.projects.listed()
        )


@pytest.fixture
async def scene(pgworker: Pgworker, database: str) -> AsyncIterator[Scene]:
    async with running_simulator(SimulatorSettings(admin_dsn=database)) as simulator:
        yield Scene(pgworker, simulator, database)


@pytest.fixture
async def ready(scene: Scene, sql: Sql, database: str) -> str:
    """The ref of a client that was really provisioned."""
    await sql(database, "insert into clients (name, auto_provision) values ('Acme', true)")
    told = await scene.run("run", "--drain", PGWORKER_PROJECT_POLL_SECONDS="0.05")
    assert told.returncode == 0, told.stderr
    (row,) = await sql(database, "select project_ref from clients")
    return str(row["project_ref"])


async def test_nothing_amiss_is_exit_code_0_and_an_empty_list(scene: Scene, ready: str) -> None:
    told = await scene.run("reconcile")
    assert (told.returncode, told.stdout) == (0, "")
    assert "nothing is amiss" in told.stderr
    assert await scene.findings() == []


async def test_a_finding_is_exit_code_1_and_a_line_with_what_to_do(
    scene: Scene, ready: str
) -> None:
    ref = scene.plant()
    for arguments in ((), ("--fix",)):
        told = await scene.run("reconcile", *arguments)
        assert told.returncode == 1
        header, line = told.stdout.splitlines()
        assert header.split("  ")[0] == "finding"
        assert "what to do" in header
        assert line.startswith("orphan")
        assert f"pgworker reconcile --delete {ref}" in line
        assert ready not in told.stdout
    assert scene.is_there(ref), "it is not ours to delete"


async def test_findings_as_json_have_stable_keys(scene: Scene) -> None:
    ref = scene.plant()
    (finding,) = await scene.findings()
    assert list(finding) == KEYS
    assert (finding["kind"], finding["ref"], finding["outcome"]) == ("orphan", ref, None)
    assert finding["is_deletable"] is True


async def test_a_fix_says_what_it_did_and_leaves_with_0_when_nothing_is_left(
    scene: Scene, ready: str, sql: Sql, database: str
) -> None:
    await sql(database, "update clients set project_ref = null")
    assert (await scene.run("reconcile")).returncode == 1

    told = await scene.run("reconcile", "--fix")

    assert told.returncode == 0, told.stderr
    assert told.stdout.startswith("fixed: client 'Acme' shows no ref")
    (row,) = await sql(database, "select project_ref from clients")
    assert row["project_ref"] == ready


async def test_only_what_is_named_is_deleted_and_only_when_nobody_owns_it(
    scene: Scene, ready: str
) -> None:
    doomed, spared = scene.plant(), scene.plant()
    for refs in (("--delete", ready), ("--delete", doomed, "--delete", "unheard-of")):
        told = await scene.run("reconcile", *refs, "--yes")
        assert told.returncode == 1
        assert "nothing was deleted" in told.stderr
        assert scene.is_there(doomed)

    told = await scene.run("reconcile", "--delete", doomed, "--yes")

    assert (told.returncode, told.stdout) == (0, f"{doomed}: deleted\n")
    assert not scene.is_there(doomed)
    assert scene.is_there(spared)
    assert scene.is_there(ready)


async def test_several_are_deleted_at_once_and_one_that_fails_stops_no_other(scene: Scene) -> None:
    refs = [scene.plant() for _ in range(3)]
    scene.simulator.faults.order(operation="delete_project", fault=Answer(500), project=refs[0])
    named = [argument for ref in refs for argument in ("--delete", ref)]

    told = await scene.run("reconcile", *named, "--yes", "--json")

    assert told.returncode == 1
    assert refs[0] in told.stderr
    deleted = json.loads(told.stdout)
    assert [(each["ref"], each["outcome"]) for each in deleted] == [
        (ref, "deleted") for ref in refs[1:]
    ]
    assert [scene.is_there(ref) for ref in refs] == [True, False, False]


@pytest.mark.parametrize(("answer", "code", "is_deleted"), [("y\n", 0, True), ("n\n", 1, False)])
async def test_somebody_at_a_terminal_is_asked_first(
    scene: Scene,
    environment: dict[str, str],
    tmp_path: Path,
    answer: str,
    code: int,
    is_deleted: bool,
) -> None:
    ref = scene.plant()
    keyboard, terminal = pty.openpty()
    try:
        process = await asyncio.create_subprocess_exec(
            *(PROGRAM, "reconcile", "--delete", ref),
            cwd=tmp_path,
            env=environment | scene.variables,
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
    assert scene.is_there(ref) is not is_deleted


async def test_without_a_terminal_nobody_is_taken_for_having_said_yes(scene: Scene) -> None:
    ref = scene.plant()
    told = await scene.run("reconcile", "--delete", ref)
    assert told.returncode == 2
    assert "give --yes" in told.stderr
    assert scene.is_there(ref)


async def test_a_listing_that_fails_on_its_second_page_is_told_and_no_project_is_called_gone(
    scene: Scene, ready: str
) -> None:
    (project,) = scene.simulator.projects.all()
    project.becomes("VANISHED", at=0)
    for number in range(120):
        scene.simulator.projects.plant(f"customer {number}")
    scene.simulator.faults.order(
        operation="list_organization_projects",
        fault=Answer(500),
        times=None,
        query={"offset": "[1-9]*"},
    )
    told = await scene.run("reconcile")
    assert told.returncode == 1
    assert "provider supabase could not be looked at" in told.stdout
    assert ready not in told.stdout
    assert [each["kind"] for each in await scene.findings()] == ["unseen"]


async def test_a_provider_that_is_not_configured_is_a_line_and_no_crash(scene: Scene) -> None:
    for arguments in ((), ("--provider", "supabase")):
        told = await scene.run("reconcile", *arguments, SUPABASE_ACCESS_TOKEN=None)
        assert told.returncode == 1
        assert "SUPABASE_ACCESS_TOKEN is not set" in told.stdout
        assert "Traceback" not in told.stderr


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


def test_a_platform_that_is_away_is_exit_code_69(pgworker: Pgworker) -> None:
    told = pgworker("reconcile", DATABASE_URL="postgresql://u:hunter2@127.0.0.1:1/x")
    assert told.returncode == 69
    assert "hunter2" not in told.stderr
