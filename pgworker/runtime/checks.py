"""What `pgworker doctor` checks: one function for each dependency of a platform.

A check never raises for what it finds: a dependency that fails is a `Check` with its verdict. It
returns one, or a list where several things may be worth a line.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

from pgworker.db.adoption.facts import read_facts
from pgworker.db.adoption.plan import make_plan
from pgworker.db.migrate import read_state
from pgworker.db.pool import connected, describe_dsn
from pgworker.db.queries import load
from pgworker.errors import (
    BadConfiguration,
    DatabaseUnreachable,
    JobError,
    MigrationRefused,
    PgworkerError,
)
from pgworker.schema.directory import read_configured_set
from pgworker.schema.lint import lint
from pgworker.schema.lint_rules import Severity
from pgworker.status.durations import format_duration
from pgworker.status.overdue import ADVICE, Overdue, find_overdue
from pgworker.tenants.secrets import Sealed

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from pgworker.context import Platform
    from pgworker.db.pool import Connection
    from pgworker.settings import Settings
    from pgworker.status.rows import LimitRow

# The versions that pgworker's SQL is tested with.
OLDEST_MAJOR, NEWEST_MAJOR = 14, 18
PING_TIMEOUT = timedelta(seconds=5)
PROVIDER_TIMEOUT = timedelta(seconds=20)
# One token may have used up dozens; a line names the first few.
LIMITS_NAMED = 3


class DoctorQueries(NamedTuple):
    """The statements of `sql/queries/doctor.sql`."""

    ping: str
    sealed_samples: str


DOCTOR_QUERIES = load(DoctorQueries, "queries/doctor.sql")


class Verdict(StrEnum):
    """How much a check's result matters."""

    OK = "ok"
    WARN = "warn"  # it works, and deserves a person's attention
    FAIL = "fail"  # something doesn't work until it is fixed


@dataclass(frozen=True, slots=True)
class Check:
    """The result of one check; its fields are the keys of `pgworker doctor --json`.

    Attributes:
        subject: what was checked.
        detail: what was found.
        advice: what to do; None when there is nothing to do.
    """

    subject: str
    verdict: Verdict
    detail: str
    advice: str | None = None


# -- without a database -----------------------------------------------------------------------


def check_settings_error(error: BadConfiguration) -> list[Check]:
    """Return a failed check for each line of the error, which is one mistake in the settings."""
    advice = "correct it: docs/settings.md lists all settings"
    return [Check("settings", Verdict.FAIL, line, advice) for line in str(error).splitlines()]


def check_migrations(directory: Path) -> Check:
    """Check that the canonical migrations can be read, and that lint finds no error in them."""
    subject = "migrations"
    try:
        canonical = read_configured_set(directory)
    except (BadConfiguration, MigrationRefused) as error:
        advice = "fix it: until then no client gets past schema_sync"
        return Check(subject, Verdict.FAIL, str(error), advice)
    errors = [each for each in lint(canonical) if each.severity is Severity.ERROR]
    detail = f"{len(canonical.migrations)} in {directory}, newest {canonical.head}"
    if not errors:
        return Check(subject, Verdict.OK, detail)
    return Check(
        subject,
        Verdict.WARN,
        f"{detail}; errors that lint finds: {len(errors)}, the first in {errors[0].file}",
        "list them: pgworker schema lint",
    )


# -- with a connection, before pgworker's own tables are known to be there ----------------------


def check_server_version(connection: Connection, dsn: str, *, is_embedded: bool) -> Check:
    """Check that the platform's PostgreSQL is of a version that pgworker is tested with."""
    subject = "database"
    major = connection.get_server_version().major
    detail = f"PostgreSQL {major} " + ("(embedded)" if is_embedded else f"at {describe_dsn(dsn)}")
    if major < OLDEST_MAJOR:
        return Check(
            subject, Verdict.FAIL, detail, f"upgrade to PostgreSQL {OLDEST_MAJOR} or later"
        )
    if major > NEWEST_MAJOR:
        return Check(
            subject, Verdict.WARN, detail, f"pgworker is tested with versions up to {NEWEST_MAJOR}"
        )
    return Check(subject, Verdict.OK, detail)


async def check_schema(connection: Connection, *, is_embedded: bool) -> Check:
    """Check that pgworker's own schema is the one of this release."""
    subject = "schema"
    state = await read_state(connection)
    try:
        state.refuse_if_not_appliable()
    except PgworkerError as error:
        advice = "run the release of pgworker that applied it, or a newer one"
        return Check(subject, Verdict.FAIL, str(error), advice)
    # The embedded server's schema is migrated by the next command that opens it.
    if state.pending and not is_embedded:
        return Check(
            subject,
            Verdict.FAIL,
            f"files of pgworker's own schema that are not applied: {len(state.pending)}",
            "apply them: pgworker db migrate",
        )
    return Check(subject, Verdict.OK, "pgworker's own schema is current")


async def check_adoption(connection: Connection) -> list[Check]:
    """Check that pgworker can work with the table `clients` as it is, and with the role's rights.

    Silent when it can: `check_clients_table` has the line that says so.
    """
    subject = "table clients"
    facts = await read_facts(connection)
    plan = make_plan(facts, (), has_index=True)
    failures = [
        Check(
            subject,
            Verdict.FAIL,
            f"{each.subject} {each.found}; pgworker needs {each.needed}",
            each.advice,
        )
        for each in plan.objections
    ]
    return failures + [
        Check(subject, Verdict.WARN, notice, "nothing to do if that is meant")
        for notice in plan.notices
    ]


async def check_notifications(settings: Settings, dsn: str) -> Check:
    """Check that a notification arrives on the connection that a worker would listen on.

    A transaction pooler accepts LISTEN and delivers nothing; so one is sent and waited for.
    """
    subject = "notifications"
    delay = f"jobs start up to {settings.poll.total_seconds():g} s late"
    if settings.listen_url == "off":
        return Check(
            subject,
            Verdict.WARN,
            f"PGWORKER_LISTEN_URL is off: {delay}",
            "acceptable behind a transaction pooler with no direct connection; "
            "otherwise set it to a direct connection",
        )
    if settings.listen_url is not None:
        dsn = settings.listen_url.get_secret_value()
    arrived = asyncio.Event()
    sent_at = time.monotonic()
    try:
        async with connected(dsn, application_name="pgworker doctor") as connection:
            await connection.add_listener("pgworker_doctor", lambda *_: arrived.set())
            await connection.execute(DOCTOR_QUERIES.ping)
            async with asyncio.timeout(PING_TIMEOUT.total_seconds()):
                await arrived.wait()
    except (BadConfiguration, DatabaseUnreachable) as error:
        return Check(
            subject,
            Verdict.FAIL,
            f"no notification arrives over {describe_dsn(dsn)} ({error}): {delay}",
            "set PGWORKER_LISTEN_URL to a direct connection "
            "(a transaction pooler forwards no notifications)",
        )
    milliseconds = (time.monotonic() - sent_at) * 1000
    return Check(subject, Verdict.OK, f"a test notification arrived after {milliseconds:.0f} ms")


# -- of an open platform ----------------------------------------------------------------------


async def check_encryption_keys(platform: Platform) -> list[Check]:
    """Check that the first key encrypts, and that the keys decrypt one stored value of each."""
    subject = "encryption keys"
    try:
        vault = platform.vault()
        samples = await platform.pool.fetch(DOCTOR_QUERIES.sealed_samples)
        for row in samples:
            sealed = Sealed(row["key_id"], row["nonce"], row["ciphertext"])
            vault.open(row["client_id"], row["field"], sealed)
    except BadConfiguration as error:
        return [Check(subject, Verdict.FAIL, str(error), "set it; keep old keys after the first")]
    others = sorted({row["key_id"] for row in samples} - {vault.key_id})
    if others:
        return [
            Check(
                subject,
                Verdict.WARN,
                f"{vault.key_id} encrypts; some secrets are still encrypted with "
                f"{', '.join(others)}",
                "run pgworker keys rotate, then remove the old keys",
            )
        ]
    return [Check(subject, Verdict.OK, f"{vault.key_id} encrypts, and decrypts what is stored")]


async def check_provider(platform: Platform) -> list[Check]:
    """Check what the default provider depends on; the provider knows what that is."""
    subject = f"provider {platform.settings.provider}"
    try:
        async with asyncio.timeout(PROVIDER_TIMEOUT.total_seconds()):
            diagnoses = await platform.providers.default.diagnose()
    except TimeoutError:
        detail = f"no answer within {PROVIDER_TIMEOUT.total_seconds():.0f} s"
        return [Check(subject, Verdict.FAIL, detail, "check the network and its settings")]
    except (BadConfiguration, JobError) as error:
        return [Check(subject, Verdict.FAIL, str(error), "correct its settings")]
    return [
        Check(subject, Verdict.OK if each.is_ok else Verdict.FAIL, each.detail, each.advice)
        for each in diagnoses
    ]


async def check_workers(platform: Platform) -> list[Check]:
    """Check that a worker is alive; none at all is a failure only when jobs are due."""
    health = await platform.status.get_health()
    subject, advice = "workers", "start one: pgworker run"
    if health.workers_alive:
        return [Check(subject, Verdict.OK, f"{health.workers_alive} alive")]
    if health.due_now:
        detail = f"none is alive; jobs due: {health.due_now}"
        return [Check(subject, Verdict.FAIL, detail, advice)]
    return [Check(subject, Verdict.WARN, "none is alive", advice)]


async def check_queue(platform: Platform) -> list[Check]:
    """Check that nothing in the queue is overdue, failed or paused."""
    health = await platform.status.get_health()
    found = [
        _describe_overdue(each) for each in await find_overdue(platform.pool, platform.settings)
    ]
    if health.paused:
        found.append(Check("queue", Verdict.WARN, "claiming is paused", "resume: pgworker resume"))
    if found:
        return found
    live = health.unfinished
    return [Check("queue", Verdict.OK, f"unfinished jobs: {live}; none overdue, none failed")]


def _describe_overdue(overdue: Overdue) -> Check:
    subject, remedy = ADVICE[overdue.kind]
    oldest = f"the oldest for {format_duration(overdue.age)}: {overdue.oldest}"
    return Check("queue", Verdict.WARN, f"{subject}: {overdue.number}; {oldest}", remedy)


async def check_credentials(platform: Platform) -> list[Check]:
    """Check that no breaker is open: a provider refuses the credential of an open one."""
    subject = "credentials"
    breakers = await platform.status.list_open_breakers()
    if not breakers:
        return [Check(subject, Verdict.OK, "the provider accepts all of them")]
    return [
        Check(
            subject,
            Verdict.FAIL,
            f"the provider has refused {breaker.credential} for "
            f"{format_duration(datetime.now(UTC) - breaker.opened_at)}: {breaker.reason}",
            "renew it; the parked jobs continue on their own",
        )
        for breaker in breakers
    ]


async def check_rate_limits(platform: Platform) -> list[Check]:
    """Check that no rate limit of a provider is used up right now."""
    return [_describe_limits(await platform.status.list_exhausted_limits())]


def _describe_limits(used_up: list[LimitRow]) -> Check:
    subject = "rate limits"
    if not used_up:
        return Check(subject, Verdict.OK, "none is used up")
    named = ", ".join(
        f"{row.endpoint} ({row.scope}) for {row.seconds:.0f} s" for row in used_up[:LIMITS_NAMED]
    )
    rest = len(used_up) - LIMITS_NAMED
    return Check(
        subject,
        Verdict.WARN,
        f"used up: {named}" + (f" and {rest} more" if rest > 0 else ""),
        "nothing to do: the jobs that need them wait, no attempt is counted, "
        "and they continue on their own",
    )


async def check_clients_table(platform: Platform) -> list[Check]:
    """Check that the Data API of a Supabase project doesn't publish the table `clients`.

    An adopted table keeps the rights it has, so pgworker can only warn.
    """
    subject = "table clients"
    if await platform.status.clients_are_open():
        return [
            Check(
                subject,
                Verdict.WARN,
                "anon or authenticated may read it through the Data API",
                "alter table clients enable row level security; then write policies",
            )
        ]
    return [Check(subject, Verdict.OK, "closed to anon and authenticated")]


# In the order in which they are shown: a wrong key or a provider that is down explains much of
# what the queue shows.
PLATFORM_CHECKS: tuple[Callable[[Platform], Awaitable[list[Check]]], ...] = (
    check_encryption_keys,
    check_provider,
    check_workers,
    check_queue,
    check_credentials,
    check_rate_limits,
    check_clients_table,
)
