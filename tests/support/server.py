"""The PostgreSQL of a test run: a named server, else a container, else an embedded one."""

from __future__ import annotations

import asyncio
import gc
import os
import secrets
import tempfile
import warnings
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import asyncpg
import docker
import pytest

from pgworker.db.embedded import EmbeddedServer, embedded_server
from pgworker.errors import PgworkerError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

DSN_VARIABLE = "PGWORKER_TEST_DSN"
IMAGE = os.environ.get("PGWORKER_TEST_IMAGE", "postgres:18-alpine")

# Without durability, which tests don't need, they are several times faster.
NOT_DURABLE = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
DOCKER_SECONDS = 2


@dataclass(frozen=True, slots=True)
class RunServer:
    """The server that every process of this run uses.

    Attributes:
        kind: its origin, as the header of the run shows it.
        run_id: part of the names of the run's databases; two runs may share a server.
        dsn: of a superuser.
    """

    kind: str
    run_id: str
    dsn: str = field(repr=False)

    def dsn_of(self, database: str) -> str:
        """Return the superuser's DSN for another database of the server."""
        return dsn_of(self.dsn, database)

    @property
    def template(self) -> str:
        """The name of the run's migrated template."""
        return f"pgworker_test_{self.run_id}_template"

    def new_database_name(self) -> str:
        """Return a name that no other database has."""
        return f"pgworker_test_{self.run_id}_{secrets.token_hex(6)}"


@contextmanager
def run_server() -> Iterator[RunServer]:
    """Provide a server for the whole run; the databases of the run are dropped at the end.

    Raises:
        pytest.UsageError: there is none.
    """
    run_id = secrets.token_hex(4)
    if named := os.environ.get(DSN_VARIABLE):
        server = RunServer(f"named by {DSN_VARIABLE}", run_id, named)
        try:
            yield server
        finally:
            asyncio.run(_drop_databases(server))
    elif _docker_answers():
        with _container() as dsn:
            yield RunServer(f"container {IMAGE}", run_id, dsn)
    else:
        with _embedded() as dsn:
            yield RunServer("embedded", run_id, dsn)


async def version_of(dsn: str) -> str:
    """Return the version of the server behind the DSN."""
    connection = await asyncpg.connect(dsn, timeout=60)
    try:
        return str(await connection.fetchval("show server_version"))
    finally:
        await connection.close()


async def make_template(server: RunServer) -> None:
    """Create the run's migrated template, unless another process of the run has done so."""
    from pgworker.db.migrate import migrate

    connection = await asyncpg.connect(server.dsn)
    try:
        # One process at a time. The name is given last: a template with this name is complete.
        await connection.execute("select pg_advisory_lock(hashtext($1))", server.template)
        if await connection.fetchval(
            "select true from pg_database where datname = $1", server.template
        ):
            return
        unfinished = f"{server.template}_unfinished"
        await connection.execute(f'drop database if exists "{unfinished}" with (force)')
        await connection.execute(f'create database "{unfinished}" template template0')
        inside = await asyncpg.connect(server.dsn_of(unfinished))
        try:
            await migrate(inside)
        finally:
            await inside.close()
        await connection.execute(f'alter database "{unfinished}" rename to "{server.template}"')
    finally:
        await connection.close()


async def create_database(
    server: RunServer, *, template: str = "template0", encoding: str | None = None
) -> str:
    """Create a database; return its name."""
    name = server.new_database_name()
    # Locale C fits every encoding.
    kind = f" encoding '{encoding}' lc_collate 'C' lc_ctype 'C'" if encoding else ""
    await _execute(server.dsn, f'create database "{name}" template "{template}"{kind}')
    return name


async def drop_database(server: RunServer, name: str) -> None:
    """Drop a database, with the sessions that are still connected to it."""
    await _execute(server.dsn, f'drop database if exists "{name}" with (force)')


def dsn_of(dsn: str, database: str) -> str:
    """Return the DSN of another database on the same server."""
    return urlsplit(dsn)._replace(path=f"/{database}").geturl()


@contextmanager
def embedded_server_blocking(
    data_dir: Path, *, settings: Mapping[str, str] | None = None
) -> Iterator[EmbeddedServer]:
    """Do what `embedded_server` does, where no event loop runs."""
    # With a factory the loop doesn't become the thread's current one, which pytest-asyncio sets.
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        server = embedded_server(data_dir, settings=settings)
        opened = runner.run(server.__aenter__())
        try:
            yield opened
        finally:
            runner.run(server.__aexit__(None, None, None))


@contextmanager
def _embedded() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="pgworker-test-") as folder:
        try:
            # `max_connections`: each worker of pytest-xdist opens pools of its own.
            settings = NOT_DURABLE | {"max_connections": "300", "shared_buffers": "64MB"}
            with embedded_server_blocking(Path(folder), settings=settings) as server:
                yield server.dsn
        except PgworkerError as error:
            raise pytest.UsageError(
                f"no PostgreSQL for the tests: set {DSN_VARIABLE} to a superuser's DSN, "
                f"start Docker, or repair the embedded one: {error}"
            ) from error


@contextmanager
def _container() -> Iterator[str]:
    from testcontainers.community.postgres import PostgresContainer

    options = " ".join(f"-c {name}={value}" for name, value in NOT_DURABLE.items())
    container = PostgresContainer(IMAGE, username="postgres", dbname="postgres", driver=None)
    with container.with_command(f"postgres -c max_connections=300 {options}") as running:
        yield running.get_connection_url()


def _docker_answers() -> bool:
    answers = False
    with warnings.catch_warnings():
        # Without a Docker daemon docker-py leaves its socket open. It is collected here, so that
        # the warning doesn't fail a test.
        warnings.simplefilter("ignore", ResourceWarning)
        with suppress(docker.errors.DockerException):
            client = docker.from_env(timeout=DOCKER_SECONDS)
            answers = bool(client.ping())
            client.close()
        gc.collect()
    return answers


async def _drop_databases(server: RunServer) -> None:
    connection = await asyncpg.connect(server.dsn)
    try:
        names = await connection.fetch(
            "select datname from pg_database where starts_with(datname, $1)",
            f"pgworker_test_{server.run_id}_",
        )
        for (name,) in names:
            await connection.execute(f'drop database "{name}" with (force)')
    finally:
        await connection.close()


async def _execute(dsn: str, statement: str) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()
