"""The phase `smoke_checks`."""

from __future__ import annotations

from pgworker.errors import SmokeCheckFailed
from pgworker.models import ClientStatus, Done, Outcome
from pgworker.provisioning.phases.base import PhaseContext
from pgworker.schema.apply import read_history
from pgworker.schema.directory import load_canonical_set
from pgworker.schema.migrations import CanonicalSet, history_is_complete
from pgworker.schema.smoke import (
    all_checks_pass,
    check_row_level_security,
    run_smoke_assertions,
)
from pgworker.tenants.at_once import at_once
from pgworker.tenants.connection import TenantConnection


class SmokeChecks:
    """Prove that the tenant works, on the paths that its users take. Changes nothing."""

    name = "smoke_checks"
    client_status = ClientStatus.SMOKE_CHECKING

    async def run(self, ctx: PhaseContext) -> Outcome:
        """Return `Done` when every check passes.

        Raises:
            SmokeCheckFailed: names the check.
        """
        canonical, credentials = await at_once(
            load_canonical_set(ctx.settings.migrations_dir), ctx.credentials()
        )
        async with ctx.connect(credentials) as connection:
            # One round trip when all is well; one for each check only to name the one that fails.
            if not await all_checks_pass(connection, canonical):
                await _find_failure(ctx, connection, canonical)
        # After the connection is closed: tenants have few of them, and HTTP may take its time.
        await ctx.provider.check_services(ctx.ref, credentials)
        return Done()


async def _find_failure(
    ctx: PhaseContext, connection: TenantConnection, canonical: CanonicalSet
) -> None:
    """Run the checks one by one; all of them may pass now, if a cause was temporary.

    Raises:
        SmokeCheckFailed: names the check.
    """
    if not history_is_complete(canonical, await read_history(connection)):
        raise SmokeCheckFailed(
            "the tenant's migration history is not complete: retry from schema_sync "
            f"with pgworker schema sync {ctx.client.id}"
        )
    await check_row_level_security(connection)
    await run_smoke_assertions(connection, canonical.smoke_directory)
