"""From a row in `clients` to a ready tenant, with everything that may go wrong on the way."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest

from pgworker.runtime.daemon import Daemon
from pgworker.simulator import Answer, Becomes, Drop, Hang, Truncated
from tests.support.stack import (
    CANONICAL,
    TIMEOUT_SECONDS,
    TO_NEXT_PROBE_SECONDS,
    Stack,
    running_stack,
)

Open = Callable[..., AbstractAsyncContextManager[Stack]]
HEAD = max(CANONICAL.glob("*.sql")).name.partition("_")[0]


@pytest.fixture
def supabase(database: str, monkeypatch: pytest.MonkeyPatch) -> Open:
    def opened(
        *, settings: dict[str, Any] | None = None, invalid_answers: bool = False, **how: Any
    ) -> AbstractAsyncContextManager[Stack]:
        return running_stack(
            database,
            monkeypatch,
            simulated=how,
            settings=settings,
            invalid_answers=invalid_answers,
        )

    return opened


@pytest.fixture
def migrations(tmp_path: Path) -> Path:
    """A copy of the canonical set, to break."""
    return Path(shutil.copytree(CANONICAL, tmp_path / "migrations"))


# -- the good path ----------------------------------------------------------------------------


async def test_clients_become_ready_each_with_exactly_one_project(supabase: Open) -> None:
    async with supabase(coming_up_seconds=0.1, services_lag_seconds=0.1) as stack:
        clients = [await stack.add(f"client {n}") for n in range(5)]

        outstanding = await stack.run_until_empty()

        assert (outstanding.live, outstanding.failed) == (0, 0)
        assert set(stack.ledger.creates_by_name.values()) == {1}
        assert stack.count_creates() == 5
        for client_id in clients:
            client = await stack.fetch_client(client_id)
            assert client["provisioning_status"] == "ready"
            assert client["provisioning_error"] is None
            assert client["provisioning_completed_at"] >= client["provisioning_started_at"]
            assert client["schema_version"] == HEAD
            (project,) = stack.simulator.projects.find_by_name(f"pgworker-{client_id}")
            assert client["project_ref"] == project.ref
            assert client["project_url"].endswith(project.ref)
            job = await stack.fetch_job(client_id)
            assert (job["status"], job["job_type"], job["attempts"]) == (
                "succeeded",
                "smoke_checks",
                0,
            )


async def test_the_keys_are_stored_encrypted_and_are_the_projects_own(supabase: Open) -> None:
    async with supabase() as stack:
        client_id = await stack.add()
        await stack.run_until_empty()

        (project,) = stack.simulator.projects.all()
        stored = await stack.platform.secrets().get_fields(client_id)
        assert stored["db_password"] == project.database_password
        assert stored.keys() == {
            "db_password",
            "dsn",
            "publishable_key",
            "secret_key",
            "anon_key",
            "service_role_key",
        }
        connection = await asyncpg.connect(stored["dsn"])
        assert await connection.fetchval("select count(*) from app_settings") > 0
        await connection.close()
        async with httpx.AsyncClient(timeout=60) as http:
            url = f"{(await stack.fetch_client(client_id))['project_url']}/rest/v1/"
            answer = await http.get(url, headers={"apikey": stored["secret_key"]})
        assert answer.status_code == 200


async def test_nothing_secret_is_in_a_table_a_log_or_a_span(supabase: Open) -> None:
    async with supabase(coming_up_seconds=0.1, keys_lag_seconds=0.2, invalid_answers=True) as stack:
        stack.faults.order(operation="create_project", fault=Answer(504, after_effect=True))
        stack.faults.order(operation="run_query", fault=Answer(544), nth=2)
        stack.faults.order(operation="list_api_keys", fault=Truncated())
        await stack.add_many(3)
        await stack.run_until_empty()

        assert len(await stack.fetch_secrets()) >= 3 * 6
        assert len(stack.spans.get_finished_spans()) > 10
        assert "pgworker-" in await stack.collect_output()
        await stack.assert_no_secret_in_output()


async def test_a_client_gets_the_region_and_size_it_asks_for_and_keeps_its_other_settings(
    supabase: Open,
) -> None:
    async with supabase() as stack:
        wish: dict[str, Any] = {"region": "eu-central-1", "plan": "small", "theme": {"dark": True}}
        client_id = await stack.add(**wish)
        await stack.run_until_empty()

        assert [project.region for project in stack.ledger.created] == ["eu-central-1"]
        settings = (await stack.fetch_client(client_id))["additional_settings"]
        got = settings.pop("provisioning")
        assert settings == wish
        assert got.pop("created_at")
        assert got == {
            "provider": "supabase",
            "region": "eu-central-1",
            "plan": "small",
            "organization": stack.simulator.organization,
        }


async def test_a_client_may_ask_for_another_provider(supabase: Open) -> None:
    async with supabase() as stack:
        client_id = await stack.add(provider="postgres")
        await stack.run_until_empty()

        client = await stack.fetch_client(client_id)
        assert client["provisioning_status"] == "ready"
        assert client["project_ref"] == f"pgw_{client_id.hex}"
        assert client["additional_settings"]["provisioning"].keys() == {"provider", "created_at"}
        assert stack.count_creates() == 0
        await stack.platform.providers.named("postgres").delete(client["project_ref"])


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        ({"provider": "oracle"}, "there is no provider 'oracle': choose one of postgres, supabase"),
        ({"region": "moon-1"}, "unknown region 'moon-1'"),
        ({"plan": "huge"}, "unknown plan 'huge'"),
        ({"region": ["eu-central-1"]}, "additional_settings.region must be text, it is list"),
    ],
)
async def test_a_wish_that_cannot_be_met_fails_before_anything_is_created(
    supabase: Open, wish: dict[str, Any], message: str
) -> None:
    async with supabase() as stack:
        client_id = await stack.add(**wish)
        await stack.run_until_empty()

        await assert_failed(stack, client_id, "permanent", message)
        assert stack.ledger.find("create_project") == []


@pytest.mark.parametrize("kinds", ["both", "new", "legacy"])
async def test_projects_with_any_kind_of_keys_become_ready(supabase: Open, kinds: str) -> None:
    async with supabase(key_kinds=kinds, foreign_secret_key=kinds != "legacy") as stack:
        client_id = await stack.add()
        await stack.run_until_empty()

        assert (await stack.fetch_client(client_id))["provisioning_status"] == "ready"
        stored = (await stack.platform.secrets().get_fields(client_id)).keys()
        assert ("secret_key" in stored) == (kinds != "legacy")
        assert ("service_role_key" in stored) == (kinds != "new")


async def test_keys_and_pooler_that_lag_are_waited_for_without_an_attempt(supabase: Open) -> None:
    async with supabase(keys_lag_seconds=0.4, pooler_lag_seconds=0.6) as stack:
        client_id = await stack.add()
        await stack.run_until_empty()

        assert (await stack.fetch_client(client_id))["provisioning_status"] == "ready"
        assert stack.log.find("phase_failed") == []


async def test_sql_goes_through_the_pooler_when_chosen(supabase: Open) -> None:
    settings = {"PGWORKER_SUPABASE_SQL": "postgres"}
    async with supabase(settings=settings, pooler_lag_seconds=0.2) as stack:
        client_id = await stack.add()
        await stack.run_until_empty()

        assert (await stack.fetch_client(client_id))["provisioning_status"] == "ready"
        assert stack.ledger.find("run_query") == []


# -- a create without an answer ---------------------------------------------------------------


@pytest.mark.parametrize(
    "fault",
    [
        Answer(504, after_effect=True),
        Answer(500, after_effect=True),
        Drop(after_effect=True),
        Truncated(),
    ],
    ids=["504", "500", "dropped", "truncated"],
)
async def test_a_project_whose_create_was_not_answered_is_adopted(
    supabase: Open, fault: Any
) -> None:
    async with supabase(invalid_answers=isinstance(fault, Truncated)) as stack:
        stack.faults.order(operation="create_project", fault=fault)
        client_id = await stack.add()
        await stack.run_until_empty()

        client = await stack.fetch_client(client_id)
        assert client["provisioning_status"] == "ready"
        assert stack.count_creates() == len(stack.ledger.find("create_project")) == 1
        assert client["project_ref"] == stack.ledger.created[0].ref
        assert client["additional_settings"]["provisioning"]["organization"]


async def test_a_listing_that_lags_does_not_lead_to_a_second_project(supabase: Open) -> None:
    settings = {"PGWORKER_CREATE_LOOKUP_SECONDS": 5}
    async with supabase(
        listing_lag_seconds=1.0, duplicate_names="accepted", settings=settings
    ) as stack:
        stack.faults.order(operation="create_project", fault=Answer(502, after_effect=True))
        client_id = await stack.add()
        await stack.run_until_empty()

        assert (await stack.fetch_client(client_id))["provisioning_status"] == "ready"
        assert len(stack.ledger.find("create_project")) == 1


async def test_a_create_that_did_not_happen_is_sent_again_after_the_window(
    supabase: Open,
) -> None:
    settings = {"PGWORKER_CREATE_LOOKUP_SECONDS": 0.5}
    async with supabase(settings=settings) as stack:
        stack.faults.order(operation="create_project", fault=Answer(504))
        client_id = await stack.add()
        await stack.run_until_empty()

        assert (await stack.fetch_client(client_id))["provisioning_status"] == "ready"
        assert len(stack.ledger.find("create_project")) == 2
        # What the window counts from: the first request may have been long on its way.
        apart = await stack.platform.pool.fetchval(
            "select max(intended_at) - min(intended_at) from pgworker.steps"
            " where step = 'create_project'"
        )
        assert apart >= timedelta(seconds=0.5)
        assert stack.count_creates() == 1


async def test_after_three_creates_without_an_answer_a_person_must_look_and_may_allow_more(
    supabase: Open,
) -> None:
    settings = {"PGWORKER_CREATE_LOOKUP_SECONDS": 0.2}
    async with supabase(settings=settings) as stack:
        order = stack.faults.order(operation="create_project", fault=Answer(504), times=None)
        client_id = await stack.add()
        await stack.run_until_empty()

        await assert_failed(stack, client_id, "permanent", "3 creates of .* none shows up")
        assert len(stack.ledger.find("create_project")) == 3

        order.release()
        await stack.retry(client_id)
        await stack.run_until_empty()
        assert (await stack.fetch_client(client_id))["provisioning_status"] == "ready"
        assert stack.count_creates() == 1


async def test_two_projects_of_the_name_are_for_a_person_and_both_are_named(
    supabase: Open,
) -> None:
    async with supabase() as stack:
        client_id = await stack.add()
        refs = [stack.simulator.projects.plant(f"pgworker-{client_id}").ref for _ in range(2)]
        await stack.run_until_empty()

        error = await assert_failed(stack, client_id, "permanent", "2 projects are called")
        assert all(ref in error for ref in refs)
        assert stack.ledger.find("create_project") == []


# -- a project that was there already ---------------------------------------------------------


async def list_steps(stack: Stack, client_id: Any) -> list[tuple[str, str]]:
    rows = await stack.platform.pool.fetch(
        "select step, state from pgworker.steps"
        " where client_id = $1 and step <> 'apply_migration' order by id",
        client_id,
    )
    return [tuple(row) for row in rows]


async def assert_stored_dsn_logs_in(stack: Stack, client_id: Any) -> None:
    stored = await stack.platform.secrets().get_fields(client_id)
    connection = await asyncpg.connect(stored["dsn"])
    await connection.close()


async def assert_ready_with_a_new_password(
    stack: Stack, client_id: Any, *, failures: int = 0
) -> None:
    client = await stack.fetch_client(client_id)
    assert client["provisioning_status"] == "ready", client["provisioning_error"]
    assert await list_steps(stack, client_id) == [
        ("create_project", "done"),
        *[("set_password", "refused")] * failures,
        ("set_password", "done"),
    ]
    await assert_stored_dsn_logs_in(stack, client_id)


@pytest.mark.parametrize("sql", ["api", "postgres"])
async def test_a_project_that_we_did_not_create_is_adopted_and_given_our_password(
    supabase: Open, sql: str
) -> None:
    """The platform was restored from a backup that is older than the project, for one."""
    async with supabase(settings={"PGWORKER_SUPABASE_SQL": sql}) as stack:
        client_id = await stack.add()
        stack.simulator.projects.plant(f"pgworker-{client_id}")
        await stack.run_until_empty()

        assert (await stack.fetch_client(client_id))["provisioning_status"] == "ready"
        assert stack.count_creates() == 0
        assert await list_steps(stack, client_id) == [("set_password", "done")]
        assert len(stack.ledger.find("update_password")) == 1
        await assert_stored_dsn_logs_in(stack, client_id)


async def test_a_password_that_was_changed_meanwhile_is_set_again(supabase: Open) -> None:
    settings = {"PGWORKER_SUPABASE_SQL": "postgres"}
    async with supabase(settings=settings) as stack:
        looking = stack.faults.order(operation="get_health", fault=Hang(after_effect=False))
        client_id = await stack.add()
        async with stack.running() as working:
            await looking.reached.wait()
            (project,) = stack.simulator.projects.all()
            async with httpx.AsyncClient(
                base_url=stack.simulator.url, timeout=60
            ) as another_client:
                answer = await another_client.patch(
                    f"/v1/projects/{project.ref}/database/password",
                    headers={"Authorization": f"Bearer {stack.simulator.token}"},
                    json={"password": "another choice"},
                )
                assert answer.status_code == 200, answer.text
            looking.release()
            await working

        await assert_ready_with_a_new_password(stack, client_id)


@pytest.mark.parametrize("sql", ["api", "postgres"])
@pytest.mark.parametrize("failures", [0, 1])
async def test_a_password_that_was_deleted_here_is_replaced_here_and_at_the_provider(
    supabase: Open, sql: str, failures: int
) -> None:
    """Stored here first: the next look repairs what an error or a crash left undone there."""
    async with supabase(settings={"PGWORKER_SUPABASE_SQL": sql}) as stack:
        for _ in range(failures):
            stack.faults.order(operation="update_password", fault=Answer(503))
        looking = stack.faults.order(operation="get_health", fault=Hang(after_effect=False))
        client_id = await stack.add()
        async with stack.running() as working:
            await looking.reached.wait()
            assert await stack.platform.pool.fetchval(
                "delete from pgworker.tenant_secrets where field = 'db_password' returning true"
            )
            looking.release()
            await working

        await assert_ready_with_a_new_password(stack, client_id, failures=failures)
        assert len(stack.ledger.find("update_password")) == failures + 1


async def test_a_project_that_is_older_than_its_client_is_not_adopted_and_stays_as_it_is(
    supabase: Open,
) -> None:
    async with supabase() as stack:
        client_id = await stack.add()
        project = stack.simulator.projects.plant(f"pgworker-{client_id}")
        project.inserted_at -= timedelta(days=3)
        await stack.run_until_empty()

        error = await assert_failed(stack, client_id, "permanent", "it isn't this client's")
        assert project.ref in error
        assert stack.ledger.find("create_project") == []
        assert stack.ledger.find("update_password") == []


async def test_every_step_outside_is_recorded_as_done(supabase: Open) -> None:
    async with supabase() as stack:
        client_id = await stack.add()
        await stack.run_until_empty()

        assert (await stack.fetch_client(client_id))["provisioning_status"] == "ready"
        rows = await stack.platform.pool.fetch("select step, target, state from pgworker.steps")
        assert {row["state"] for row in rows} == {"done"}
        assert [row["step"] for row in rows].count("create_project") == 1
        assert {row["target"] for row in rows if row["step"] == "apply_migration"} == {
            path.name.partition("_")[0] for path in CANONICAL.glob("*.sql")
        }


# -- projects that don't come up --------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "message"),
    [
        ("INIT_FAILED", r"will not come up by itself \(project INIT_FAILED"),
        ("INACTIVE", r"will not come up by itself \(project INACTIVE: it is paused; restore it"),
        ("GOING_DOWN", "is gone"),
    ],
)
async def test_a_project_that_will_not_come_up_fails_with_the_providers_words(
    supabase: Open, status: str, message: str
) -> None:
    async with supabase() as stack:
        stack.faults.order(operation="create_project", fault=Becomes(status))
        client_id = await stack.add()
        async with stack.running():
            if status == "GOING_DOWN":
                await stack.log.wait_for("phase_snoozed", phase="await_project")
                await stack.let_time_pass(seconds=130)
            await stack.log.wait_for("job_failed")

        await assert_failed(stack, client_id, "permanent", message)
        assert stack.count_creates() == 1


async def test_a_project_that_vanishes_is_never_replaced(supabase: Open) -> None:
    # Long enough that there is a second look, however late the first one is.
    async with supabase(coming_up_seconds=3600) as stack:
        stack.faults.order(operation="get_project", nth=2, fault=Becomes("VANISHED"))
        client_id = await stack.add()
        await stack.run_until_empty()

        await assert_failed(stack, client_id, "permanent", "is gone .* find out who deleted it")
        await stack.retry(client_id)
        await stack.run_until_empty()
        await assert_failed(stack, client_id, "permanent", "is gone")
        assert stack.count_creates() == 1


async def test_a_project_that_is_stuck_fails_the_job_after_the_time_limit(supabase: Open) -> None:
    async with supabase(settings={"PGWORKER_PROJECT_TIMEOUT_SECONDS": 0.3}) as stack:
        stack.faults.order(operation="create_project", fault=Becomes("COMING_UP"))
        client_id = await stack.add()
        await stack.run_until_empty()

        error = await assert_failed(stack, client_id, "permanent", "is not up after 0 s")
        assert "COMING_UP" in error
        assert (await stack.fetch_job(client_id))["attempts"] == 1


async def test_time_in_which_no_worker_looked_never_counts_against_the_provider(
    supabase: Open,
) -> None:
    async with supabase() as stack:
        stack.faults.order(operation="create_project", fault=Becomes("COMING_UP"))
        client_id = await stack.add()
        async with stack.running():
            for times in range(1, 4):
                await stack.log.wait_for("phase_snoozed", times=times, phase="await_project")
                # As a pause, an open breaker, or no worker at all.
                await stack.let_time_pass(seconds=3600)
            await stack.log.wait_for("phase_snoozed", times=5, phase="await_project")

        job = await stack.fetch_job(client_id)
        assert job["status"] in {"queued", "waiting"}


async def test_a_look_that_finds_the_project_ready_has_no_time_limit(
    supabase: Open,
) -> None:
    settings = {"PGWORKER_PROJECT_TIMEOUT_SECONDS": 0.000001}
    async with supabase(coming_up_seconds=0, settings=settings) as stack:
        client_id = await stack.add()
        await stack.run_until_empty()

        assert (await stack.fetch_job(client_id))["status"] == "succeeded"


async def test_a_new_project_that_is_not_visible_yet_is_waited_for(supabase: Open) -> None:
    async with supabase() as stack:
        stack.faults.order(operation="get_project", fault=Answer(404), times=3)
        client_id = await stack.add()
        await stack.run_until_empty()

        assert (await stack.fetch_client(client_id))["provisioning_status"] == "ready"
        assert stack.log.find("phase_failed") == []


# -- credentials, money, rate limits ----------------------------------------------------------


async def test_a_refused_token_parks_its_jobs_without_an_attempt_until_one_probe_succeeds(
    supabase: Open,
) -> None:
    async with supabase() as stack:
        order = stack.faults.order(operation="*", fault=Answer(401), times=None)
        await stack.add_many(6)
        async with stack.running() as daemon:
            waits = await stack.wait_until_snoozed(6)
            assert len(stack.log.find("breaker_opened")) == 1
            parked = await stack.platform.pool.fetch("select * from client_provisioning_jobs")
            assert {(job["status"], job["attempts"], job["error_kind"]) for job in parked} == {
                ("waiting", 0, "auth")
            }
            assert "SUPABASE_ACCESS_TOKEN" in parked[0]["last_error"]

            # The time of a probe comes, and it is refused like the others: one request.
            asked = order.hits
            await stack.let_time_pass(seconds=TO_NEXT_PROBE_SECONDS)
            await stack.wait_until_snoozed(6, after=waits)
            assert order.hits == asked + 1

            order.release()
            await stack.let_time_pass(seconds=TO_NEXT_PROBE_SECONDS)
            await daemon

        assert len(stack.log.find("breaker_closed")) == 1
        assert (
            await stack.count("select count(*) from clients where provisioning_status = 'ready'")
            == 6
        )
        assert await stack.count("select max(attempts) from client_provisioning_jobs") == 0
        assert await stack.count("select count(*) from pgworker.breakers") == 0
        assert stack.count_creates() == 6


async def test_a_quota_fails_at_once_and_says_what_to_buy_or_free(supabase: Open) -> None:
    async with supabase(max_projects=1) as stack:
        first = await stack.add()
        await stack.run_until_empty()
        second = await stack.add("Second")
        await stack.run_until_empty()

        assert (await stack.fetch_client(first))["provisioning_status"] == "ready"
        await assert_failed(stack, second, "quota", "maximum limits .* billing settings")
        assert (await stack.fetch_job(second))["attempts"] == 1


async def test_a_rate_limit_is_waited_for_without_an_attempt(supabase: Open) -> None:
    async with supabase() as stack:
        stack.faults.order(
            operation="create_project", fault=Answer(429, headers={"X-RateLimit-Reset": "17"})
        )
        client_id = await stack.add()
        async with stack.running() as daemon:
            await stack.wait_until_snoozed(1)
            job = await stack.fetch_job(client_id)
            assert (job["status"], job["attempts"], job["error_kind"]) == (
                "waiting",
                0,
                "throttled",
            )
            wait = await stack.platform.pool.fetchval(
                "select extract(epoch from run_at - updated_at) from client_provisioning_jobs"
            )
            assert 15 < wait < 25
            reopen(stack)
            await stack.let_time_pass(seconds=30)
            await daemon

        assert (await stack.fetch_client(client_id))["provisioning_status"] == "ready"
        assert stack.count_creates() == 1
        assert stack.log.find("phase_failed") == []


def reopen(stack: Stack) -> None:
    """Let this process forget the rate limits that it was sent, as it does when time passes."""
    stack.platform.providers.default._api._limiter._local._windows.clear()  # type: ignore[attr-defined]


async def test_temporary_errors_are_tried_again(supabase: Open) -> None:
    async with supabase() as stack:
        stack.faults.order(operation="list_organization_projects", fault=Answer(503), times=2)
        stack.faults.order(operation="run_query", fault=Drop(), nth=3)
        client_id = await stack.add()
        await stack.run_until_empty()

        assert (await stack.fetch_client(client_id))["provisioning_status"] == "ready"
        kinds = [entry["error_kind"] for entry in stack.log.find("phase_failed")]
        assert kinds[:2] == ["transient", "transient"]


async def test_an_error_that_persists_fails_the_job_after_its_attempts(supabase: Open) -> None:
    async with supabase() as stack:
        stack.faults.order(operation="get_project", fault=Answer(503), times=None)
        client_id = await stack.add()
        await stack.platform.pool.execute("update client_provisioning_jobs set max_attempts = 3")
        await stack.run_until_empty()

        await assert_failed(stack, client_id, "transient", "gave up after 3 attempts: .*503")


# -- migrations -------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["api", "postgres"])
async def test_a_broken_migration_names_file_and_line_and_a_retry_creates_nothing(
    supabase: Open, migrations: Path, way: str
) -> None:
    broken = migrations / "20260101000500_broken.sql"
    broken.write_text("create table public.a (id int);\n\nselect\n    nonsense;\n")
    settings = {"PGWORKER_MIGRATIONS_DIR": str(migrations), "PGWORKER_SUPABASE_SQL": way}
    async with supabase(settings=settings) as stack:
        client_id = await stack.add()
        await stack.run_until_empty()

        message = r"20260101000500_broken.sql:[34] \(statement 2\): .*nonsense"
        await assert_failed(stack, client_id, "permanent", message)
        job = await stack.fetch_job(client_id)
        assert job["job_type"] == "schema_sync"

        broken.write_text(
            "create table public.a (id int);\nalter table public.a enable row level security;\n"
        )
        before = len(stack.ledger.entries)
        await stack.retry(client_id)
        await stack.run_until_empty()

        client = await stack.fetch_client(client_id)
        assert client["provisioning_status"] == "ready"
        assert client["provisioning_error"] is None
        assert client["schema_version"] == "20260101000500"
        asked = {entry.operation for entry in stack.ledger.entries[before:]}
        assert asked.isdisjoint({"create_project", "list_api_keys", "list_organization_projects"})
        phases = {entry["phase"] for entry in stack.log.find("phase_started", job_id=job["id"])}
        assert phases == {"create_project", "await_project", "schema_sync", "smoke_checks"}


async def test_a_failing_smoke_check_names_itself(supabase: Open, migrations: Path) -> None:
    (migrations / "smoke" / "never.sql").write_text("select false as is_true;\n")
    settings = {"PGWORKER_MIGRATIONS_DIR": str(migrations)}
    async with supabase(settings=settings) as stack:
        client_id = await stack.add()
        await stack.run_until_empty()

        await assert_failed(stack, client_id, "permanent", "smoke/never.sql: row 1 is not true")


# -- configuration that a job meets -----------------------------------------------------------


async def test_secrets_under_a_key_that_is_missing_fail_the_job_with_the_keys_name(
    supabase: Open,
) -> None:
    async with supabase() as stack:
        client_id = await stack.add()
        await stack.run_until_empty()
        await stack.platform.pool.execute("update pgworker.tenant_secrets set key_id = 'lost'")
        await stack.platform.pool.execute(
            "insert into client_provisioning_jobs (client_id, job_type) values ($1, 'schema_sync')",
            client_id,
        )
        await stack.run_until_empty()

        await assert_failed(stack, client_id, "permanent", "the key lost is missing")
        await stack.platform.pool.execute("update pgworker.tenant_secrets set key_id = 'test'")


# -- a worker that goes -----------------------------------------------------------------------

OPERATIONS = (
    "get_organization",
    "list_organization_projects",
    "create_project",
    "get_project",
    "get_health",
    "list_api_keys",
    "get_pooler",
    "run_query",
    "read_table",
    "auth_health",
)


@pytest.mark.parametrize("after_effect", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("operation", OPERATIONS)
async def test_a_worker_stopped_around_any_request_leaves_one_project_and_the_next_goes_on(
    supabase: Open, operation: str, after_effect: bool
) -> None:
    settings = {"PGWORKER_CREATE_LOOKUP_SECONDS": 0.3}
    async with supabase(settings=settings) as stack:
        order = stack.faults.order(operation=operation, fault=Hang(after_effect=after_effect))
        client_id = await stack.add()
        daemon = Daemon(stack.platform, until_empty=True)
        async with asyncio.timeout(TIMEOUT_SECONDS):
            working = asyncio.create_task(daemon.run())
            await order.reached.wait()
            daemon.drain()
            daemon.drain()
            left = await working
        assert left.live == 1
        job = await stack.fetch_job(client_id)
        assert (job["status"], job["attempts"], job["crashes"]) == ("queued", 0, 0)
        if operation == "create_project" and not after_effect:
            # The request is on its way still and takes effect after the worker has gone.
            order.release()
        await stack.run_until_empty()

        client = await stack.fetch_client(client_id)
        assert client["provisioning_status"] == "ready", client["provisioning_error"]
        assert stack.count_creates() == 1
        assert client["additional_settings"]["provisioning"]["region"]


METHODS = ("commit", "record_ref", "store_secrets")


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("method", METHODS)
async def test_a_worker_stopped_around_any_commit_leaves_one_project_and_the_next_goes_on(
    supabase: Open, method: str, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ledger's method is reached (or has committed), and then the worker is gone."""
    from pgworker.provisioning.ledger import Ledger

    reached = asyncio.Event()
    genuine = getattr(Ledger, method)

    async def stops(self: Any, *arguments: Any, **named: Any) -> Any:
        if moment == "after":
            await genuine(self, *arguments, **named)
        reached.set()
        await asyncio.Event().wait()

    settings = {"PGWORKER_CREATE_LOOKUP_SECONDS": 0.3}
    async with supabase(settings=settings) as stack:
        client_id = await stack.add()
        with monkeypatch.context() as patch:
            patch.setattr(Ledger, method, stops)
            daemon = Daemon(stack.platform, until_empty=True)
            async with asyncio.timeout(TIMEOUT_SECONDS):
                working = asyncio.create_task(daemon.run())
                await reached.wait()
                daemon.drain()
                daemon.drain()
                await working
        await stack.run_until_empty()

        client = await stack.fetch_client(client_id)
        assert client["provisioning_status"] == "ready", client["provisioning_error"]
        assert stack.count_creates() == 1
        assert client["additional_settings"]["provisioning"]["region"]
        rows = await stack.platform.pool.fetch("select distinct state from pgworker.steps")
        assert {row["state"] for row in rows} <= {"done", "repeated"}


async def assert_failed(stack: Stack, client_id: Any, kind: str, message: str) -> str:
    """Check that client, job and view show the same failure; return its message."""
    client, job = await stack.fetch_client(client_id), await stack.fetch_job(client_id)
    assert (client["provisioning_status"], job["status"]) == ("failed", "failed")
    assert job["error_kind"] == kind
    assert client["provisioning_error"] == job["last_error"]
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(job["last_error"])
    shown = await stack.fetch_row(
        "select * from pgworker.failed_jobs where client_id = $1", client_id
    )
    assert shown["error_kind"] == kind
    return str(job["last_error"])
