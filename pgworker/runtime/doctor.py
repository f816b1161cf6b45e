"""Checks every setting and dependency of a platform, and says what to do.

The order matters: an earlier check explains the failure of a later one, and a failure ends the
checks that can't be made after it.
"""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING

from pgworker.context import open_database, open_platform
from pgworker.db.pool import STATEMENT_TIMEOUT, connected
from pgworker.errors import BadConfiguration, DatabaseUnreachable
from pgworker.providers.registry import check_provider_setting
from pgworker.provisioning.workflow import find_workflows
from pgworker.runtime.checks import (
    PLATFORM_CHECKS,
    Check,
    Verdict,
    check_adoption,
    check_migrations,
    check_notifications,
    check_schema,
    check_server_version,
    check_settings_error,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from pgworker.settings import Settings


async def examine(settings: Settings) -> AsyncGenerator[Check]:
    """Check everything; yield each result as it comes.

    Close the generator when you stop before its end: it holds connections, and perhaps the
    embedded server.
    """
    try:
        check_provider_setting(settings.provider)
        find_workflows(settings.workflow)
    except BadConfiguration as error:
        for check in check_settings_error(error):
            yield check
        return
    yield Check("settings", Verdict.OK, "all settings are valid")
    yield check_migrations(settings.migrations_dir)
    try:
        async with (
            open_database(settings) as (dsn, data_dir),
            aclosing(_examine_database(settings, dsn, data_dir)) as checks,
        ):
            async for check in checks:
                yield check
    except (BadConfiguration, DatabaseUnreachable) as error:
        advice = "correct DATABASE_URL, or start the server"
        yield Check("database", Verdict.FAIL, str(error), advice)


async def _examine_database(
    settings: Settings, dsn: str, data_dir: Path | None
) -> AsyncGenerator[Check]:
    is_embedded = data_dir is not None
    async with connected(dsn) as connection:
        yield check_server_version(connection, dsn, is_embedded=is_embedded)
        schema = await check_schema(connection, is_embedded=is_embedded)
        yield schema
        for check in await check_adoption(connection):
            yield check
    yield await check_notifications(settings, dsn)
    if schema.verdict is Verdict.FAIL:
        # All further checks read pgworker's own tables.
        return
    async with open_platform(
        settings, pool_size=2, statement_timeout=STATEMENT_TIMEOUT
    ) as platform:
        for check_platform in PLATFORM_CHECKS:
            for check in await check_platform(platform):
                yield check
