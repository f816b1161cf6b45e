"""The real SQL functions against a model of a few lines, along random paths."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from pgworker.db.pool import open_pool
from pgworker.errors import LeaseLost, NotRetryable
from pgworker.models import ErrorKind, JobStatus
from tests.support.jobs import PHASES, JobsInTest
from tests.support.server import create_database, drop_database, make_template

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator
    from uuid import UUID

    from pgworker.db.pool import Pool
    from pgworker.models import Job
    from tests.support.server import RunServer

LIVE = {"queued", "running", "waiting"}
CLIENT_STATUS = dict(
    zip(
        PHASES,
        ("creating_project", "waiting_for_project", "schema_syncing", "smoke_checking"),
        strict=True,
    )
)
MAX_CRASHES = 5


@dataclass
class Model:
    """What a job must look like."""

    client: int
    status: str = "queued"
    phase: str = PHASES[0]
    attempts: int = 0
    crashes: int = 0
    token: int = 0
    due: bool = True
    lease_over: bool = False
    tokens: list[int] = field(default_factory=list)


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    made = asyncio.new_event_loop()
    yield made
    made.close()


def test_no_sequence_of_calls_breaks_the_promises(
    server: RunServer, loop: asyncio.AbstractEventLoop
) -> None:
    opened = AsyncExitStack()

    async def make() -> tuple[str, Pool]:
        await make_template(server)
        name = await create_database(server, template=server.template)
        return name, await opened.enter_async_context(open_pool(server.dsn_of(name), max_size=2))

    name, pool = loop.run_until_complete(make())
    jobs = JobsInTest(pool)

    class Machine(QueueMachine):
        def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
            return loop.run_until_complete(coroutine)

    Machine.jobs = jobs
    try:
        run_state_machine_as_test(
            Machine,
            settings=settings(
                max_examples=30,
                stateful_step_count=30,
                deadline=None,
                derandomize=True,
                suppress_health_check=list(HealthCheck),
            ),
        )
    finally:
        loop.run_until_complete(opened.aclose())
        loop.run_until_complete(drop_database(server, name))


class QueueMachine(RuleBasedStateMachine):
    """Two clients, any number of workers that hold claims, good and stale."""

    jobs: JobsInTest
    claims = Bundle("claims")

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        raise NotImplementedError

    @initialize()
    def begin(self) -> None:
        self.model: dict[int, Model] = {}
        self.clients: list[UUID] = []
        self.run(self._empty())

    async def _empty(self) -> None:
        # The audit trail can't be emptied, and needn't be: ids are never used again.
        await self.jobs.pool.execute("delete from client_provisioning_jobs")
        await self.jobs.pool.execute("delete from clients")
        self.clients = [await self.jobs.add_client(name) for name in ("A", "B")]

    def live(self, client: int) -> int | None:
        for job_id, job in self.model.items():
            if job.client == client and job.status in LIVE:
                return job_id
        return None

    def holds(self, job: Job) -> bool:
        known = self.model.get(job.id)
        return known is not None and known.status == "running" and known.token == job.claim_token

    # -- what people do -------------------------------------------------------------------

    @rule(client=st.integers(0, 1))
    def enqueue(self, client: int) -> None:
        job_id = self.run(
            self.jobs.pool.fetchval("select pgworker.enqueue($1)", self.clients[client])
        )
        live = self.live(client)
        if live is not None:
            assert job_id == live
            return
        for job in self.model.values():
            if job.client == client and job.status == "failed":
                job.status = "cancelled"
        self.model[job_id] = Model(client)

    @rule(client=st.integers(0, 1))
    def retry(self, client: int) -> None:
        own = {i: job for i, job in self.model.items() if job.client == client}
        failed = [i for i, job in own.items() if job.status == "failed"]
        last = own[max(own)].status if own else None
        try:
            job_id = self.run(self.jobs.commands.retry(self.clients[client]))
        except NotRetryable:
            assert not failed
            assert last != "cancelled"
            return
        if failed:
            assert job_id == failed[0]
            self.back_in_line(self.model[job_id])
        else:
            assert last == "cancelled"
            self.model[job_id] = Model(client)

    @rule(client=st.integers(0, 1))
    def cancel(self, client: int) -> None:
        count = self.run(self.jobs.commands.cancel(self.clients[client]))
        ended = [
            job
            for job in self.model.values()
            if job.client == client and job.status in LIVE | {"failed"}
        ]
        assert count == len(ended)
        for job in ended:
            job.status = "cancelled"
            job.token += 1

    @rule(client=st.integers(0, 1))
    def reset_by_plain_sql(self, client: int) -> None:
        self.run(
            self.jobs.pool.execute(
                "update client_provisioning_jobs set attempts = 0, claimed_at = null"
                " where client_id = $1",
                self.clients[client],
            )
        )
        for job in self.model.values():
            if job.client == client:
                job.attempts = 0
                if job.status in {"failed", "running", "waiting"}:
                    self.back_in_line(job)

    @staticmethod
    def back_in_line(job: Model) -> None:
        job.status, job.due = "queued", True
        job.attempts = job.crashes = 0
        job.token += 1

    # -- time -----------------------------------------------------------------------------

    @rule()
    def leases_run_out(self) -> None:
        for job_id, job in self.model.items():
            if job.status == "running":
                self.run(self.jobs.let_lease_expire(job_id))
                job.lease_over = True

    @rule()
    def waits_end(self) -> None:
        for job_id, job in self.model.items():
            if job.status == "waiting":
                self.run(self.jobs.let_wait_end(job_id))
                job.due = True

    # -- what workers do ------------------------------------------------------------------

    @rule(target=claims)
    def claim(self) -> Job | None:
        silent = [job for job in self.model.values() if job.status == "running" and job.lease_over]
        for job in silent:
            if job.crashes + 1 >= MAX_CRASHES:
                job.status = "failed"
                job.crashes += 1
                job.token += 1
        due = {
            job_id
            for job_id, job in self.model.items()
            if (job.status in {"queued", "waiting"} and job.due)
            or (job.status == "running" and job.lease_over)
        }
        claimed = self.run(self.jobs.claim(1))
        if not claimed:
            assert not due
            return None
        taken: Job = claimed[0]
        assert taken.id in due
        known = self.model[taken.id]
        known.crashes += known.status == "running"
        known.status, known.lease_over = "running", False
        known.token += 1
        assert (taken.claim_token, taken.attempts, taken.job_type) == (
            known.token,
            known.attempts,
            known.phase,
        )
        known.tokens.append(taken.claim_token)
        return taken

    @rule(job=claims)
    def heartbeat(self, job: Job | None) -> None:
        if job is not None and self.accepted(job, self.run(self.jobs.heartbeat(job))):
            self.model[job.id].lease_over = False

    @rule(job=claims, phase=st.sampled_from(PHASES))
    def advance(self, job: Job | None, phase: str) -> None:
        if job is not None and self.accepted(job, self.run(self.jobs.advance(job, phase))):
            known = self.model[job.id]
            if known.phase != phase:
                known.phase, known.lease_over = phase, False
                known.attempts = known.crashes = 0

    @rule(job=claims)
    def complete(self, job: Job | None) -> None:
        if job is not None and self.accepted(job, self.run(self.jobs.complete(job))):
            self.model[job.id].status = "succeeded"

    @rule(job=claims)
    def snooze(self, job: Job | None) -> None:
        if job is not None and self.accepted(
            job, self.run(self.jobs.snooze(job, timedelta(hours=1)))
        ):
            self.model[job.id].status, self.model[job.id].due = "waiting", False

    @rule(job=claims)
    def release(self, job: Job | None) -> None:
        if job is not None and self.accepted(job, self.run(self.jobs.release(job))):
            self.model[job.id].status, self.model[job.id].due = "queued", True

    @rule(job=claims, retry=st.booleans())
    def fail(self, job: Job | None, retry: bool) -> None:
        if job is None:
            return
        held = self.holds(job)
        try:
            status = self.run(self.jobs.fail(job, kind=ErrorKind.UNKNOWN, retry=retry))
        except LeaseLost:
            assert not held
            return
        assert held
        known = self.model[job.id]
        known.attempts += 1
        assert status == ("waiting" if retry and known.attempts < 10 else "failed")
        known.status, known.due = status, False
        if status == "waiting":
            # The back-off is random: an hour makes it a wait for certain.
            self.run(
                self.jobs.pool.execute(
                    "update client_provisioning_jobs set run_at = now() + interval '1 hour'"
                    " where id = $1",
                    job.id,
                )
            )

    def accepted(self, job: Job, refused: set[int]) -> bool:
        held = self.holds(job)
        assert refused == (set() if held else {job.id})
        return held

    # -- what always holds ----------------------------------------------------------------

    @invariant()
    def rows_are_as_the_model_says(self) -> None:
        for job_id, job in self.model.items():
            row = self.run(self.jobs.fetch_row(job_id))
            assert (
                row["status"],
                row["job_type"],
                row["attempts"],
                row["crashes"],
                row["claim_token"],
            ) == (job.status, job.phase, job.attempts, job.crashes, job.token)
            assert (row["claimed_by"] is not None) == (job.status == "running")
            assert (row["claimed_at"] is not None) == (job.status == "running")
            assert (row["lease_expires_at"] is not None) == (job.status == "running")
            over = job.status in {"failed", "succeeded", "cancelled"}
            assert (row["finished_at"] is not None) == over
            assert job.tokens == sorted(set(job.tokens))

    @invariant()
    def a_client_has_one_live_job_and_shows_its_state(self) -> None:
        for index, client_id in enumerate(self.clients):
            own = {i: job for i, job in self.model.items() if job.client == index}
            assert sum(job.status in LIVE for job in own.values()) <= 1
            shown = self.run(
                self.jobs.pool.fetchval(
                    "select provisioning_status from clients where id = $1", client_id
                )
            )
            if not own:
                assert shown == "not_provisioned"
                continue
            newest = own[max(own)]
            expected = {
                "queued": {"queued", CLIENT_STATUS[newest.phase]},  # released: still its phase
                "running": {CLIENT_STATUS[newest.phase]},
                "waiting": {CLIENT_STATUS[newest.phase]},
                "succeeded": {"ready"},
            }.get(newest.status, {newest.status})
            assert shown in expected

    @invariant()
    def the_audit_trail_has_no_gap(self) -> None:
        for job_id, job in self.model.items():
            events = self.run(self.jobs.fetch_events(job_id))
            assert events[0]["event"] == "enqueued"
            for before, after in pairwise(events):
                assert after["from_status"] == before["to_status"]
                assert after["from_phase"] == before["to_phase"]
                assert after["claim_token"] >= before["claim_token"]
            assert events[-1]["to_status"] == job.status
            assert events[-1]["to_phase"] == job.phase
            assert JobStatus(job.status)
