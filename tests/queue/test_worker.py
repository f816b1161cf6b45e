"""The worker, with a real database and phases made by hand."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from structlog.testing import capture_logs

from pgworker import telemetry
from pgworker.errors import (
    CredentialRefused,
    JobError,
    OutcomeUnknown,
    Permanent,
    QuotaExceeded,
    Throttled,
    Transient,
)
from pgworker.models import Advance, Complete, Done, Job, JobStatus, Snooze, Transition
from pgworker.queue.jobs import Jobs
from tests.support.jobs import PHASES, jobs_in
from tests.support.polling import wait_for_log
from tests.support.tcp_proxy import running_proxy_to
from tests.support.workers import (
    DONE,
    NEVER,
    SHORT_LEASE,
    TIMEOUT,
    PhaseInTest,
    complete_at_once,
    within,
    working,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from opentelemetry.sdk.metrics.export import InMemoryMetricReader
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    from pgworker.db.pool import Pool
    from tests.support.jobs import JobsInTest
    from tests.support.workers import RunPhase


class JobsThatAnswerLate(Jobs):
    """The queue for a worker that learns late that its snooze is committed."""

    def __init__(self, pool: Pool) -> None:
        super().__init__(pool, worker="worker", lease=timedelta(seconds=30))
        self.snoozed = asyncio.Event()
        self.may_answer = asyncio.Event()

    async def snooze(self, steps: Sequence[tuple[Job, Snooze]]) -> set[int]:
        refused = await super().snooze(steps)
        self.snoozed.set()
        await self.may_answer.wait()
        return refused


# -- claiming ---------------------------------------------------------------------------------


async def test_it_claims_up_to_its_free_slots_with_one_statement(jobs: JobsInTest) -> None:
    await jobs.add_many(10)
    phase = PhaseInTest()

    async with working(jobs.pool, phase, concurrency=4):
        for _ in range(4):
            await phase.next_job()
        assert phase.started.empty()
        # One statement is one transaction, and gives all of them one time.
        rows = await jobs.pool.fetch(
            "select claimed_at, count(*) as jobs from client_provisioning_jobs"
            " where status = 'running' group by claimed_at"
        )
        assert [row["jobs"] for row in rows] == [4]
        phase.may_end.set()
        for _ in range(6):
            await phase.next_job()


async def test_a_job_that_is_due_again_before_its_snooze_is_answered_goes_on_as_another_claim(
    jobs: JobsInTest,
) -> None:
    job_id = await jobs.add()
    late, phase = JobsThatAnswerLate(jobs.pool), PhaseInTest()

    async def snooze_first(job: Job) -> Transition:
        if job.claim_token == 1:
            return Snooze(timedelta(0), reason="nothing")
        return await phase(job)

    async with working(jobs.pool, snooze_first, jobs=late) as worker:
        await within(late.snoozed.wait())
        worker.wake()
        again = await phase.next_job()
        late.may_answer.set()
        phase.outcome = Advance("await_project", Done())
        phase.may_end.set()
        following = await phase.next_job()
        phase.outcome = DONE
        assert await jobs.wait_for_status(job_id, JobStatus.SUCCEEDED)

    assert again.claim_token == following.claim_token == 2


async def test_until_empty_it_ends_when_all_is_done(jobs: JobsInTest) -> None:
    await jobs.add_many(50)

    async with working(jobs.pool, complete_at_once, until_empty=True, concurrency=7):
        pass

    assert (await jobs.as_worker("w").outstanding()).live == 0
    assert (
        await jobs.pool.fetchval("select count(*) from clients where provisioning_status='ready'")
        == 50
    )


async def test_two_workers_share_200_jobs_and_do_each_once(jobs: JobsInTest, database: str) -> None:
    await jobs.add_many(200)
    done: Counter[int] = Counter()
    arrived = {"one": asyncio.Event(), "two": asyncio.Event()}

    def phase_of(worker: str) -> RunPhase:
        async def phase(job: Job) -> Transition:
            done[job.id] += 1
            arrived[worker].set()
            # One that is slow to connect finds its share.
            for each in arrived.values():
                await each.wait()
            return DONE

        return phase

    async with (
        jobs_in(database) as others,
        working(jobs.pool, phase_of("one"), worker_id="one", until_empty=True),
        working(others.pool, phase_of("two"), worker_id="two", until_empty=True),
    ):
        pass

    assert len(done) == 200
    assert set(done.values()) == {1}


async def test_a_wake_up_starts_a_job_long_before_the_poll(jobs: JobsInTest, database: str) -> None:
    phase = PhaseInTest()
    async with working(jobs.pool, phase, listen=database):
        # The first one may be found by the look that a listener asks for when it has connected.
        for name in ("first", "second"):
            job_id = await jobs.add(name)
            assert (await phase.next_job()).id == job_id


async def test_without_a_listener_it_finds_jobs_by_polling(jobs: JobsInTest) -> None:
    phase = PhaseInTest()
    async with working(jobs.pool, phase, poll=timedelta(milliseconds=50)):
        job_id = await jobs.add()
        assert (await phase.next_job()).id == job_id


async def test_a_job_that_falls_due_is_started_then_and_not_at_the_poll(
    jobs: JobsInTest,
) -> None:
    job_id = await jobs.add_with_status(JobStatus.WAITING)
    await jobs.update(job_id, run_at=await jobs.pool.fetchval("select now() + interval '0.3 s'"))
    phase = PhaseInTest()

    async with working(jobs.pool, phase):
        assert (await phase.next_job()).id == job_id


class JobsThatFallDueInBetween(Jobs):
    """The queue in which a job falls due after a claim, and before the next look at the time."""

    def __init__(self, jobs: JobsInTest, job_id: int) -> None:
        super().__init__(jobs.pool, worker="worker", lease=timedelta(seconds=30))
        self._jobs_in_test = jobs
        self._job_id = job_id

    async def seconds_until_due(self) -> float | None:
        if await self._jobs_in_test.fetch_status(self._job_id) is JobStatus.WAITING:
            await self._jobs_in_test.let_wait_end(self._job_id)
        return await super().seconds_until_due()


async def test_a_job_that_falls_due_right_after_a_claim_starts_at_once(
    jobs: JobsInTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pgworker.queue.worker.RECHECK", NEVER)
    job_id = await jobs.add_with_status(JobStatus.WAITING)
    phase = PhaseInTest()

    async with working(jobs.pool, phase, jobs=JobsThatFallDueInBetween(jobs, job_id)):
        assert (await phase.next_job()).id == job_id


class JobsThatComeDueLate(Jobs):
    """Nothing is due at the first two claims, and something is right after the second."""

    def __init__(self, pool: Pool, *, worker: str, lease: timedelta) -> None:
        super().__init__(pool, worker=worker, lease=lease)
        self.claims = 0

    async def claim(self, limit: int, workflows: Sequence[str], **how: int) -> list[Job]:
        self.claims += 1
        return [] if self.claims <= 2 else await super().claim(limit, workflows, **how)

    async def seconds_until_due(self) -> float | None:
        return {1: 0.001, 2: -0.001}.get(self.claims) or await super().seconds_until_due()


async def test_a_worker_that_claims_a_moment_too_early_claims_again_at_once(
    jobs: JobsInTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pgworker.queue.worker.RECHECK", NEVER)
    job_id = await jobs.add()
    late = JobsThatComeDueLate(jobs.pool, worker="worker", lease=timedelta(seconds=30))

    async with working(jobs.pool, complete_at_once, jobs=late):
        assert await jobs.wait_for_status(job_id, JobStatus.SUCCEEDED)


async def test_a_due_job_that_cannot_be_claimed_is_asked_for_about_once_a_second(
    jobs: JobsInTest,
) -> None:
    await jobs.add_many(3)
    await jobs.commands.pause("all")
    claims = 0

    class CountingJobs(Jobs):
        async def claim(self, limit: int, workflows: Sequence[str], **how: int) -> list[Job]:
            nonlocal claims
            claims += 1
            return await super().claim(limit, workflows, **how)

    counting = CountingJobs(jobs.pool, worker="worker", lease=timedelta(seconds=30))
    phase = PhaseInTest()
    async with working(jobs.pool, phase, jobs=counting):
        async with asyncio.timeout(TIMEOUT.total_seconds()):
            while claims < 4:
                await jobs.pool.fetchval("select 1")
        await jobs.commands.resume("all")
        await phase.next_job()

    # Two in a row, then one a second: a machine may be slow, but it doesn't spin.
    assert claims < 20


async def test_a_short_wait_is_kept_while_another_phase_runs_long(jobs: JobsInTest) -> None:
    long = await jobs.add("long")
    short = await jobs.add("short")
    runs: asyncio.Queue[int] = asyncio.Queue()

    async def phase(job: Job) -> Transition:
        runs.put_nowait(job.id)
        if job.id == long:
            await asyncio.Event().wait()
        return Snooze(timedelta(milliseconds=100), reason="a moment")

    # The wake-ups that the running lease would bring are hours away.
    async with working(jobs.pool, phase, lease=NEVER):
        seen = [await within(runs.get()) for _ in range(4)]

    assert seen.count(short) == 3


async def test_a_thousand_waiting_jobs_cost_no_slot_and_no_connection(
    jobs: JobsInTest, database: str
) -> None:
    await jobs.add_many(1000)
    asleep = asyncio.Event()
    seen: set[int] = set()

    async def phase(job: Job) -> Transition:
        seen.add(job.id)
        if len(seen) == 1000:
            asleep.set()
        return Snooze(timedelta(minutes=10), reason="the project")

    async with (
        jobs_in(database, application_name="pgworker") as others,
        working(others.pool, phase, listen=database),
    ):
        await within(asleep.wait())
        last = await jobs.add("the 1001st")
        async with asyncio.timeout(TIMEOUT.total_seconds()):
            while await jobs.fetch_status(last) is not JobStatus.WAITING:
                pass
        connections = await jobs.pool.fetchval(
            "select count(*) from pg_stat_activity where datname = current_database()"
            " and application_name like 'pgworker%'"
        )

    assert connections <= 9
    assert await jobs.pool.fetchval("select sum(attempts) from client_provisioning_jobs") == 0


# -- leases -----------------------------------------------------------------------------------


async def test_leases_of_all_jobs_are_renewed_with_one_statement(jobs: JobsInTest) -> None:
    await jobs.add_many(5)
    phase = PhaseInTest()
    async with working(jobs.pool, phase, lease=SHORT_LEASE):
        for _ in range(5):
            await phase.next_job()
        claimed = await jobs.pool.fetchval(
            "select max(lease_expires_at) from client_provisioning_jobs"
        )
        async with asyncio.timeout(TIMEOUT.total_seconds()):
            while (
                await jobs.pool.fetchval(
                    "select min(lease_expires_at) from client_provisioning_jobs"
                )
            ) <= claimed:
                pass
        leases = await jobs.pool.fetchval(
            "select count(distinct lease_expires_at) from client_provisioning_jobs"
        )
        assert leases == 1
        assert not phase.cancelled.is_set()


async def test_a_lost_lease_cancels_the_phase_and_nothing_is_written(jobs: JobsInTest) -> None:
    job_id = await jobs.add()
    phase = PhaseInTest()
    async with working(jobs.pool, phase, lease=SHORT_LEASE):
        await phase.next_job()
        await jobs.commands.cancel((await jobs.fetch_row(job_id))["client_id"])
        before = await jobs.fetch_row(job_id)
        await within(phase.cancelled.wait())

    assert await jobs.fetch_row(job_id) == before
    assert phase.ended == []


async def test_a_worker_that_claims_its_own_silent_job_again_runs_it_once(
    jobs: JobsInTest,
) -> None:
    job_id = await jobs.add()
    phase = PhaseInTest()

    async with working(jobs.pool, phase, lease=SHORT_LEASE) as worker:
        first = await phase.next_job()
        # As if the process had been frozen for longer than its lease, and the claim came first:
        # here the heartbeat may come first, and then it is done again.
        async with asyncio.timeout(TIMEOUT.total_seconds()):
            while phase.started.empty():
                await jobs.let_lease_expire(job_id, claim_token=first.claim_token)
                worker.wake()
        second = await phase.next_job()
        await within(phase.cancelled.wait())
        lease = (await jobs.fetch_row(job_id))["lease_expires_at"]
        async with asyncio.timeout(TIMEOUT.total_seconds()):
            while (await jobs.fetch_row(job_id))["lease_expires_at"] == lease:
                pass  # the second one is kept: its lease is renewed
        phase.may_end.set()
        await jobs.wait_for_status(job_id, JobStatus.SUCCEEDED)

    assert second.claim_token == first.claim_token + 1
    assert phase.ended == [job_id]


async def test_it_stops_its_work_before_the_lease_is_up_when_the_database_is_silent(
    jobs: JobsInTest, database: str
) -> None:
    job_id = await jobs.add()
    phase = PhaseInTest()
    async with (
        running_proxy_to(database) as (proxy, through),
        jobs_in(through) as silent,
        working(silent.pool, phase, lease=SHORT_LEASE),
    ):
        await phase.next_job()
        proxy.freeze()
        await within(phase.cancelled.wait())
        until = (await jobs.fetch_row(job_id))["lease_expires_at"]
        assert await jobs.pool.fetchval("select clock_timestamp()") < until
        # Another worker goes on; then the network comes back.
        await jobs.let_lease_expire(job_id)
        rescuer = await jobs.claim_one(worker="rescuer")
        assert await jobs.complete(rescuer) == set()
        proxy.reset()

    assert await jobs.fetch_status(job_id) is JobStatus.SUCCEEDED
    assert phase.ended == []


async def test_a_worker_goes_on_after_its_connections_were_cut(
    jobs: JobsInTest, database: str
) -> None:
    phase = PhaseInTest()
    async with jobs_in(database) as others, working(others.pool, phase, listen=database):
        first = await jobs.add("first")
        await phase.next_job()
        await jobs.pool.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity"
            " where datname = current_database() and pid <> pg_backend_pid()"
        )
        phase.may_end.set()
        second = await jobs.add("second")
        await phase.next_job()
        assert await jobs.wait_for_status(first, JobStatus.SUCCEEDED)
        assert await jobs.wait_for_status(second, JobStatus.SUCCEEDED)


async def test_a_result_is_stored_once_the_database_is_back(
    jobs: JobsInTest, database: str
) -> None:
    job_id = await jobs.add()
    phase = PhaseInTest()
    async with (
        running_proxy_to(database) as (proxy, through),
        jobs_in(through) as cut,
        working(cut.pool, phase),
    ):
        await phase.next_job()
        with capture_logs() as logs:
            proxy.refuse()
            proxy.reset()
            phase.may_end.set()
            await wait_for_log(logs, "database_unreachable")
            proxy.forward()
        assert await jobs.wait_for_status(job_id, JobStatus.SUCCEEDED)


# -- draining ---------------------------------------------------------------------------------


async def test_a_drain_lets_phases_end_and_claims_no_more(jobs: JobsInTest) -> None:
    first = await jobs.add("first")
    phase = PhaseInTest()
    # It looks when it is woken: a claim that was on its way could be late, and find the second.
    async with working(jobs.pool, phase) as worker:
        await phase.next_job()
        worker.drain()
        second = await jobs.add("second")
        worker.wake()
        phase.may_end.set()
        await jobs.wait_for_status(first, JobStatus.SUCCEEDED)

    assert await jobs.fetch_status(second) is JobStatus.QUEUED
    assert phase.started.empty()


async def test_jobs_that_are_unfinished_after_the_grace_are_released_unburnt(
    jobs: JobsInTest,
) -> None:
    job_id = await jobs.add()
    phase = PhaseInTest()
    async with working(jobs.pool, phase, grace=timedelta(milliseconds=50)) as worker:
        await phase.next_job()
        worker.drain()
        await within(phase.cancelled.wait())

    row = await jobs.fetch_row(job_id)
    assert (row["status"], row["attempts"], row["crashes"]) == ("queued", 0, 0)
    assert (await jobs.fetch_event_names(job_id))[-1] == "released"


async def test_a_second_drain_does_not_wait_for_the_grace(jobs: JobsInTest) -> None:
    job_id = await jobs.add()
    phase = PhaseInTest()
    async with working(jobs.pool, phase, grace=NEVER) as worker:
        await phase.next_job()
        worker.drain()
        worker.drain()
        await within(phase.cancelled.wait())

    assert await jobs.fetch_status(job_id) is JobStatus.QUEUED


async def test_a_draining_worker_gives_a_job_back_between_two_phases(jobs: JobsInTest) -> None:
    job_id = await jobs.add()
    phase = PhaseInTest(Advance("await_project", Done()))
    async with working(jobs.pool, phase) as worker:
        await phase.next_job()
        worker.drain()
        phase.may_end.set()
        await jobs.wait_for_status(job_id, JobStatus.QUEUED)

    assert (await jobs.fetch_row(job_id))["job_type"] == "await_project"


# -- phases and their errors ------------------------------------------------------------------


async def test_a_job_goes_from_phase_to_phase_under_one_claim(jobs: JobsInTest) -> None:
    job_id = await jobs.add()
    seen: list[Job] = []

    async def phase(job: Job) -> Transition:
        seen.append(job)
        position = PHASES.index(job.job_type)
        done = Done(checkpoint={job.job_type: position})
        return Complete(done) if position == 3 else Advance(PHASES[position + 1], done)

    async with working(jobs.pool, phase, until_empty=True):
        pass

    assert tuple(job.job_type for job in seen) == PHASES
    assert {job.claim_token for job in seen} == {1}
    assert seen[3].checkpoint == {name: index for index, name in enumerate(PHASES[:3])}
    assert (await jobs.fetch_row(job_id))["checkpoint"] == {
        name: index for index, name in enumerate(PHASES)
    }


@pytest.mark.parametrize(
    ("error", "status", "attempts", "kind"),
    [
        (Transient("503"), "waiting", 1, "transient"),
        (OutcomeUnknown("504"), "waiting", 1, "unknown"),
        (Throttled("429", timedelta(minutes=1)), "waiting", 0, "throttled"),
        (CredentialRefused("401", "a token"), "waiting", 0, "auth"),
        (QuotaExceeded("402"), "failed", 1, "quota"),
        (Permanent("422"), "failed", 1, "permanent"),
    ],
)
async def test_the_kind_of_an_error_decides(
    jobs: JobsInTest, error: JobError, status: str, attempts: int, kind: str
) -> None:
    job_id = await jobs.add()
    phase = PhaseInTest(error)
    phase.may_end.set()

    async with working(jobs.pool, phase, backoff=timedelta(minutes=5)):
        await jobs.wait_for_status(job_id, JobStatus(status))

    row = await jobs.fetch_row(job_id)
    assert (row["attempts"], row["error_kind"], row["last_error"]) == (attempts, kind, str(error))
    client = await jobs.fetch_client(job_id)
    assert client["provisioning_error"] == str(error)
    assert client["provisioning_status"] == ("failed" if status == "failed" else "creating_project")


async def test_a_bug_in_a_phase_is_logged_with_its_traceback_and_retried(
    jobs: JobsInTest,
) -> None:
    job_id = await jobs.add()
    runs: list[int] = []

    async def phase(job: Job) -> Transition:
        runs.append(job.attempts)
        if len(runs) == 1:
            raise ZeroDivisionError("a secret")
        return DONE

    with capture_logs() as logs:
        async with working(jobs.pool, phase, until_empty=True):
            pass

    assert runs == [0, 1]
    assert await jobs.fetch_status(job_id) is JobStatus.SUCCEEDED
    (broke,) = [log for log in logs if log["event"] == "phase_crashed"]
    assert broke["exc_info"]
    errors = [event["error"] for event in await jobs.fetch_events(job_id) if event["error"]]
    assert errors == ["unexpected ZeroDivisionError (see the worker's log)"]


@pytest.mark.parametrize("checkpoint", [{"at": timedelta(1)}, {"a": "\0"}, {"a": float("nan")}])
async def test_a_result_that_cannot_be_stored_fails_its_own_job_only(
    jobs: JobsInTest, checkpoint: dict[str, object]
) -> None:
    good, bad = await jobs.add("good"), await jobs.add("bad")
    await jobs.update(bad, max_attempts=1)

    async def phase(job: Job) -> Transition:
        return Complete(Done(checkpoint=checkpoint if job.id == bad else {}))

    async with working(jobs.pool, phase, until_empty=True):
        pass

    assert await jobs.fetch_status(good) is JobStatus.SUCCEEDED
    assert await jobs.fetch_status(bad) is JobStatus.FAILED


# -- telemetry --------------------------------------------------------------------------------


async def test_each_phase_is_one_span_below_the_one_that_enqueued_the_job(
    jobs: JobsInTest, spans: InMemorySpanExporter
) -> None:
    trace_id, span_id = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    client_id = await jobs.add_client()
    await jobs.pool.execute(
        "select pgworker.enqueue($1, p_trace_context => $2)",
        client_id,
        f"00-{trace_id}-{span_id}-01",
    )

    async def phase(job: Job) -> Transition:
        if job.job_type == PHASES[0]:
            return Advance(PHASES[1], Done())
        raise Permanent("no such region")

    async with working(jobs.pool, phase, until_empty=True):
        pass

    finished = spans.get_finished_spans()
    assert [span.name for span in finished] == [telemetry.SPAN_PHASE] * 2
    for span, phase_name in zip(finished, PHASES, strict=False):
        assert span.parent is not None
        assert f"{span.parent.span_id:016x}" == span_id
        assert f"{span.context.trace_id:032x}" == trace_id
        assert span.attributes is not None
        assert span.attributes["pgworker.phase"] == phase_name
        assert span.attributes["pgworker.client_id"] == str(client_id)
    assert finished[0].status.is_ok
    assert finished[1].status.description == "no such region"


async def test_durations_and_failed_attempts_are_measured(
    jobs: JobsInTest, metrics: InMemoryMetricReader
) -> None:
    await jobs.add()
    runs = 0

    async def phase(job: Job) -> Transition:
        nonlocal runs
        runs += 1
        if runs == 1:
            raise Transient("503")
        return DONE

    async with working(jobs.pool, phase, until_empty=True):
        pass

    data = metrics.get_metrics_data()
    assert data is not None
    found = {
        metric.name: [dict(point.attributes or {}) for point in metric.data.data_points]
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    }
    labels = {"workflow": "provision", "phase": PHASES[0]}
    assert labels in found[telemetry.METRIC_PHASE_SECONDS]
    assert labels | {"error_kind": "transient"} in found[telemetry.METRIC_ATTEMPTS_FAILED]
    assert {"workflow": "provision"} in found[telemetry.METRIC_PROVISIONING_SECONDS]


async def test_every_line_about_a_job_names_it(jobs: JobsInTest) -> None:
    job_id = await jobs.add()

    with capture_logs(processors=[telemetry.merge_job]) as logs:
        async with working(jobs.pool, complete_at_once, until_empty=True):
            pass

    about_jobs = {log["event"]: log for log in logs if "job_id" in log}
    assert about_jobs.keys() == {"phase_started", "phase_succeeded", "job_succeeded"}
    for log in about_jobs.values():
        assert (log["job_id"], log["phase"]) == (job_id, PHASES[0])
        assert log["client_id"]
