"""Checks every setting and dependency of a platform, and says what to do.

Each check is a function that yields verdicts; `examine` runs them in an order in which an earlier
one explains the failure of a later one, and leaves out what can't be asked any more.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from pgworker.context import open_database, open_platform
from pgworker.db.migrate import read_state
from pgworker.db.pool import STATEMENT_TIMEOUT, connected, describe_dsn
from pgworker.db.queries import load
from pgworker.errors import (
    BadConfiguration,
    DatabaseUnreachable,
    JobError,
    MigrationRefused,
    PgworkerError,
)
from pgworker.maintenance.fleet import canonical_set
from pgworker.providers.postgres.provider import QUERIES as POSTGRES_QUERIES
from pgworker.providers.supabase.provider import SupabaseProvider
from pgworker.provisioning.runner import find_workflows
from pgworker.schema.lint import Severity, lint
from pgworker.settings import load_settings
from pgworker.status.durations import duration
from pgworker.status.overdue import LATE, Late, find_late
from pgworker.tenants.secrets import Sealed

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator
    from pathlib import Path

    from pgworker.context import Platform
    from pgworker.db.pool import Connection
    from pgworker.settings import Settings
    from pgworker.status.queries import Row

# The versions that pgworker's SQL is tested with.
OLDEST_MAJOR, NEWEST_MAJOR = 14, 18
PONG_TIMEOUT = timedelta(seconds=5)
PROVIDER_TIMEOUT = timedelta(seconds=20)


class DoctorQueries(NamedTuple):
    """The statements of `sql/queries/doctor.sql`."""

    ping: str
    sealed_samples: str


DOCTOR_QUERIES = load(DoctorQueries, "queries/doctor.sql")


class Verdict(StrEnum):
    """How much a finding matters."""

    OK = "ok"
    WARN = "warn"  # it works; somebody should look
    FAIL = "fail"  # something doesn't work until it is mended


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the doctor's.

    Attributes:
        subject: what was looked at.
        detail: what was found.
        advice: what to do; None when nothing is.
    """

    subject: str
    verdict: Verdict
    detail: str
    advice: str | None = None


async def examine() -> AsyncGenerator[Check]:
    """Check everything; yield verdicts as they come. Close it when you leave before its end."""
    try:
        settings = load_settings()
        find_workflows(settings.workflow)
    except BadConfiguration as error:
        for line in str(error).splitlines():
            yield Check(
                "settings", Verdict.FAIL, line, "correct it; docs/settings.md lists all settings"
            )
        return
    yield Check("settings", Verdict.OK, "every setting can be used")
    for check in _check_migrations(settings.migrations_dir):
        yield check
    try:
        async with (
            open_database(settings) as (dsn, data_dir),
            aclosing(_examine_database(settings, dsn, data_dir)) as found,
        ):
            async for check in found:
                yield check
    except (BadConfiguration, DatabaseUnreachable) as error:
        yield Check("database", Verdict.FAIL, str(error), "correct DATABASE_URL, or start it")


async def _examine_database(
    settings: Settings, dsn: str, data_dir: Path | None
) -> AsyncGenerator[Check]:
    async with connected(dsn) as connection:
        yield _check_version(connection, dsn, is_embedded=data_dir is not None)
        schema = await _check_schema(connection, is_embedded=data_dir is not None)
        yield schema
    yield await _check_listen(settings, dsn)
    if schema.verdict is Verdict.FAIL:
        # Every further question needs the tables.
        return
    async with open_platform(
        settings, pool_size=2, statement_timeout=STATEMENT_TIMEOUT
    ) as platform:
        yield await _check_keys(platform)
        yield await _check_provider(platform)
        async with aclosing(_check_queue(platform)) as found:
            async for check in found:
                yield check


def _check_migrations(directory: Path) -> Iterator[Check]:
    try:
        canonical = canonical_set(directory)
    except (BadConfiguration, MigrationRefused) as error:
        yield Check(
            "migrations", Verdict.FAIL, str(error), "mend it: no client gets past schema_sync"
        )
        return
    errors = [finding for finding in lint(canonical) if finding.severity is Severity.ERROR]
    detail = f"{len(canonical.migrations)} in {directory}, newest {canonical.head}"
    if errors:
        yield Check(
            "migrations",
            Verdict.WARN,
            f"{detail}; lint finds {len(errors)} errors, the first in {errors[0].file}",
            "read them: pgworker schema lint",
        )
    else:
        yield Check("migrations", Verdict.OK, detail)


def _check_version(connection: Connection, dsn: str, *, is_embedded: bool) -> Check:
    major = connection.get_server_version().major
    where = "the embedded one" if is_embedded else describe_dsn(dsn)
    detail = f"PostgreSQL {major} at {where}"
    if major < OLDEST_MAJOR:
        return Check("database", Verdict.FAIL, detail, f"upgrade it to {OLDEST_MAJOR} or later")
    if major > NEWEST_MAJOR:
        return Check(
            "database", Verdict.WARN, detail, f"pgworker is tested up to {NEWEST_MAJOR} only"
        )
    return Check("database", Verdict.OK, detail)


async def _check_schema(connection: Connection, *, is_embedded: bool) -> Check:
    state = await read_state(connection)
    try:
        state.refuse_if_not_appliable()
    except PgworkerError as error:
        return Check("schema", Verdict.FAIL, str(error), "run the release that made it, or a newer")
    if state.pending and not is_embedded:
        return Check(
            "schema",
            Verdict.FAIL,
            f"{len(state.pending)} files of pgworker's own schema are not applied",
            "apply them: pgworker db migrate",
        )
    return Check("schema", Verdict.OK, "pgworker's own schema is current")


async def _check_listen(settings: Settings, dsn: str) -> Check:
    poll = f"jobs start up to {settings.poll.total_seconds():g} s late"
    if settings.listen_url == "off":
        return Check(
            "notifications",
            Verdict.WARN,
            f"PGWORKER_LISTEN_URL is off: {poll}",
            "fine behind a transaction pooler without a direct way; else set a direct URL",
        )
    if settings.listen_url is not None:
        dsn = settings.listen_url.get_secret_value()
    heard = asyncio.Event()
    asked_at = time.monotonic()
    try:
        async with connected(dsn, application_name="pgworker doctor") as connection:
            await connection.add_listener("pgworker_doctor", lambda *_: heard.set())
            await connection.execute(DOCTOR_QUERIES.ping)
            async with asyncio.timeout(PONG_TIMEOUT.total_seconds()):
                await heard.wait()
    except (BadConfiguration, DatabaseUnreachable) as error:
        return Check(
            "notifications",
            Verdict.FAIL,
            f"no notification arrives by way of {describe_dsn(dsn)} ({error}): {poll}",
            "set PGWORKER_LISTEN_URL to a direct connection (a transaction pooler passes none on)",
        )
    milliseconds = (time.monotonic() - asked_at) * 1000
    return Check("notifications", Verdict.OK, f"one came back in {milliseconds:.0f} ms")


async def _check_keys(platform: Platform) -> Check:
    try:
        vault = platform.vault()
        samples = await platform.pool.fetch(DOCTOR_QUERIES.sealed_samples)
        for row in samples:
            sealed = Sealed(row["key_id"], row["nonce"], row["ciphertext"])
            vault.open(row["client_id"], row["field"], sealed)
    except BadConfiguration as error:
        return Check(
            "encryption keys", Verdict.FAIL, str(error), "set it; keep old keys behind the first"
        )
    others = sorted({row["key_id"] for row in samples} - {vault.key_id})
    if others:
        return Check(
            "encryption keys",
            Verdict.WARN,
            f"{vault.key_id} encrypts; some secrets are still under {', '.join(others)}",
            "pgworker keys rotate, then drop the old ones",
        )
    return Check("encryption keys", Verdict.OK, f"{vault.key_id} encrypts and opens what is stored")


async def _check_provider(platform: Platform) -> Check:
    subject = f"provider {platform.settings.provider}"
    try:
        provider = platform.providers.default
        if isinstance(provider, SupabaseProvider):
            async with asyncio.timeout(PROVIDER_TIMEOUT.total_seconds()):
                organization = await provider.check_access()
            detail = f"organisation {organization.name}, plan {organization.plan or 'not told'}"
            return Check(subject, Verdict.OK, detail)
        return await _check_tenants_server(platform, subject)
    except TimeoutError:
        return Check(
            subject,
            Verdict.FAIL,
            f"{platform.settings.supabase_api_url} does not answer in time",
            "look at the network and at SUPABASE_API_URL",
        )
    except (BadConfiguration, DatabaseUnreachable) as error:
        return Check(subject, Verdict.FAIL, str(error), "correct the setting")
    except JobError as error:
        return Check(
            subject, Verdict.FAIL, str(error), "look at SUPABASE_ACCESS_TOKEN and SUPABASE_ORG_ID"
        )


async def _check_tenants_server(platform: Platform, subject: str) -> Check:
    url = platform.settings.tenants_url
    dsn = platform.dsn if url is None else url.get_secret_value()
    try:
        async with connected(dsn, application_name="pgworker doctor") as connection:
            row = await connection.fetchrow(POSTGRES_QUERIES.maker_rights)
    except BadConfiguration as error:
        if url is None:
            raise
        message = str(error).replace("DATABASE_URL", "PGWORKER_TENANTS_URL", 1)
        raise BadConfiguration(message) from error
    assert row is not None
    missing = [
        right
        for right, is_there in (
            ("createdb", row["may_create_databases"]),
            ("createrole", row["may_create_roles"]),
        )
        if not is_there
    ]
    where = f"role {row['role']} at {urlsplit(dsn).netloc.rpartition('@')[2] or 'the socket'}"
    if missing:
        return Check(
            subject,
            Verdict.FAIL,
            f"{where} may not make tenants",
            f'alter role "{row["role"]}" {" ".join(missing)};',
        )
    return Check(subject, Verdict.OK, f"{where} may create databases and roles")


async def _check_queue(platform: Platform) -> AsyncGenerator[Check]:
    status = platform.status
    health = await status.get_health()
    yield _judge_workers(health["workers_alive"], health["due_now"])
    worrying = [_judge_late(late) for late in await find_late(platform.pool, platform.settings)]
    if health["paused"]:
        worrying.append(
            Check("queue", Verdict.WARN, "claiming is paused", "go on: pgworker resume")
        )
    for check in worrying:
        yield check
    if not worrying:
        live = health["queued"] + health["running"] + health["waiting"]
        yield Check("queue", Verdict.OK, f"unfinished jobs: {live}; none late, none failed")
    breakers = await status.list_open_breakers()
    for breaker in breakers:
        yield Check(
            "credentials",
            Verdict.FAIL,
            f"the provider refuses {breaker['credential']} since "
            f"{duration(datetime.now(UTC) - breaker['opened_at'])}: {breaker['reason']}",
            "renew it; the parked jobs go on by themselves",
        )
    if not breakers:
        yield Check("credentials", Verdict.OK, "the provider refuses none")
    yield _judge_limits(await status.list_exhausted_limits())
    if await status.clients_are_open():
        yield Check(
            "table clients",
            Verdict.WARN,
            "anon or authenticated may read it through the Data API",
            "alter table clients enable row level security; and write policies",
        )
    else:
        yield Check("table clients", Verdict.OK, "closed to anon and authenticated")


def _judge_limits(used_up: list[Row]) -> Check:
    if not used_up:
        return Check("rate limits", Verdict.OK, "none of the provider's is used up")
    shown = ", ".join(
        f"{row['endpoint']} ({row['scope']}) for {row['seconds']:.0f} s" for row in used_up[:3]
    )
    more = f" and {len(used_up) - 3} more" if len(used_up) > 3 else ""
    return Check(
        "rate limits",
        Verdict.WARN,
        f"used up: {shown}{more}",
        "nothing: the jobs that need them wait, without an attempt, and go on by themselves",
    )


def _judge_late(late: Late) -> Check:
    what, advice = LATE[late.kind]
    oldest = f"the oldest for {duration(late.age)}: {late.oldest}"
    return Check("queue", Verdict.WARN, f"{what}: {late.number}; {oldest}", advice)


def _judge_workers(alive: int, due: int) -> Check:
    if alive:
        return Check("workers", Verdict.OK, f"{alive} alive")
    if due:
        return Check(
            "workers", Verdict.FAIL, f"none is alive; jobs due: {due}", "start one: pgworker run"
        )
    return Check("workers", Verdict.WARN, "none is alive", "start one: pgworker run")
