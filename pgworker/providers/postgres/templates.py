"""Templates of the `postgres` provider: databases with what can be copied of a canonical set.

A template is built in the background, by one worker at a time, after a tenant had to be created
without one. It is an optimisation and never a condition: when anything is wrong with it, tenants
are created from `template0`.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import secrets
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, NamedTuple

from pgworker.db.queries import load
from pgworker.db.sqlstate import ALREADY_THERE, belongs_to
from pgworker.errors import JobError, MigrationRefused, OutcomeUnknown, Permanent, Transient
from pgworker.providers.postgres.background import BackgroundTasks
from pgworker.providers.postgres.portable import created_extensions, portable_part
from pgworker.providers.postgres.scram import scram_verifier
from pgworker.providers.postgres.server import (
    POSTGRES_QUERIES,
    PostgresServer,
    identifier,
    literal,
)
from pgworker.schema.apply import apply_migrations
from pgworker.schema.directory import load_canonical_set
from pgworker.schema.migrations import CanonicalSet
from pgworker.telemetry import get_logger
from pgworker.tenants.connection import StatementError

if TYPE_CHECKING:
    from pathlib import Path

    from pgworker.tenants.connection import TenantConnection

# Part of every template's name: another number means other templates. Raise it when the way in
# which they are built, or the history table, changes.
LAYOUT: Final = 1


log = get_logger()


class TemplateQueries(NamedTuple):
    """The statements of `sql/queries/postgres_template.sql`."""

    find_template: str
    copy_template: str
    mark_used: str
    reassign_ownership: str
    lock: str
    unlock: str
    list_leftovers: str
    find_blockers: str
    disable_builder: str
    close_template: str
    publish: str
    unprotect: str
    drop_unused: str


TEMPLATE_QUERIES: Final = load(TemplateQueries, "queries/postgres_template.sql")


@dataclass(frozen=True, slots=True)
class _Recipe:
    """What a template is built from.

    Attributes:
        canonical: the whole set.
        part: its files that can be copied.
        query: finds the template.
    """

    canonical: CanonicalSet
    part: CanonicalSet
    query: str


class Templates:
    """Finds the template of the current canonical set, and builds it when there is none."""

    def __init__(self, server: PostgresServer, migrations_dir: Path) -> None:
        """Take the tenants' server and the directory of the canonical set."""
        self._server = server
        self._directory = migrations_dir
        self._recipe: _Recipe | None = None
        self._unusable: set[str] = set()
        self._build_task: asyncio.Task[None] | None = None
        self._tasks = BackgroundTasks()

    async def find(self) -> str | None:
        """Return the template to copy; when there is none, start to build it for later tenants.

        Raises:
            JobError: the server didn't answer.
        """
        recipe = await self._read_recipe()
        if recipe is None:
            return None
        async with self._server.admin() as admin:
            (found,) = await admin.fetch(recipe.query)
        template = str(found["name"])
        if not (found["is_ready"] and found["was_used_today"]):
            self._build_in_background(recipe, template, found["attempt"])
        return template if found["is_ready"] else None

    async def prepare(self) -> None:
        """Build the template unless it is there; return when no build is under way."""
        await self.wait_for_build()
        recipe = await self._read_recipe()
        if recipe is None:
            return
        async with self._server.admin() as admin:
            (found,) = await admin.fetch(recipe.query)
        if not found["is_ready"]:
            self._build_in_background(recipe, found["name"], found["attempt"])
        await self.wait_for_build()

    async def wait_for_build(self) -> None:
        """Return when no build is under way."""
        if self._build_task is not None:
            await asyncio.wait([self._build_task])

    async def aclose(self) -> None:
        """Cancel a build that is under way; the next build drops what it left."""
        await self._tasks.aclose()

    async def _read_recipe(self) -> _Recipe | None:
        """Return what to build; None when no file can be copied or the set can't be read."""
        try:
            canonical = await load_canonical_set(self._directory)
        except MigrationRefused:
            return None  # schema_sync reports it
        if self._recipe is None or self._recipe.canonical != canonical:
            self._recipe = await asyncio.to_thread(_make_recipe, canonical)
        return self._recipe if self._recipe.part.migrations else None

    # -- in the background --------------------------------------------------------------------

    def _build_in_background(self, recipe: _Recipe, name: str, attempt: str) -> None:
        """Start to build a template, or to mark it as used, unless a build is under way."""
        is_busy = self._build_task is not None and not self._build_task.done()
        if not is_busy and name not in self._unusable:
            draft = f"{name}_{attempt}{secrets.token_hex(2)}"
            self._build_task = self._tasks.start(
                self._build_or_mark(recipe, name, draft), name=f"build {name}"
            )

    async def _build_or_mark(self, recipe: _Recipe, name: str, draft: str) -> None:
        try:
            async with self._server.admin() as admin:
                if not (await admin.fetch(TEMPLATE_QUERIES.lock))[0]["is_ours"]:
                    return
                await self._drop_leftovers(admin)
                (found,) = await admin.fetch(recipe.query)
                if found["is_ready"]:
                    await admin.execute(TEMPLATE_QUERIES.mark_used.format(name=literal(name)))
                else:
                    await self._build(admin, recipe, name, draft)
                    log.info("template_built", template=name, head=recipe.part.head)
                await admin.fetch(TEMPLATE_QUERIES.unlock)
        except (JobError, StatementError) as error:
            if not isinstance(error, Transient | OutcomeUnknown):
                # It would fail again, until the set or the server changes.
                self._unusable.add(name)
            log.warning("template_build_failed", template=name, error=str(error))

    async def _build(self, admin: TenantConnection, recipe: _Recipe, name: str, draft: str) -> None:
        """Build a draft, copy it as a trial, and rename it to the template's name."""
        try:
            await self._build_draft(admin, recipe, draft)
            await self._try_copy(admin, draft)
            await admin.execute(TEMPLATE_QUERIES.mark_used.format(name=literal(draft)))
            await admin.execute(
                TEMPLATE_QUERIES.publish.format(
                    database=identifier(draft), template=identifier(name)
                )
            )
        except (JobError, StatementError):
            await self._drop(admin, draft)
            raise

    async def _build_draft(self, admin: TenantConnection, recipe: _Recipe, draft: str) -> None:
        """Build it as a tenant is built, by migrations under its own role; then close it.

        Raises:
            Permanent: it has something that a copy must not have.
        """
        password = secrets.token_urlsafe(32)
        database, verifier = identifier(draft), literal(scram_verifier(password))
        tenant = POSTGRES_QUERIES
        await admin.execute(tenant.create_roles.format(name=literal(draft)))
        await admin.execute(tenant.set_password.format(database=database, verifier=verifier))
        await admin.execute(tenant.create_database.format(database=database))
        await admin.execute(tenant.close_database.format(database=database))
        async with self._server.tenant(draft, password, keep=False) as owner:
            await apply_migrations(owner, recipe.part)
            blockers = await owner.fetch(TEMPLATE_QUERIES.find_blockers.format(name=literal(draft)))
        if blockers:
            raise Permanent("; ".join(row["reason"] for row in blockers))
        await admin.execute(TEMPLATE_QUERIES.disable_builder.format(database=database))
        await admin.execute(TEMPLATE_QUERIES.close_template.format(database=database))

    async def _try_copy(self, admin: TenantConnection, draft: str) -> None:
        """Copy the draft once, and reassign the copy to a role like a tenant's.

        Raises:
            JobError: our login isn't allowed to, or something would remain the template's.
        """
        # `trial_pgw_…`: a role called `template_pgw_…` would count as a template's.
        trial = draft.replace("template", "trial")
        await admin.execute(POSTGRES_QUERIES.create_roles.format(name=literal(trial)))
        try:
            await admin.execute(
                TEMPLATE_QUERIES.copy_template.format(
                    database=identifier(trial), template=identifier(draft)
                )
            )
            async with self._server.admin(trial) as inside:
                await reassign_ownership(inside, trial)
        except (JobError, StatementError):
            await self._drop(admin, trial)
            raise
        await self._drop(admin, trial)

    async def _drop_leftovers(self, admin: TenantConnection) -> None:
        for row in await admin.fetch(TEMPLATE_QUERIES.list_leftovers):
            await self._drop(admin, row["name"])
            log.info("template_dropped", template=row["name"])

    async def _drop(self, admin: TenantConnection, name: str) -> None:
        """Drop what exists of a template: database, role or both; a database in use stays."""
        database = identifier(name)
        for statement in (
            TEMPLATE_QUERIES.unprotect.format(database=database),
            TEMPLATE_QUERIES.drop_unused.format(database=database),
            POSTGRES_QUERIES.drop_role.format(database=database),
        ):
            with suppress(StatementError):
                await admin.execute(statement)


async def copy_template(admin: TenantConnection, template: str, name: str) -> bool:
    """Create the database as a copy of the template; return whether the template could be copied.

    The contents of a copy belong to the template's role until `reassign_ownership`.

    Raises:
        StatementError: the server can't create databases now, or the database exists.
    """
    try:
        await admin.execute(
            TEMPLATE_QUERIES.copy_template.format(
                database=identifier(name), template=identifier(template)
            )
        )
    except StatementError as error:
        if error.is_passing or belongs_to(error.sqlstate, ALREADY_THERE):
            raise
        # Another worker has just dropped the template, or a session is connected to it.
        log.warning("template_not_copied", template=template, error=error.message)
        return False
    return True


async def reassign_ownership(inside: TenantConnection, name: str) -> None:
    """Give everything in a copy to the copy's owner, and close it to others. Safe to repeat.

    Args:
        inside: our own session in the copy.
        name: of the copy, and of its owner.

    Raises:
        StatementError: the server refuses, or something would remain the template's.
    """
    await inside.execute(TEMPLATE_QUERIES.reassign_ownership.format(name=literal(name)))


def _make_recipe(canonical: CanonicalSet) -> _Recipe:
    migrations = portable_part(canonical)
    contents = [LAYOUT, [(each.version, each.name, each.text) for each in migrations]]
    fingerprint = hashlib.sha256(json.dumps(contents).encode()).hexdigest()
    extensions = created_extensions(migrations)
    query = TEMPLATE_QUERIES.find_template.format(
        fingerprint=literal(fingerprint),
        extensions=f"array[{', '.join(map(_quote, extensions))}]",
    )
    return _Recipe(canonical, replace(canonical, migrations=migrations), query)


def _quote(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
