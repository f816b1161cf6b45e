"""Assertions about a tenant's schema: the set's own `smoke/*.sql`, and row level security."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple

from pgworker.db.queries import load
from pgworker.db.sqlstate import CHECK_PASSING, NOT_TRUE
from pgworker.errors import OutcomeUnknown, SmokeCheckFailed
from pgworker.schema.scripts import fill, quote
from pgworker.schema.splitter import find_statements
from pgworker.tenants.connection import StatementError, as_job_errors

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from pathlib import Path

    from pgworker.schema.migrations import CanonicalSet
    from pgworker.tenants.connection import TenantConnection


class SmokeQueries(NamedTuple):
    """The statements of `sql/queries/tenant_smoke.sql`."""

    versions_that_differ: str
    tables_without_row_level_security: str
    assert_rows: str


_QUERIES: Final = load(SmokeQueries, "queries/tenant_smoke.sql")


async def all_checks_pass(connection: TenantConnection, canonical: CanonicalSet) -> bool:
    """Run in one call the checks that the functions below run one by one, and the history's.

    False means only that a check failed, or can't be run now: which one and why, each check says
    by itself.

    Raises:
        SmokeCheckFailed: a file of the assertions can't be used.
    """
    # Versions are digits, by the names of the files: nothing to quote.
    versions = ", ".join(f"'{migration.version}'" for migration in canonical.migrations)
    scripts = (
        _script("history", _QUERIES.versions_that_differ.format(versions=f"array[{versions}]")),
        _script("row level security", _QUERIES.tables_without_row_level_security),
        *_read_scripts(canonical.smoke_directory).values(),
    )
    try:
        await connection.execute("".join(scripts))
    except (StatementError, OutcomeUnknown):
        # Which check it was, and whether it fails for good, only the checks one by one can say.
        return False
    return True


async def run_smoke_assertions(connection: TenantConnection, directory: Path) -> tuple[str, ...]:
    """Run every `*.sql` of a directory, one query in each; return the names of the files.

    An assertion holds when its query returns no row, or only rows whose first column is the
    boolean true. They run in a read-only transaction with time-outs, so that they are safe
    to repeat. A directory that isn't there has no assertion.

    Args:
        connection: to the tenant.
        directory: `smoke` in the directory of the migrations.

    Raises:
        SmokeCheckFailed: names the file, and the row as JSON (cut): have an assertion select only
            what may stand in `clients.provisioning_error`.
        Transient: the tenant was busy or couldn't be reached.
    """
    scripts = _read_scripts(directory)
    for file, script in scripts.items():
        with _as_check(f"smoke/{file}"):
            await connection.execute(script)
    return tuple(scripts)


async def check_row_level_security(connection: TenantConnection) -> None:
    """Check that every table of the schema `public` has row level security.

    Raises:
        SmokeCheckFailed: names the tables without it.
        Transient: the tenant was busy or couldn't be reached.
    """
    with _as_check("row level security"):
        rows = await connection.fetch(_QUERIES.tables_without_row_level_security)
    if rows:
        names = ", ".join(f"public.{row['name']}" for row in rows)
        raise SmokeCheckFailed(
            f"row level security is off: {names}; add a migration that enables it"
        )


def _read_scripts(directory: Path) -> dict[str, str]:
    files = sorted(directory.glob("*.sql")) if directory.is_dir() else []
    return {file.name: _script(file.name, _read(file)) for file in files}


def _read(file: Path) -> str:
    try:
        return file.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SmokeCheckFailed(f"smoke/{file.name} is not UTF-8: save it as UTF-8") from error
    except OSError as error:
        raise SmokeCheckFailed(f"smoke/{file.name} can't be read: {error.strerror}") from error


def _require_one_query(file: str, text: str) -> str:
    queries = find_statements(text)
    if len(queries) != 1 or "\0" in text:
        raise SmokeCheckFailed(
            f"smoke/{file} holds {len(queries)} statements: it must be exactly one query"
        )
    return queries[0].text


# Every job needs the same ones.
@lru_cache(maxsize=256)
def _script(file: str, text: str) -> str:
    """Return a script that fails unless the assertion holds; it leaves nothing behind.

    One call, because the Management API keeps no session between two.
    """
    query = quote(_require_one_query(file, text))
    return f"{fill(_QUERIES.assert_rows, query=query, not_true=NOT_TRUE)}\n"


def _as_check(name: str) -> AbstractContextManager[None]:
    return as_job_errors(name, passing=CHECK_PASSING, lasting=SmokeCheckFailed)
