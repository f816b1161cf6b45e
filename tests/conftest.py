"""Fixtures of all tests."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings

from tests.support.jobs import JobsInTest, jobs_in
from tests.support.server import (
    RunServer,
    create_database,
    drop_database,
    make_template,
    run_server,
    version_of,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

# Makes `chaos` and `bench` importable, which aren't installed. At the end of the path, so that the
# installed package (the wheel, in `make test-wheel`) stays in front of the checkout.
sys.path.append(str(Path(__file__).parents[1]))

# A slow example is no failure.
settings.register_profile(
    "no deadline", settings.default, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("no deadline")

SERVER = pytest.StashKey[RunServer]()

# -- one PostgreSQL for the run ---------------------------------------------------------------


@pytest.hookimpl(tryfirst=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    """Start the server before pytest-xdist starts its workers, which use the same one."""
    # A shell lets background jobs ignore SIGINT. The processes that tests send it to would inherit
    # that.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    config = session.config
    workerinput = getattr(config, "workerinput", None)
    if workerinput is not None:
        config.stash[SERVER] = RunServer(**workerinput["server"])
    elif not config.option.collectonly:
        stack = ExitStack()
        config.add_cleanup(stack.close)  # runs after Ctrl-C too
        config.stash[SERVER] = stack.enter_context(run_server())


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Pass the server to a worker of pytest-xdist."""
    server = node.config.stash[SERVER]
    node.workerinput["server"] = {
        "kind": server.kind,
        "run_id": server.run_id,
        "dsn": server.dsn,
    }


def pytest_report_header(config: pytest.Config) -> str | None:
    """Name the PostgreSQL that the tests use."""
    if SERVER not in config.stash:
        return None
    server = config.stash[SERVER]
    return f"postgresql: {asyncio.run(version_of(server.dsn))} ({server.kind})"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """List in the last lines what did not run, and why."""
    # A report's longrepr is (file, line, reason) when it was skipped.
    reasons = Counter(
        report.longrepr[2].removeprefix("Skipped: ")
        for report in terminalreporter.stats.get("skipped", [])
    )
    for reason, count in reasons.most_common():
        terminalreporter.write_line(f"NOT RUN: {count} tests: {reason}")


@pytest.fixture(scope="session")
def server(pytestconfig: pytest.Config) -> RunServer:
    return pytestconfig.stash[SERVER]


@pytest.fixture(scope="session")
def server_dsn(server: RunServer) -> str:
    """The superuser's DSN of the run's server."""
    return server.dsn


@pytest.fixture
async def empty_database(server: RunServer) -> AsyncIterator[str]:
    """The superuser's DSN of a fresh, empty database."""
    name = await create_database(server)
    yield server.dsn_of(name)
    await drop_database(server, name)


@pytest.fixture
async def database(server: RunServer) -> AsyncIterator[str]:
    """The superuser's DSN of a fresh database with pgworker's own schema."""
    await make_template(server)
    name = await create_database(server, template=server.template)
    yield server.dsn_of(name)
    await drop_database(server, name)


@pytest.fixture
async def jobs(database: str) -> AsyncIterator[JobsInTest]:
    """The queue of a fresh, migrated database, with connections for many at once."""
    async with jobs_in(database, max_size=20) as opened:
        yield opened
