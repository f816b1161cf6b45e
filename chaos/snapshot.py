"""What a campaign left behind, read from the databases and the simulator's ledger only."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from uuid import UUID

import asyncpg

from pgworker.errors import BadConfiguration
from pgworker.tenants.secrets import DATABASE_PASSWORD, Sealed, Vault
from tests.support.server import dsn_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Row = dict[str, Any]

# Names that the provider `postgres` gives; nothing else on the server is ours.
OUR_NAMES = "^pgw_[0-9a-f]{32}$"
CONCURRENCY = 8

DATABASES = f"""
select
    datname as name,
    pg_get_userbyid(datdba) as owner,
    not exists (
        select 1
        from aclexplode(coalesce(datacl, acldefault('d', datdba))) as granted
        where granted.grantee = 0
    ) as is_closed
from pg_database
where datname ~ '{OUR_NAMES}'
"""
ROLES = f"select rolname as name from pg_roles where rolname ~ '{OUR_NAMES}'"
TABLES = """
select format('%I.%I', schemaname, tablename) as name
from pg_tables
where schemaname in ('public', 'pgworker')
"""
HISTORY = "select version from supabase_migrations.schema_migrations order by version"
RUNS = "select version from public.runs order by version"


@dataclass(frozen=True, slots=True)
class TenantSnapshot:
    """One tenant's database, as a superuser and its own login see it.

    Attributes:
        history: recorded versions; None when there is no history.
        runs: versions of the files that ran, once for each time.
        login_error: why the stored password was refused; None when it was accepted.
    """

    history: tuple[str, ...] | None
    runs: tuple[str, ...]
    login_error: str | None


@dataclass(frozen=True, slots=True)
class PlatformSnapshot:
    """One platform's database.

    Attributes:
        secrets: by client and field, decrypted.
        decryption_errors: one for each secret that can't be decrypted.
        writes: what the witnesses recorded (witness.sql).
        texts: every row of every table, as text, by table.
    """

    name: str
    clients: Sequence[Row]
    jobs: Sequence[Row]
    events: Sequence[Row]
    intents: Sequence[Row]
    steps: Sequence[Row]
    breakers: Sequence[Row]
    writes: Sequence[Row]
    secrets: Mapping[UUID, Mapping[str, str]] = field(repr=False)
    decryption_errors: Sequence[str]
    texts: Mapping[str, str] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything that the checker reads.

    Attributes:
        tenants: of clients that are ready, by ref.
        databases, roles: ours on the tenants' server (provider `postgres`).
        ledger: of the simulator; None without one.
        logs: of workers, by name.
        foreign_secrets: values outside the vault that must not leak either: the access token.
    """

    platforms: Sequence[PlatformSnapshot]
    tenants: Mapping[str, TenantSnapshot]
    databases: Sequence[Row]
    roles: Sequence[str]
    ledger: Mapping[str, Any] | None
    logs: Mapping[str, str] = field(repr=False, default_factory=dict)
    foreign_secrets: Sequence[str] = field(repr=False, default=())


async def take_snapshot(
    platforms: Mapping[str, str],
    tenants_dsn: str,
    *,
    vault: Vault,
    ledger: Mapping[str, Any] | None,
    logs: Mapping[str, str] | None = None,
    foreign_secrets: Sequence[str] = (),
) -> Snapshot:
    """Read everything.

    Args:
        platforms: superuser's DSNs of the platforms' databases, by name.
        tenants_dsn: superuser's DSN of the tenants' server.
        vault: decrypts the tenants' secrets.
        ledger: as the simulator shows it under `/__simulator__/ledger`.
        logs: of workers, by name.
        foreign_secrets: see `Snapshot`.
    """
    read = [await _read_platform(name, dsn, vault) for name, dsn in platforms.items()]
    connection = await asyncpg.connect(tenants_dsn)
    try:
        # With a simulator, the databases and roles on the server are the simulator's.
        is_ours = ledger is None
        databases = [dict(row) for row in await connection.fetch(DATABASES)] if is_ours else []
        roles = [row["name"] for row in await connection.fetch(ROLES)] if is_ours else []
    finally:
        await connection.close()
    wanted = {
        client["project_ref"]: platform.secrets.get(client["id"], {}).get(DATABASE_PASSWORD)
        for platform in read
        for client in platform.clients
        if client["project_ref"] is not None and client["provisioning_status"] == "ready"
    }
    slots = asyncio.Semaphore(CONCURRENCY)

    async def read_tenant(ref: str, password: str | None) -> TenantSnapshot:
        async with slots:
            return await _read_tenant(tenants_dsn, ref, password, is_simulated=ledger is not None)

    found = await asyncio.gather(*(read_tenant(ref, password) for ref, password in wanted.items()))
    return Snapshot(
        platforms=read,
        tenants=dict(zip(wanted, found, strict=True)),
        databases=databases,
        roles=roles,
        ledger=ledger,
        logs=logs or {},
        foreign_secrets=foreign_secrets,
    )


async def _read_platform(name: str, dsn: str, vault: Vault) -> PlatformSnapshot:
    connection = await asyncpg.connect(dsn)
    try:

        async def rows(query: str) -> list[Row]:
            return [dict(row) for row in await connection.fetch(query)]

        await connection.set_type_codec(
            "jsonb", encoder=json.dumps, decoder=json.loads, schema="pg_catalog"
        )
        tables = [row["name"] for row in await rows(TABLES)]
        opened: dict[UUID, dict[str, str]] = {}
        decryption_errors = []
        for row in await rows("select * from pgworker.tenant_secrets"):
            sealed = Sealed(row["key_id"], row["nonce"], row["ciphertext"])
            try:
                value = vault.open(row["client_id"], row["field"], sealed)
            except BadConfiguration as error:
                decryption_errors.append(str(error))
            else:
                opened.setdefault(row["client_id"], {})[row["field"]] = value
        return PlatformSnapshot(
            name=name,
            clients=await rows("select * from public.clients order by created_at, id"),
            jobs=await rows("select * from public.client_provisioning_jobs order by id"),
            events=await rows("select * from pgworker.event_log order by id"),
            intents=await rows("select * from pgworker.intents"),
            steps=await rows("select * from pgworker.steps order by id"),
            breakers=await rows("select * from pgworker.breakers"),
            writes=await rows("select * from chaos.writes order by id"),
            secrets=opened,
            decryption_errors=decryption_errors,
            texts={
                table: "\n".join(
                    row["text"] for row in await rows(f"select t::text as text from {table} as t")
                )
                for table in tables
            },
        )
    finally:
        await connection.close()


async def _read_tenant(
    server_dsn: str, ref: str, password: str | None, *, is_simulated: bool
) -> TenantSnapshot:
    database, role = (f"simulator_{ref}", f"postgres.{ref}") if is_simulated else (ref, ref)
    dsn = dsn_of(server_dsn, database)
    try:
        connection = await asyncpg.connect(dsn)
    except asyncpg.InvalidCatalogNameError:
        return TenantSnapshot(history=None, runs=(), login_error="there is no such database")
    try:
        history = await _versions(connection, HISTORY)
        runs = await _versions(connection, RUNS)
    finally:
        await connection.close()
    try:
        own = await asyncpg.connect(dsn, user=role, password=password or "")
    except (asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        return TenantSnapshot(history, runs or (), str(error))
    await own.close()
    return TenantSnapshot(history, runs or (), None)


async def _versions(connection: asyncpg.Connection, query: str) -> tuple[str, ...] | None:
    try:
        return tuple(row["version"] for row in await connection.fetch(query))
    except (asyncpg.UndefinedTableError, asyncpg.InvalidSchemaNameError):
        return None
