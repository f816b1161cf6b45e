"""The history of one day on a platform, for tests and pictures of the console.

The rows are written without the functions of the queue, so that they can have times of the past.
Otherwise they are as the functions would have left them.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

if TYPE_CHECKING:
    from pgworker.db.pool import Connection

PHASES = ("create_project", "await_project", "schema_sync", "smoke_checks")
STATUSES = ("creating_project", "waiting_for_project", "schema_syncing", "smoke_checking")
# The shortest and the longest duration of each phase, in seconds.
SECONDS = {
    "create_project": (1.2, 5),
    "await_project": (35, 130),
    "schema_sync": (1.5, 6),
    "smoke_checks": (0.4, 2.5),
}
WORKER = "worker-1:4711:a1b2c3"
NAMES = (
    "Acorn Dental", "Alder & Finch", "Arbour Yoga", "Baltic Freight", "Beacon Physio",
    "Birch Bakery", "Bluebell Nursery", "Brightside Solar", "Calder Legal", "Cedar Clinics",
    "Cobalt Cycles", "Copper Kettle", "Dovetail Joinery", "Driftwood Surf", "Elm Street Vets",
    "Fathom Diving", "Fernhill Farms", "Foxglove Florists", "Galley Kitchen", "Granite Climbing",
    "Harbour Books", "Hazel Opticians", "Heron Architects", "Indigo Prints", "Ivy Lettings",
    "Juniper Spa", "Kestrel Couriers", "Kiln Ceramics", "Lantern Films", "Larkspur Travel",
    "Linden School", "Maple Motors", "Marlin Marine", "Meadow Dairy", "Mistral Sailing",
    "Nettle Tea", "Northgate Gym", "Oakridge Estates", "Orchard Press", "Otter Swim School",
    "Pebble Games", "Pine Accounting", "Quarry Stone", "Quill Translations", "Rowan Recruitment",
    "Saffron Catering", "Sable Tailors", "Sorrel Spa", "Spruce Cleaning", "Sycamore Care",
    "Tallow Candles", "Tern Analytics", "Thistle Golf", "Umber Coffee", "Vale Insurance",
    "Verbena Skincare", "Walnut Music", "Willow Therapy", "Wren Robotics", "Yarrow Pharmacy",
)  # fmt: skip
QUOTA = (
    "the Management API answered 402 to POST /v1/projects: the organization has reached its limit "
    "of 50 projects; settle it in the organisation's billing settings"
)
MIGRATION = (
    '20260101000200_security.sql:41 (statement 7): relation "invoices" already exists [42P07]'
)


@dataclass
class SampleDay:
    """What was written: the clients' ids by their names."""

    clients: dict[str, UUID] = field(default_factory=dict)

    def __getitem__(self, name: str) -> UUID:
        return self.clients[name]


class _SampleWriter:
    def __init__(self, connection: Connection, now: datetime) -> None:
        self.connection, self.now = connection, now
        self.day = SampleDay()
        self.rng = random.Random(7)  # the same day each time
        self.names = iter(NAMES)
        self.events: list[tuple[Any, ...]] = []
        self.steps: list[tuple[Any, ...]] = []

    async def client(
        self,
        *,
        ago: float,
        phase: int,
        status: str,
        provisioning_status: str | None = None,
        error: str | None = None,
        kind: str | None = None,
        attempts: int = 0,
        waiting_for: str | None = None,
        run_at: timedelta = timedelta(0),
        name: str | None = None,
    ) -> UUID:
        """Write a client that was added so many minutes ago, with its history up to a phase."""
        at = self.now - timedelta(minutes=ago)
        added_at = at
        name = name or next(self.names)
        client_id = UUID(int=self.rng.getrandbits(128), version=4)
        ref = "".join(self.rng.choices("abcdefghijklmnopqrstuvwxyz", k=20))
        self.day.clients[name] = client_id
        job_id: int = await self.connection.fetchval(
            "insert into client_provisioning_jobs (client_id, job_type, status, attempts,"
            " last_error, error_kind, waiting_for, run_at, claimed_by, claimed_at,"
            " lease_expires_at, claim_token, created_at, checkpoint)"
            " values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, 1, $12, $13) returning id",
            client_id, PHASES[min(phase, 3)], status, attempts, error, kind, waiting_for,
            self.now + run_at,
            WORKER if status == "running" else None,
            self.now if status == "running" else None,
            self.now + timedelta(hours=1) if status == "running" else None,
            added_at,
            {"last_answer": "the project is COMING_UP (auth: UNHEALTHY)"} if phase == 1 else {},
        )  # fmt: skip

        def event(name: str, *, by: str = WORKER, to: str | None = None, **more: Any) -> None:
            detail = {key: more.pop(key) for key in ("waiting_for", "attempts") if key in more}
            self.events.append(
                (at, name, by, client_id, job_id, more.get("phase"), to or more.get("phase"),
                 more.get("kind"), more.get("error"), detail or None)
            )  # fmt: skip

        event("enqueued", by="sql:app", to=PHASES[0])
        at += timedelta(seconds=0.02)
        started_at = at
        if status != "queued" or phase:
            event("claimed", phase=PHASES[0])
        for index in range(phase):
            shortest, longest = SECONDS[PHASES[index]]
            # Everything is slower in the morning, and a few phases are slow at any time.
            hour = (ago / 60) % 24
            slow = 1 + 0.8 * (4 < hour < 8) + (self.rng.random() < 0.06) * 1.2
            ends_at = at + timedelta(seconds=self.rng.uniform(shortest, longest) * slow)
            if index == 0:
                self.steps.append((client_id, job_id, "create_project",
                                   f"pgworker-{client_id}", "done", at, ends_at))  # fmt: skip
            if index == 1:
                while at + timedelta(seconds=5) < ends_at:
                    event("snoozed", phase=PHASES[1], waiting_for="the project (COMING_UP)")
                    at += timedelta(seconds=5)
                    event("claimed", phase=PHASES[1])
            if index == 2:
                for version in ("20260101000000", "20260101000100", "20260101000200"):
                    self.steps.append((client_id, job_id, "apply_migration", version, "done",
                                       at, at + timedelta(seconds=0.4)))  # fmt: skip
            at = ends_at
            next_phase = PHASES[index + 1] if index < 3 else PHASES[3]
            event("advanced" if index < 3 else "succeeded", phase=PHASES[index], to=next_phase)
        for number in range(1, attempts + (status == "failed")):
            event("backed_off", phase=PHASES[phase], attempts=number, kind="transient",
                  error="no answer from the Management API: ConnectTimeout")  # fmt: skip
            at += timedelta(seconds=2**number)
            event("claimed", phase=PHASES[phase])
        if status == "failed":
            at += timedelta(seconds=self.rng.uniform(0.4, 2))
            event("failed", phase=PHASES[phase], kind=kind, error=error)
        elif status == "waiting":
            event("snoozed", phase=PHASES[phase], waiting_for=waiting_for, kind=kind, error=error)
        await self.connection.execute(
            "update client_provisioning_jobs set finished_at = $2, updated_at = $3 where id = $1",
            job_id, at if status in {"failed", "succeeded"} else None, at,
        )  # fmt: skip
        is_ready = status == "succeeded"
        await self.connection.execute(
            "insert into clients (id, name, auto_provision, provisioning_status,"
            " provisioning_error, provisioning_started_at, provisioning_completed_at,"
            " schema_version, project_ref, project_url, created_at)"
            " values ($1, $2, true, $3, $4, $5, $6, $7, $8, $9, $10)",
            client_id, name,
            provisioning_status or ("ready" if is_ready else STATUSES[phase]), error,
            started_at if status != "queued" else None, at if is_ready else None,
            "20260101000400" if phase > 2 else None, ref if phase else None,
            f"https://{ref}.example.com" if phase else None, added_at,
        )  # fmt: skip
        return client_id

    async def write(self) -> None:
        self.events.sort(key=lambda event: event[0])
        await self.connection.executemany(
            "insert into pgworker.event_log (at, event, actor, client_id, job_id, workflow,"
            " from_phase, to_phase, error_kind, error, detail)"
            " values ($1, $2, $3, $4, $5, 'provision', $6, $7, $8, $9, $10)",
            self.events,
        )
        await self.connection.executemany(
            "insert into pgworker.steps (client_id, job_id, step, target, state, intended_at,"
            " ended_at) values ($1, $2, $3, $4, $5, $6, $7)",
            self.steps,
        )


async def write_sample_day(connection: Connection, *, now: datetime | None = None) -> SampleDay:
    """Write the day into an empty platform, as a superuser."""
    # No trigger may add events of its own, or refuse times of the past.
    await connection.execute("set session_replication_role = replica")
    writer = _SampleWriter(connection, now or datetime.now(UTC))
    for _ in range(36):
        ago = writer.rng.triangular(4, 23 * 60, 300)
        await writer.client(ago=ago, phase=4, status="succeeded")
    for index in range(7):
        await writer.client(ago=52 - index * 3, phase=0, status="failed", kind="quota",
                            error=QUOTA, provisioning_status="failed")  # fmt: skip
    for index in range(3):
        await writer.client(ago=31 - index * 4, phase=2, status="failed", kind="permanent",
                            error=MIGRATION, provisioning_status="failed")  # fmt: skip
    ref = "qkzjwhbvtrmpxclydnas"
    await writer.client(
        ago=74, phase=1, status="failed", kind="permanent", provisioning_status="failed",
        error=f"project {ref} is not up after 1200 s (COMING_UP): look at the provider's dashboard "
        "or ask its support, then retry",
    )  # fmt: skip
    for index in range(3):
        await writer.client(ago=1.5 - index * 0.3, phase=1, status="waiting",
                            waiting_for="the project (COMING_UP)",
                            run_at=timedelta(seconds=70 + 4 * index))  # fmt: skip
    await writer.client(
        ago=2, phase=2, status="waiting", attempts=3, kind="transient",
        waiting_for="the next try after an error", run_at=timedelta(seconds=95),
        error="no answer from the Management API to POST /v1/projects/{ref}/database/query: "
        "ConnectTimeout",
    )  # fmt: skip
    await writer.client(ago=0.9, phase=2, status="running")
    await writer.client(ago=1.1, phase=3, status="running")
    for _ in range(2):
        await writer.client(ago=0.2, phase=0, status="queued", provisioning_status="queued")
    await writer.write()
    for index, (host, state, seen) in enumerate(
        (("worker-1", "running", 2), ("worker-2", "running", 4), ("worker-3", "stopped", 5400))
    ):
        await connection.execute(
            "insert into pgworker.workers (id, hostname, pid, version, concurrency, lease, state,"
            " started_at, last_seen_at) values ($1, $2, $3, '0.1.0', 20, $4, $5, $6, $7)",
            WORKER if index == 0 else f"{host}:{4711 + index}:d4e5f6",
            host, 4711 + index, timedelta(hours=1), state,
            writer.now - timedelta(hours=9), writer.now - timedelta(seconds=seen),
        )  # fmt: skip
    await connection.execute("reset session_replication_role")
    return writer.day
