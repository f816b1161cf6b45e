"""Templates of the `postgres` provider: databases that hold what can be copied of a canonical set.

A template is made in the background, by one worker at a time, when a tenant had to do without. It
is an aid and never a condition: whatever is wrong with it, tenants are made from `template0`.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import secrets
from contextlib import suppress
from contextvars import Context
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, NamedTuple

from pgworker.db.queries import load
from pgworker.db.sqlstate import ALREADY_THERE, belongs_to
from pgworker.errors import JobError, MigrationRefused, OutcomeUnknown, Permanent, Transient
from pgworker.providers.postgres.portable import created_extensions, portable_part
from pgworker.providers.postgres.scram import scram_verifier
from pgworker.providers.postgres.server import PostgresServer, identifier, literal
from pgworker.schema.apply import apply_migrations
from pgworker.schema.directory import load_canonical_set
from pgworker.schema.migrations import CanonicalSet
from pgworker.telemetry import get_logger
from pgworker.tenants.connection import StatementError

if TYPE_CHECKING:
    from pathlib import Path

    from pgworker.providers.postgres.provider import PostgresQueries
    from pgworker.tenants.connection import TenantConnection

# Part of every template's name: another number makes other templates. Raise it when the way in
# which they are made, or the history table, changes.
LAYOUT: Final = 1


log = get_logger()


class TemplateQueries(NamedTuple):
    """The statements of `sql/queries/postgres_template.sql`."""

    find_template: str
    copy: str
    use: str
    take_over: str
    lock: str
    unlock: str
    list_leftovers: str
    objections: str
    retire_maker: str
    close_template: str
    publish: str
    unprotect: str
    drop_unused: str


QUERIES: Final = load(TemplateQueries, "queries/postgres_template.sql")


@dataclass(frozen=True, slots=True)
class _Recipe:
    """What a template is made of.

    Attributes:
        canonical: what it comes from.
        part: of it, that can be copied.
        look: the query that finds the template.
    """

    canonical: CanonicalSet
    part: CanonicalSet
    look: str


class Templates:
    """Finds the template of the present canonical set, and makes it when there is none."""

    def __init__(
        self, server: PostgresServer, migrations_dir: Path, makers: PostgresQueries
    ) -> None:
        """Take the server, the canonical set, and how tenants are made on it."""
        self._server = server
        self._directory = migrations_dir
        self._makers = makers
        self._recipe: _Recipe | None = None
        self._given_up: set[str] = set()
        self._tending: asyncio.Task[None] | None = None

    async def find(self) -> str | None:
        """Return the template to copy; where there is none, see to it that there is one later.

        Raises:
            JobError: the server can't tell now.
        """
        recipe = await self._read()
        if recipe is None:
            return None
        async with self._server.admin() as admin:
            (found,) = await admin.fetch(recipe.look)
        template = str(found["name"])
        if not (found["is_ready"] and found["was_used_today"]):
            self._tend(recipe, template, found["attempt"])
        return template if found["is_ready"] else None

    async def prepare(self) -> None:
        """Return when what is done in the background is done, and there is a template if can be."""
        await self._settle()
        recipe = await self._read()
        if recipe is None:
            return
        async with self._server.admin() as admin:
            (found,) = await admin.fetch(recipe.look)
        if not found["is_ready"]:
            self._tend(recipe, found["name"], found["attempt"])
        await self._settle()

    async def aclose(self) -> None:
        """Stop what is done in the background; the next maker clears it away."""
        if self._tending is not None:
            self._tending.cancel()
        await self._settle()

    async def _settle(self) -> None:
        if self._tending is not None:
            await asyncio.wait([self._tending])

    async def _read(self) -> _Recipe | None:
        """Return what to make; None when no file can be copied, or the set can't be read."""
        try:
            canonical = await load_canonical_set(self._directory)
        except MigrationRefused:
            return None  # schema_sync will say so
        if self._recipe is None or self._recipe.canonical != canonical:
            self._recipe = await asyncio.to_thread(_recipe_of, canonical)
        return self._recipe if self._recipe.part.migrations else None

    # -- in the background ----------------------------------------------------------------

    def _tend(self, recipe: _Recipe, name: str, attempt: str) -> None:
        is_busy = self._tending is not None and not self._tending.done()
        if not is_busy and name not in self._given_up:
            self._tending = asyncio.create_task(
                self._make_or_note(recipe, name, f"{name}_{attempt}{secrets.token_hex(2)}"),
                name=f"template {name}",
                context=Context(),  # the job that happens to ask has no part in it
            )
            self._tending.add_done_callback(_tell_of_a_bug)

    async def _make_or_note(self, recipe: _Recipe, name: str, draft: str) -> None:
        try:
            async with self._server.admin() as admin:
                if not (await admin.fetch(QUERIES.lock))[0]["is_ours"]:
                    return
                await self._clear_away(admin)
                (found,) = await admin.fetch(recipe.look)
                if found["is_ready"]:
                    await admin.execute(QUERIES.use.format(name=literal(name)))
                else:
                    await self._make(admin, recipe, name, draft)
                    log.info("template_built", template=name, head=recipe.part.head)
                await admin.fetch(QUERIES.unlock)
        except (JobError, StatementError) as error:
            if not isinstance(error, Transient | OutcomeUnknown):
                # It would fail again; tenants do without, until the set or the server changes.
                self._given_up.add(name)
            log.warning("template_build_failed", template=name, error=str(error))

    async def _make(self, admin: TenantConnection, recipe: _Recipe, name: str, draft: str) -> None:
        """Make a draft, try it, and give it its name."""
        try:
            await self._draft(admin, recipe, draft)
            await self._try_out(admin, draft)
            await admin.execute(QUERIES.use.format(name=literal(draft)))
            await admin.execute(
                QUERIES.publish.format(database=identifier(draft), template=identifier(name))
            )
        except (JobError, StatementError):
            await self._drop(admin, draft)
            raise

    async def _draft(self, admin: TenantConnection, recipe: _Recipe, draft: str) -> None:
        """Make it as a tenant is made, by migrations under its own role; then shut everybody out.

        Raises:
            Permanent: it holds what a copy must not have.
        """
        password = secrets.token_urlsafe(32)
        database, verifier = identifier(draft), literal(scram_verifier(password))
        await admin.execute(self._makers.create_roles.format(name=literal(draft)))
        await admin.execute(self._makers.set_password.format(database=database, verifier=verifier))
        await admin.execute(self._makers.create_database.format(database=database))
        await admin.execute(self._makers.close_database.format(database=database))
        async with self._server.tenant(draft, password, keep=False) as owner:
            await apply_migrations(owner, recipe.part)
            objections = await owner.fetch(QUERIES.objections.format(name=literal(draft)))
        if objections:
            raise Permanent("; ".join(row["reason"] for row in objections))
        await admin.execute(QUERIES.retire_maker.format(database=database))
        await admin.execute(QUERIES.close_template.format(database=database))

    async def _try_out(self, admin: TenantConnection, draft: str) -> None:
        """Copy it once, and let a role like a tenant's take the copy over.

        Raises:
            JobError: our login isn't allowed to, or something is left behind.
        """
        # Its role must not count as a template's: `trial_pgw_…`.
        trial = draft.replace("template", "trial")
        await admin.execute(self._makers.create_roles.format(name=literal(trial)))
        try:
            await admin.execute(
                QUERIES.copy.format(database=identifier(trial), template=identifier(draft))
            )
            async with self._server.admin(trial) as inside:
                await take_over(inside, trial)
        except (JobError, StatementError):
            await self._drop(admin, trial)
            raise
        await self._drop(admin, trial)

    async def _clear_away(self, admin: TenantConnection) -> None:
        for row in await admin.fetch(QUERIES.list_leftovers):
            await self._drop(admin, row["name"])
            log.info("template_dropped", template=row["name"])

    async def _drop(self, admin: TenantConnection, name: str) -> None:
        """Drop a template, or what there is of one; what somebody uses stays."""
        database = identifier(name)
        for statement in (
            QUERIES.unprotect.format(database=database),
            QUERIES.drop_unused.format(database=database),
            self._makers.drop_role.format(database=database),
        ):
            with suppress(StatementError):
                await admin.execute(statement)


async def copy(admin: TenantConnection, template: str, name: str) -> bool:
    """Create the database as a copy of the template; tell whether that was possible.

    What a copy holds is the template's until `take_over`.

    Raises:
        StatementError: the server can't do it now, in whichever way; or the database is there.
    """
    try:
        await admin.execute(
            QUERIES.copy.format(database=identifier(name), template=identifier(template))
        )
    except StatementError as error:
        if error.is_passing or belongs_to(error.sqlstate, ALREADY_THERE):
            raise
        # The template was dropped just now, or somebody is in it.
        log.warning("template_not_copied", template=template, error=error.message)
        return False
    return True


async def take_over(inside: TenantConnection, name: str) -> None:
    """Give all that is in a copy to the copy's owner, and close it to others. Safe to repeat.

    Args:
        inside: our own session in the copy.
        name: of the copy, and of its owner.

    Raises:
        StatementError: the server doesn't let us, or not now; or something would be left behind.
    """
    await inside.execute(QUERIES.take_over.format(name=literal(name)))


def _tell_of_a_bug(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (bug := task.exception()) is not None:
        log.error("template_build_crashed", exc_info=bug)


def _recipe_of(canonical: CanonicalSet) -> _Recipe:
    migrations = portable_part(canonical)
    told = [LAYOUT, [(each.version, each.name, each.text) for each in migrations]]
    fingerprint = hashlib.sha256(json.dumps(told).encode()).hexdigest()
    extensions = created_extensions(migrations)
    look = QUERIES.find_template.format(
        fingerprint=literal(fingerprint),
        extensions=f"array[{', '.join(map(_quoted, extensions))}]",
    )
    return _Recipe(canonical, replace(canonical, migrations=migrations), look)


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
