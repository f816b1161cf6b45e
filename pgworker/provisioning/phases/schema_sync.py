"""The phase `schema_sync`."""

from __future__ import annotations

from pgworker.models import ClientPatch, ClientStatus, Done, Outcome
from pgworker.provisioning.phases.base import PhaseContext
from pgworker.schema.apply import MigrationNotice, apply_migrations
from pgworker.schema.directory import load_canonical_set
from pgworker.schema.migrations import Migration
from pgworker.tenants.at_once import at_once


class SchemaSync:
    """Bring the tenant to the canonical schema; resumes at the file that failed."""

    name = "schema_sync"
    client_status = ClientStatus.SCHEMA_SYNCING

    async def run(self, ctx: PhaseContext) -> Outcome:
        """Return `Done` once the tenant's history equals the canonical set.

        Raises:
            MigrationRefused, MigrationFailed: name the file, and the line if it is known.
        """
        # At each run: a retry must see a file that was corrected.
        canonical, credentials = await at_once(
            load_canonical_set(ctx.settings.migrations_dir), ctx.credentials()
        )

        async def log_applied(migration: Migration) -> None:
            ctx.log.info("migration_applied", file=migration.file)

        def log_notice(notice: MigrationNotice) -> None:
            ctx.log.info("migration_notice_raised", **notice._asdict())

        async with ctx.connect(credentials) as connection:
            report = await apply_migrations(
                connection,
                canonical,
                steps=ctx.steps,
                on_applied=log_applied,
                on_notice=log_notice,
            )
        return Done(patch=ClientPatch(schema_version=report.head))
