"""The invariants: what must be true at a campaign's end, whatever failed in it and whenever.

They read nothing but a `Snapshot`: databases, logs and the simulator's ledger.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from chaos import audit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from chaos.snapshot import PlatformSnapshot, Row, Snapshot

LIVE = {"queued", "running", "waiting"}
UNFINISHED = {"queued", "creating_project", "waiting_for_project", "schema_syncing",
              "smoke_checking"}  # fmt: skip
PROVIDER_KEYS = 2
MIN_SECRET_LENGTH = 9
TRACEBACK = "Traceback (most recent call last)"
# What asyncio logs when the connection of a cancelled phase breaks while asyncpg closes it: no task
# awaits that. Ends with the last error of the chain.
ABANDONED_CONNECTION = re.compile(
    r"^Task exception was never retrieved\n(?:[^{\n].*\n|\n)*?"
    r"(?:asyncpg\.exceptions\.|ConnectionResetError|TimeoutError|OSError).*\n(?=\{|\Z)",
    re.MULTILINE,
)


@dataclass(frozen=True, slots=True)
class Violation:
    """An invariant that doesn't hold for a subject, such as a client or a database."""

    invariant: str
    subject: str
    message: str

    def __str__(self) -> str:
        return f"{self.invariant}: {self.subject}: {self.message}"


@dataclass(frozen=True, slots=True)
class Expectation:
    """What the campaign knows about its own end.

    Attributes:
        versions: of the canonical migrations, in order.
        runs: those of them that record that they ran.
        is_settled: no job is live any more.
        all_ready: no client should be left for a person to help.
    """

    versions: Sequence[str]
    runs: Sequence[str]
    is_settled: bool = True
    all_ready: bool = True


# Subjects and messages of violations.
Found = Iterator[tuple[str, str]]


def check(snapshot: Snapshot, expected: Expectation) -> list[Violation]:
    """Return every violation."""
    return [
        Violation(invariant.__name__, subject, message)
        for invariant in INVARIANTS
        for subject, message in invariant(snapshot, expected)
    ]


def _list_clients(snapshot: Snapshot) -> Iterator[tuple[PlatformSnapshot, Row]]:
    for platform in snapshot.platforms:
        for client in platform.clients:
            yield platform, client


def _list_jobs(platform: PlatformSnapshot, client: Row) -> list[Row]:
    return [job for job in platform.jobs if job["client_id"] == client["id"]]


def _get_intent(platform: PlatformSnapshot, client: Row) -> Row | None:
    found = [row for row in platform.intents if row["client_id"] == client["id"]]
    return found[0] if found else None


def _group_events(platform: PlatformSnapshot) -> dict[int, list[Row]]:
    events: dict[int, list[Row]] = defaultdict(list)
    for event in platform.events:
        if event["job_id"] is not None:
            events[event["job_id"]].append(event)
    return events


def _describe(client: Row) -> str:
    return f"client {client['id']}"


# -- projects ---------------------------------------------------------------------------------


def one_project_per_client(snapshot: Snapshot, _: Expectation) -> Found:
    """No project or key was created twice, and no two clients share a project."""
    if snapshot.ledger is not None:
        created = Counter(project["name"] for project in snapshot.ledger["created"])
        for name, count in created.items():
            if count > 1:
                refs = [p["ref"] for p in snapshot.ledger["created"] if p["name"] == name]
                yield f"project {name}", f"created {count} times: {', '.join(refs)}"
        keys = Counter(
            entry["project"]
            for entry in snapshot.ledger["entries"]
            if entry["operation"] == "create_api_key" and entry["took_effect"]
        )
        for ref, count in keys.items():
            if count > PROVIDER_KEYS:
                yield f"project {ref}", f"{count} API keys were created"
    refs_in_use = Counter(
        client["project_ref"] for _, client in _list_clients(snapshot) if client["project_ref"]
    )
    for ref, count in refs_in_use.items():
        if count > 1:
            yield f"project {ref}", f"{count} clients use it"


def no_orphan(snapshot: Snapshot, expected: Expectation) -> Found:
    """Each project, database and role belongs to a client that refers to it."""
    refs = {client["project_ref"] for _, client in _list_clients(snapshot)}
    # Where not all clients are ready, an unfulfilled intent shows a person what may exist.
    intended = {
        row["name"]
        for platform in snapshot.platforms
        for row in platform.intents
        if row["ref"] is None and not expected.all_ready
    }
    for project in snapshot.ledger["created"] if snapshot.ledger is not None else ():
        if project["ref"] not in refs and project["name"] not in intended:
            yield (
                f"project {project['ref']}",
                f"it is paid for, but no client uses it ({project['name']})",
            )
    for database in snapshot.databases:
        if database["name"] not in refs and database["name"] not in intended:
            yield f"database {database['name']}", "no client uses it"
        if database["owner"] != database["name"]:
            yield f"database {database['name']}", f"it belongs to {database['owner']}"
    names = {database["name"] for database in snapshot.databases}
    for role in snapshot.roles:
        if role not in names and role not in intended:
            yield f"role {role}", "it has no database"


def no_partial_tenant(snapshot: Snapshot, _: Expectation) -> Found:
    """A ready client's tenant is complete: its database exists and is closed to others."""
    databases = {database["name"]: database for database in snapshot.databases}
    for platform, client in _list_clients(snapshot):
        if client["provisioning_status"] != "ready":
            continue
        intent = _get_intent(platform, client)
        if intent is None or intent["ref"] != client["project_ref"]:
            yield _describe(client), f"its intent doesn't name {client['project_ref']}"
        elif intent["provider"] == "postgres":
            database = databases.get(client["project_ref"])
            if database is None:
                yield _describe(client), f"its database {client['project_ref']} doesn't exist"
            elif not database["is_closed"]:
                yield (
                    _describe(client),
                    f"its database {client['project_ref']} is open to all roles",
                )


# -- clients ----------------------------------------------------------------------------------


def no_lost_client(snapshot: Snapshot, expected: Expectation) -> Found:
    """Every client ended ready, or failed with an error that a person can act on."""
    for platform, client in _list_clients(snapshot):
        status, jobs = client["provisioning_status"], _list_jobs(platform, client)
        if not client["auto_provision"]:
            continue
        if not jobs:
            yield _describe(client), "it has no job"
            continue
        newest = jobs[-1]
        if expected.is_settled and newest["status"] in LIVE:
            yield _describe(client), f"its job is {newest['status']} and no worker runs it"
        if newest["status"] not in LIVE and status in UNFINISHED:
            yield _describe(client), f"it shows {status}, but its job is {newest['status']}"
        if (newest["status"] == "succeeded") is not (status == "ready"):
            yield _describe(client), f"it is {status}, but its job is {newest['status']}"
        if newest["status"] == "failed":
            if not client["provisioning_error"] or newest["error_kind"] is None:
                yield _describe(client), "it failed without an error"
            elif expected.all_ready:
                yield _describe(client), f"it failed: {client['provisioning_error']}"
        if status == "ready" and client["provisioning_error"] is not None:
            yield (
                _describe(client),
                f"it is ready, but shows the error {client['provisioning_error']}",
            )


def one_live_job_per_client(snapshot: Snapshot, _: Expectation) -> Found:
    """A client has at most one live job of each workflow."""
    for platform in snapshot.platforms:
        live = Counter(
            (job["client_id"], job["workflow"]) for job in platform.jobs if job["status"] in LIVE
        )
        for (client_id, workflow), count in live.items():
            if count > 1:
                yield f"client {client_id}", f"{count} live jobs of {workflow}"


def history_is_complete(snapshot: Snapshot, expected: Expectation) -> Found:
    """A ready client has the complete canonical schema, each file applied once."""
    for _, client in _list_clients(snapshot):
        if client["provisioning_status"] != "ready":
            continue
        tenant = snapshot.tenants.get(client["project_ref"])
        if tenant is None:
            yield _describe(client), "it has no tenant"
            continue
        if tenant.history != tuple(expected.versions):
            yield _describe(client), f"its history is {tenant.history}"
        if tenant.runs != tuple(expected.runs):
            yield _describe(client), f"the files that ran are {tenant.runs}"
        if client["schema_version"] != expected.versions[-1]:
            yield _describe(client), f"it shows the schema version {client['schema_version']}"


def credentials_work(snapshot: Snapshot, _: Expectation) -> Found:
    """A ready client's secrets can be decrypted, and its password is accepted."""
    for platform in snapshot.platforms:
        for message in platform.decryption_errors:
            yield platform.name, message
    for platform, client in _list_clients(snapshot):
        if client["provisioning_status"] != "ready":
            continue
        fields = platform.secrets.get(client["id"], {})
        tenant = snapshot.tenants.get(client["project_ref"])
        if tenant is not None and tenant.login_error is not None:
            yield _describe(client), f"its stored password is refused: {tenant.login_error}"
        if "dsn" not in fields:
            yield _describe(client), "no DSN is stored"
        if snapshot.ledger is not None and not (
            fields.keys() & {"publishable_key", "anon_key"}
            and fields.keys() & {"secret_key", "service_role_key"}
        ):
            yield _describe(client), f"keys are missing: {sorted(fields)} are stored"


def every_step_has_an_outcome(snapshot: Snapshot, _: Expectation) -> Found:
    """A ready client's steps all have an outcome, and none was done twice."""
    for platform, client in _list_clients(snapshot):
        if client["provisioning_status"] != "ready":
            continue
        steps = [step for step in platform.steps if step["client_id"] == client["id"]]
        for step in steps:
            if step["state"] in {"intended", "unknown"}:
                yield _describe(client), f"{step['step']} {step['target']} is still {step['state']}"
        done = Counter((s["step"], s["target"]) for s in steps if s["state"] == "done")
        for (step, target), count in done.items():
            if count > 1 and step != "set_password":
                yield _describe(client), f"{step} {target} is recorded as done {count} times"


# -- the audit trail --------------------------------------------------------------------------


def audit_trail_has_no_gap(snapshot: Snapshot, _: Expectation) -> Found:
    """The events of a job lead from its beginning to its present state without a gap."""
    for platform in snapshot.platforms:
        events = _group_events(platform)
        for job in platform.jobs:
            for gap in audit.find_gaps(job, events[job["id"]]):
                yield f"{platform.name}: job {job['id']}", gap


def no_attempt_is_miscounted(snapshot: Snapshot, _: Expectation) -> Found:
    """Each failed attempt counts once, and so does each crash."""
    for platform in snapshot.platforms:
        events = _group_events(platform)
        for job in platform.jobs:
            for miscount in audit.find_miscounts(job, events[job["id"]]):
                yield f"{platform.name}: job {job['id']}", miscount


def no_write_after_a_lost_fence(snapshot: Snapshot, _: Expectation) -> Found:
    """Only the holder of a job writes, and only while it holds the job."""
    for platform in snapshot.platforms:
        for job_id, events in _group_events(platform).items():
            for stale_event in audit.find_stale_events(events):
                yield f"{platform.name}: job {job_id}", stale_event
        for write in platform.writes:
            if (problem := _check_write(write)) is not None:
                yield f"{platform.name}: client {write['client_id']}", problem


def _check_write(write: Row) -> str | None:
    """Return what is wrong with a write that a witness recorded.

    Only the sessions of workers name their process; other writes are always right.
    """
    if write["writer_pid"] is None or write["client_id"] is None:
        return None
    wrote = f"process {write['writer_pid']} wrote {write['wrote']} at {write['at']}"
    holder: str = write["holder"] or ""
    if holder.startswith("sql:"):
        return None
    if write["job_status"] != "running":
        return f"{wrote} when its job was {write['job_status']}"
    if _parse_pid(holder) != write["writer_pid"]:
        return f"{wrote} when {holder} held the job"
    return None


def _parse_pid(worker: str) -> str:
    return worker.split(":")[-2] if worker.count(":") > 1 else ""


# -- secrets and leftovers --------------------------------------------------------------------


def no_secret_in_clear(snapshot: Snapshot, _: Expectation) -> Found:
    """No table of the platform and no log holds a secret in clear."""
    values: dict[str, str] = dict.fromkeys(snapshot.foreign_secrets, "the access token")
    for platform in snapshot.platforms:
        for client_id, fields in platform.secrets.items():
            values |= {value: f"{name} of client {client_id}" for name, value in fields.items()}
    for value, what in values.items():
        if len(value) < MIN_SECRET_LENGTH:
            yield what, "it is too short to be a secret"
            continue
        for platform in snapshot.platforms:
            for table, text in platform.texts.items():
                if value in text or value.encode().hex() in text:
                    yield f"{platform.name}: {table}", f"it holds {what}"
        for name, text in snapshot.logs.items():
            if value in text:
                yield f"the log of {name}", f"it holds {what}"


def every_breaker_is_closed(snapshot: Snapshot, expected: Expectation) -> Found:
    """A breaker closes once the provider accepts the credential again."""
    for platform in snapshot.platforms:
        for breaker in platform.breakers if expected.is_settled and expected.all_ready else ():
            yield f"{platform.name}: {breaker['credential']}", "its breaker is still open"


def no_unexpected_error(snapshot: Snapshot, _: Expectation) -> Found:
    """No worker logged a traceback or a crashed phase."""
    for name, text in snapshot.logs.items():
        lines = ABANDONED_CONNECTION.sub("", text).splitlines()
        for number, line in enumerate(lines):
            if '"phase_crashed"' in line or TRACEBACK in line:
                yield f"the log of {name}", "\n".join(lines[number : number + 60])[:4000]
                break


INVARIANTS: tuple[Callable[[Snapshot, Expectation], Found], ...] = (
    one_project_per_client,
    no_orphan,
    no_partial_tenant,
    no_lost_client,
    one_live_job_per_client,
    history_is_complete,
    credentials_work,
    every_step_has_an_outcome,
    audit_trail_has_no_gap,
    no_attempt_is_miscounted,
    no_write_after_a_lost_fence,
    no_secret_in_clear,
    every_breaker_is_closed,
    no_unexpected_error,
)
