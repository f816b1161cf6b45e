"""The examples of the README are run exactly as printed."""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import signal
import sys
import textwrap
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import asyncpg
import pytest

from tests.support.clusters import running_server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
ROLES = """
do $$ begin
    create role anon nologin; create role authenticated nologin; create role service_role nologin;
exception when duplicate_object or unique_violation then null;
end $$
"""

pytestmark = pytest.mark.skipif(not README.exists(), reason="the wheel brings no README")


def blocks(language: str) -> list[str]:
    """Return the fenced blocks of the README in that language."""
    text = README.read_text(encoding="utf-8")
    found = re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert found, f"the README has no {language} any more"
    return found


async def pgworker(command: str, env: dict[str, str]) -> str:
    """Run one line of a console block; return what it prints."""
    process = await asyncio.create_subprocess_exec(
        "bash",
        "-c",
        command,
        env=env,
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), 120)
    assert process.returncode == 0, f"{command}: exit {process.returncode}: {err.decode()}"
    return out.decode()


@asynccontextmanager
async def running(command: str, env: dict[str, str]) -> AsyncIterator[None]:
    """Run the daemon until the block ends, then stop it as a container is stopped."""
    process = await asyncio.create_subprocess_exec(
        *shlex.split(command), env=env, cwd=ROOT, stderr=asyncio.subprocess.PIPE
    )
    assert process.stderr is not None
    try:
        async with asyncio.timeout(60):
            while b"listen_connected" not in await process.stderr.readline():
                pass
        drained = asyncio.create_task(process.stderr.read())
        yield
        process.send_signal(signal.SIGTERM)
        await drained
        assert await asyncio.wait_for(process.wait(), 60) == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_the_commands_of_the_readme_work_in_their_order() -> None:
    # A server of its own: `pgworker reconcile` finds what other tests make on theirs.
    async with running_server() as server:
        await _run_the_commands(server.dsn)


async def _run_the_commands(dsn: str) -> None:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    env = os.environ | {"PATH": path, "PGWORKER_PROVIDER": "postgres"}
    start, use = blocks("console")
    lines = [line.removeprefix("$ ") for line in (start + use).splitlines()]
    for line in lines:
        if line.startswith("export "):
            name, _, value = line.removeprefix("export ").partition("=")
            if name == "DATABASE_URL":
                env[name] = dsn
            else:
                env[name] = (await pgworker(f"echo {value}", env)).strip()
    commands = [line for line in lines if not line.startswith("export ")]
    daemon = commands.index("pgworker run")
    for command in commands[:daemon]:
        await pgworker(command, env)
    async with running(commands[daemon], env):
        answers = {command: await pgworker(command, env) for command in commands[daemon + 1 :]}
    assert any("Globex" in answer for answer in answers.values())
    connection = await asyncpg.connect(dsn)
    assert await connection.fetchval("select count(*) from clients where name = 'Globex'") == 1
    await connection.close()


async def test_the_sql_of_the_readme_adds_a_client_and_shows_it(database: str) -> None:
    connection = await asyncpg.connect(database)
    for block in blocks("sql"):
        await connection.execute(block)
    assert await connection.fetchval("select count(*) from pgworker.client_status") == 1
    assert await connection.fetchval("select status from client_provisioning_jobs") == "queued"
    await connection.close()


async def test_the_python_of_the_readme_brings_a_database_to_the_canonical_schema(
    empty_database: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    connection = await asyncpg.connect(empty_database)
    await connection.execute(ROLES)
    await connection.close()
    for block in blocks("python"):
        scope = {"tenant_dsn": empty_database}
        exec(f"async def example():\n{textwrap.indent(block, '    ')}", scope)
        await scope["example"]()  # type: ignore[operator]  # made by the line above
    newest = max(path.name for path in (ROOT / "supabase/migrations").glob("*.sql"))
    assert capsys.readouterr().out.strip() == newest.partition("_")[0]
