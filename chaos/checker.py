"""The invariants: what must be true of a campaign's end, whatever died in it, and whenever.

Judges by `Evidence` alone, which holds what databases and the simulator's ledger say.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from chaos import audit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from chaos.snapshot import Evidence, Platform, Row

LIVE = {"queued", "running", "waiting"}
UNFINISHED = {"queued", "creating_project", "waiting_for_project", "schema_syncing",
              "smoke_checking"}  # fmt: skip
PROVIDER_KEYS = 2
SHORTEST_SECRET = 9
TRACEBACK = "Traceback (most recent call last)"
# What asyncio says when nobody waits for a connection any more: a phase that was cancelled leaves
# asyncpg to take its connection back, which then breaks. Ends with the last error of the chain.
OF_A_DROPPED_CONNECTION = re.compile(
    r"^Task exception was never retrieved\n(?:[^{\n].*\n|\n)*?"
    r"(?:asyncpg\.exceptions\.|ConnectionResetError|TimeoutError|OSError).*\n(?=\{|\Z)",
    re.MULTILINE,
)


@dataclass(frozen=True, slots=True)
class Violation:
    """An invariant that doesn't hold, and of whom."""

    invariant: str
    subject: str
    what: str

    def __str__(self) -> str:
        return f"{self.invariant}: {self.subject}: {self.what}"


@dataclass(frozen=True, slots=True)
class Expected:
    """What the campaign knows of its own end.

    Attributes:
        versions: of the canonical migrations, in order.
        runs: those of them that write down that they ran.
        is_over: nothing is in hand any more.
        all_ready: nobody should be left in the hands of a person.
    """

    versions: Sequence[str]
    runs: Sequence[str]
    is_over: bool = True
    all_ready: bool = True


Found = Iterator[tuple[str, str]]


def check(evidence: Evidence, expected: Expected) -> list[Violation]:
    """Return every violation."""
    return [
        Violation(invariant.__name__, subject, what)
        for invariant in INVARIANTS
        for subject, what in invariant(evidence, expected)
    ]


def _clients(evidence: Evidence) -> Iterator[tuple[Platform, Row]]:
    for platform in evidence.platforms:
        for client in platform.clients:
            yield platform, client


def _jobs_of(platform: Platform, client: Row) -> list[Row]:
    return [job for job in platform.jobs if job["client_id"] == client["id"]]


def _intent_of(platform: Platform, client: Row) -> Row | None:
    found = [row for row in platform.intents if row["client_id"] == client["id"]]
    return found[0] if found else None


def _events_by_job(platform: Platform) -> dict[int, list[Row]]:
    events: dict[int, list[Row]] = defaultdict(list)
    for event in platform.events:
        if event["job_id"] is not None:
            events[event["job_id"]].append(event)
    return events


def _named(client: Row) -> str:
    return f"client {client['id']}"


# -- projects ---------------------------------------------------------------------------------


def one_project_per_client(evidence: Evidence, _: Expected) -> Found:
    """Nothing was made twice, and no two clients share one."""
    if evidence.ledger is not None:
        created = Counter(project["name"] for project in evidence.ledger["created"])
        for name, count in created.items():
            if count > 1:
                refs = [p["ref"] for p in evidence.ledger["created"] if p["name"] == name]
                yield f"project {name}", f"created {count} times: {', '.join(refs)}"
        keys = Counter(
            entry["project"]
            for entry in evidence.ledger["entries"]
            if entry["operation"] == "create_api_key" and entry["took_effect"]
        )
        for ref, count in keys.items():
            if count > PROVIDER_KEYS:
                yield f"project {ref}", f"{count} API keys were created"
    refs_in_use = Counter(
        client["project_ref"] for _, client in _clients(evidence) if client["project_ref"]
    )
    for ref, count in refs_in_use.items():
        if count > 1:
            yield f"project {ref}", f"{count} clients have it"


def no_orphan(evidence: Evidence, expected: Expected) -> Found:
    """Whatever exists outside belongs to a client that knows of it."""
    refs = {client["project_ref"] for _, client in _clients(evidence)}
    # A person finds what is still open by its intent; when all is well there is none.
    meant = {
        row["name"]
        for platform in evidence.platforms
        for row in platform.intents
        if row["ref"] is None and not expected.all_ready
    }
    for project in evidence.ledger["created"] if evidence.ledger is not None else ():
        if project["ref"] not in refs and project["name"] not in meant:
            yield f"project {project['ref']}", f"paid for, and no client has it ({project['name']})"
    for database in evidence.databases:
        if database["name"] not in refs and database["name"] not in meant:
            yield f"database {database['name']}", "no client has it"
        if database["owner"] != database["name"]:
            yield f"database {database['name']}", f"it belongs to {database['owner']}"
    names = {database["name"] for database in evidence.databases}
    for role in evidence.roles:
        if role not in names and role not in meant:
            yield f"role {role}", "it is left without a database"


def nothing_half_made(evidence: Evidence, _: Expected) -> Found:
    """What a client uses is whole: its database is there, and closed to others."""
    databases = {database["name"]: database for database in evidence.databases}
    for platform, client in _clients(evidence):
        if client["provisioning_status"] != "ready":
            continue
        intent = _intent_of(platform, client)
        if intent is None or intent["ref"] != client["project_ref"]:
            yield _named(client), f"its intent doesn't tell of {client['project_ref']}"
        elif intent["provider"] == "postgres":
            database = databases.get(client["project_ref"])
            if database is None:
                yield _named(client), f"its database {client['project_ref']} isn't there"
            elif not database["is_closed"]:
                yield _named(client), f"its database {client['project_ref']} is open to everybody"


# -- clients ----------------------------------------------------------------------------------


def no_lost_client(evidence: Evidence, expected: Expected) -> Found:
    """Every client ended ready, or in the hands of a person who is told why."""
    for platform, client in _clients(evidence):
        status, jobs = client["provisioning_status"], _jobs_of(platform, client)
        if not client["auto_provision"]:
            continue
        if not jobs:
            yield _named(client), "it has no job"
            continue
        newest = jobs[-1]
        if expected.is_over and newest["status"] in LIVE:
            yield _named(client), f"its job is {newest['status']} and nobody is at it"
        if newest["status"] not in LIVE and status in UNFINISHED:
            yield _named(client), f"it shows {status}, and its job is {newest['status']}"
        if (newest["status"] == "succeeded") is not (status == "ready"):
            yield _named(client), f"it is {status} and its job {newest['status']}"
        if newest["status"] == "failed":
            if not client["provisioning_error"] or newest["error_kind"] is None:
                yield _named(client), "it failed and nobody is told why"
            elif expected.all_ready:
                yield _named(client), f"it failed: {client['provisioning_error']}"
        if status == "ready" and client["provisioning_error"] is not None:
            yield _named(client), f"it is ready with the error {client['provisioning_error']}"


def one_live_job_per_client(evidence: Evidence, _: Expected) -> Found:
    """A client's workflow is carried by one job at a time."""
    for platform in evidence.platforms:
        live = Counter(
            (job["client_id"], job["workflow"]) for job in platform.jobs if job["status"] in LIVE
        )
        for (client_id, workflow), count in live.items():
            if count > 1:
                yield f"client {client_id}", f"{count} live jobs of {workflow}"


def history_is_complete(evidence: Evidence, expected: Expected) -> Found:
    """A ready client has the whole canonical schema, each file applied once."""
    for _, client in _clients(evidence):
        if client["provisioning_status"] != "ready":
            continue
        tenant = evidence.tenants.get(client["project_ref"])
        if tenant is None:
            yield _named(client), "it has no tenant"
            continue
        if tenant.history != tuple(expected.versions):
            yield _named(client), f"its history is {tenant.history}"
        if tenant.runs != tuple(expected.runs):
            yield _named(client), f"files that ran: {tenant.runs}"
        if client["schema_version"] != expected.versions[-1]:
            yield _named(client), f"it shows the schema version {client['schema_version']}"


def credentials_work(evidence: Evidence, _: Expected) -> Found:
    """What is stored of a ready client opens, and lets in."""
    for platform in evidence.platforms:
        for message in platform.unsealable:
            yield platform.name, message
    for platform, client in _clients(evidence):
        if client["provisioning_status"] != "ready":
            continue
        fields = platform.secrets.get(client["id"], {})
        tenant = evidence.tenants.get(client["project_ref"])
        if tenant is not None and tenant.login is not None:
            yield _named(client), f"its stored password is refused: {tenant.login}"
        if "dsn" not in fields:
            yield _named(client), "no DSN is stored"
        if evidence.ledger is not None and not (
            fields.keys() & {"publishable_key", "anon_key"}
            and fields.keys() & {"secret_key", "service_role_key"}
        ):
            yield _named(client), f"keys are missing: {sorted(fields)} are stored"


def every_step_has_an_outcome(evidence: Evidence, _: Expected) -> Found:
    """Of a ready client nothing done outside is left open, and nothing was done twice."""
    for platform, client in _clients(evidence):
        if client["provisioning_status"] != "ready":
            continue
        steps = [step for step in platform.steps if step["client_id"] == client["id"]]
        for step in steps:
            if step["state"] in {"intended", "unknown"}:
                yield _named(client), f"{step['step']} {step['target']} is still {step['state']}"
        done = Counter((s["step"], s["target"]) for s in steps if s["state"] == "done")
        for (step, target), count in done.items():
            if count > 1 and step != "set_password":
                yield _named(client), f"{step} {target} is recorded as done {count} times"


# -- the audit trail --------------------------------------------------------------------------


def audit_trail_has_no_gap(evidence: Evidence, _: Expected) -> Found:
    """The events of a job chain from its beginning to where it is."""
    for platform in evidence.platforms:
        events = _events_by_job(platform)
        for job in platform.jobs:
            for what in audit.gaps(job, events[job["id"]]):
                yield f"{platform.name}: job {job['id']}", what


def no_attempt_is_miscounted(evidence: Evidence, _: Expected) -> Found:
    """Each failed try counts once, and so does each crash."""
    for platform in evidence.platforms:
        events = _events_by_job(platform)
        for job in platform.jobs:
            for what in audit.miscounts(job, events[job["id"]]):
                yield f"{platform.name}: job {job['id']}", what


def no_write_after_a_lost_fence(evidence: Evidence, _: Expected) -> Found:
    """Only the holder of a job writes, for as long as it holds it."""
    for platform in evidence.platforms:
        for job_id, events in _events_by_job(platform).items():
            for what in audit.stale_events(events):
                yield f"{platform.name}: job {job_id}", what
        for write in platform.writes:
            if (stale := _stale(write)) is not None:
                yield f"{platform.name}: client {write['client_id']}", stale


def _stale(write: Row) -> str | None:
    """Tell what is wrong with a write that a witness saw; only workers name their process."""
    if write["writer_pid"] is None or write["client_id"] is None:
        return None
    what = f"process {write['writer_pid']} wrote {write['wrote']} at {write['at']}"
    holder: str = write["holder"] or ""
    if holder.startswith("sql:"):
        return None
    if write["job_status"] != "running":
        return f"{what} when its job was {write['job_status']}"
    if _pid_of(holder) != write["writer_pid"]:
        return f"{what} when {holder} held the job"
    return None


def _pid_of(worker: str) -> str:
    return worker.split(":")[-2] if worker.count(":") > 1 else ""


# -- secrets and leftovers --------------------------------------------------------------------


def no_secret_in_clear(evidence: Evidence, _: Expected) -> Found:
    """No table of the platform, and no log, holds a secret that can be read."""
    values: dict[str, str] = dict.fromkeys(evidence.foreign_secrets, "a secret of ours")
    for platform in evidence.platforms:
        for client_id, fields in platform.secrets.items():
            values |= {value: f"{name} of client {client_id}" for name, value in fields.items()}
    for value, what in values.items():
        if len(value) < SHORTEST_SECRET:
            yield what, "it is too short to be a secret"
            continue
        for platform in evidence.platforms:
            for table, text in platform.texts.items():
                if value in text or value.encode().hex() in text:
                    yield f"{platform.name}: {table}", f"it holds {what}"
        for name, text in evidence.logs.items():
            if value in text:
                yield f"the log of {name}", f"it holds {what}"


def every_breaker_is_closed(evidence: Evidence, expected: Expected) -> Found:
    """When the provider takes the credential again, nobody is kept waiting."""
    for platform in evidence.platforms:
        for breaker in platform.breakers if expected.is_over and expected.all_ready else ():
            yield f"{platform.name}: {breaker['credential']}", "its breaker is still open"


def nothing_unforeseen(evidence: Evidence, _: Expected) -> Found:
    """No worker met an error that nobody had thought of."""
    for name, text in evidence.logs.items():
        lines = OF_A_DROPPED_CONNECTION.sub("", text).splitlines()
        for number, line in enumerate(lines):
            if '"phase_crashed"' in line or TRACEBACK in line:
                yield f"the log of {name}", "\n".join(lines[number : number + 60])[:4000]
                break


INVARIANTS: tuple[Callable[[Evidence, Expected], Found], ...] = (
    one_project_per_client,
    no_orphan,
    nothing_half_made,
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
    nothing_unforeseen,
)


def as_json(violations: Sequence[Violation]) -> list[dict[str, Any]]:
    """Return violations as a report shows them."""
    return [{"invariant": v.invariant, "subject": v.subject, "what": v.what} for v in violations]
