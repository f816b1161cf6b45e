"""What is there before pgworker's schema is applied: the table `clients`, and our rights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from pgworker.db.queries import load
from pgworker.models import ClientStatus

if TYPE_CHECKING:
    from pgworker.db.pool import Connection


class AdoptionQueries(NamedTuple):
    """The statements of `sql/queries/adoption.sql`."""

    surroundings: str
    table_facts: str
    columns: str
    unique_indexes: str
    status_checks: str
    refused_statuses: str
    secured_tables: str
    policies: str


ADOPTION_QUERIES = load(AdoptionQueries, "queries/adoption.sql")


class Surroundings(NamedTuple):
    """The role that we are, what it may do in this database, and what is there already.

    Attributes:
        may_use_schema: may create in schema `pgworker`; None while there is no such schema.
    """

    role: str
    database: str
    has_clients: bool
    has_jobs: bool
    has_schema: bool
    has_history: bool
    may_create_schemas: bool
    may_use_schema: bool | None
    may_create_tables: bool


class Table(NamedTuple):
    """The relation `public.clients`.

    Attributes:
        kind: `relkind` of `pg_class`.
        persistence: `relpersistence` of `pg_class`.
        partition_key: as `HASH (id)`; empty when the table isn't partitioned.
        is_typed: made of a composite type, so that it can't get columns of its own.
        children: tables that inherit from it, other than partitions.
        rules: names of its rules for inserts and updates.
        missing_privileges: of those that pgworker needs on it.
    """

    kind: str
    persistence: str
    is_partition: bool
    partition_key: str
    is_typed: bool
    owner: str
    is_owner: bool
    takes_fillfactor: bool
    estimated_rows: int
    size_bytes: int
    children: list[str]
    rules: list[str]
    missing_privileges: list[str]


class Column(NamedTuple):
    """A column of `clients`.

    Attributes:
        type: its `typname`.
        declared: its type as one writes it.
        length: of a `varchar(n)`; None for all others.
        default_value: the expression; empty when there is none.
    """

    name: str
    type: str
    declared: str
    length: int | None = None
    is_generated: bool = False
    is_not_null: bool = False
    has_default: bool = False
    default_value: str = ""


class UniqueIndex(NamedTuple):
    """A unique index of `clients`; the place of an expression among its columns is empty."""

    name: str
    columns: list[str]
    is_primary: bool = False
    is_immediate: bool = True
    is_valid: bool = True
    is_partial: bool = False


class StatusCheck(NamedTuple):
    """A check of `clients`, and the statuses of ours that it refuses."""

    name: str
    refused: tuple[str, ...]


class SecuredTable(NamedTuple):
    """A table whose row level security applies to the role that we are."""

    name: str
    owner: str
    is_owner: bool


class Policy(NamedTuple):
    """A policy that applies to the role that we are.

    Attributes:
        command: `polcmd` of `pg_policy`: r, a, w, d, or * for all.
        shown_if, stored_if: its `using` and its `with check`; empty when there is none.
    """

    table_name: str
    command: str
    is_permissive: bool
    shown_if: str
    stored_if: str


@dataclass(frozen=True, slots=True)
class Security:
    """Row level security, as far as it applies to the role that we are."""

    role: str
    tables: tuple[SecuredTable, ...] = ()
    policies: tuple[Policy, ...] = ()


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything that decides whether pgworker's schema can be applied here.

    Attributes:
        table: None when there is no `clients` yet.
        columns: of `clients`, by their names.
    """

    surroundings: Surroundings
    security: Security
    table: Table | None = None
    columns: dict[str, Column] | None = None
    unique_indexes: tuple[UniqueIndex, ...] = ()
    status_checks: tuple[StatusCheck, ...] = ()


async def read_facts(connection: Connection) -> Facts:
    """Read what is there; changes nothing."""
    row = await connection.fetchrow(ADOPTION_QUERIES.surroundings)
    surroundings = Surroundings(**dict(row))
    security = await read_security(connection)
    row = await connection.fetchrow(ADOPTION_QUERIES.table_facts)
    if row is None:
        return Facts(surroundings, security)
    columns = [Column(**dict(each)) for each in await connection.fetch(ADOPTION_QUERIES.columns)]
    return Facts(
        surroundings,
        security,
        Table(**dict(row)),
        {column.name: column for column in columns},
        tuple(
            UniqueIndex(**dict(each))
            for each in await connection.fetch(ADOPTION_QUERIES.unique_indexes)
        ),
        await _read_status_checks(connection),
    )


async def read_security(connection: Connection) -> Security:
    """Read which row level security applies to the role that we are."""
    role = await connection.fetchval("select current_user::text")
    tables = [
        SecuredTable(**dict(row)) for row in await connection.fetch(ADOPTION_QUERIES.secured_tables)
    ]
    if not tables:
        return Security(role)
    policies = await connection.fetch(ADOPTION_QUERIES.policies, [table.name for table in tables])
    return Security(role, tuple(tables), tuple(Policy(**dict(row)) for row in policies))


async def _read_status_checks(connection: Connection) -> tuple[StatusCheck, ...]:
    found = []
    for check in await connection.fetch(ADOPTION_QUERIES.status_checks):
        query = ADOPTION_QUERIES.refused_statuses.format(
            type=check["type"], expression=check["expression"]
        )
        rows = await connection.fetch(query, [status.value for status in ClientStatus])
        found.append(StatusCheck(check["name"], tuple(row["status"] for row in rows)))
    return tuple(found)
