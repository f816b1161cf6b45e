"""The checker: each violation, seeded into real databases, is found and named."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID

import asyncpg
import httpx
import pytest
from pydantic import SecretStr

from chaos.campaign import expect
from chaos.checker import INVARIANTS, check
from chaos.snapshot import take_snapshot
from chaos.testbed import ENCRYPTION_KEY, MIGRATIONS, TEMPLATE, drop_tenants
from pgworker.context import open_platform
from pgworker.runtime.daemon import Daemon
from pgworker.settings import Settings, parse_encryption_keys
from pgworker.simulator import Simulator, SimulatorSettings, running_simulator
from pgworker.status.commands import ClientRequest
from pgworker.tenants.secrets import Vault
from tests.support.stack import build_environment

if TYPE_CHECKING:
    from chaos.checker import Violation
    from tests.support.clusters import Server

PLATFORM = "checked_platform"
READY = "ready_platform"


@dataclass
class ReadyPlatform:
    """A platform with two ready clients, which a test then damages."""

    server: Server
    clients: list[UUID]
    simulator: Simulator | None = None

    async def run(self, *statements: str, database: str = PLATFORM) -> None:
        await self.server.run(*statements, database=database)

    async def fetch_value(self, query: str, *arguments: Any) -> Any:
        connection = await asyncpg.connect(self.server.dsn_of(PLATFORM))
        try:
            return await connection.fetchval(query, *arguments)
        finally:
            await connection.close()

    async def fetch_ref(self, number: int = 0) -> str:
        ref: str = await self.fetch_value(
            "select project_ref from clients where id = $1", self.clients[number]
        )
        return ref

    async def fetch_job_id(self, number: int = 0) -> int:
        job_id: int = await self.fetch_value(
            "select id from client_provisioning_jobs where client_id = $1", self.clients[number]
        )
        return job_id

    async def write_as_worker(self, pid: int, statement: str) -> None:
        """Write without pgworker, in a session like that of a campaign's worker with this pid."""
        connection = await asyncpg.connect(
            self.server.dsn_of(PLATFORM),
            server_settings={"application_name": f"pgworker pid={pid}"},
        )
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

    async def change_events(self, statement: str) -> None:
        """Rewrite the audit trail, which only its owner can do, with its triggers disabled."""
        await self.run(
            "alter table pgworker.event_log disable trigger all",
            statement,
            "alter table pgworker.event_log enable trigger all",
        )

    async def check(self, *, logs: dict[str, str] | None = None, **known: Any) -> list[Violation]:
        snapshot = await take_snapshot(
            {PLATFORM: self.server.dsn_of(PLATFORM)},
            self.server.dsn,
            vault=Vault(parse_encryption_keys((SecretStr(ENCRYPTION_KEY),))),
            ledger=None if self.simulator is None else self.simulator.ledger.as_json(),
            logs=logs,
        )
        return check(snapshot, expect(**known))

    async def assert_found(
        self, invariant: str, *words: str, logs: dict[str, str] | None = None, **known: Any
    ) -> None:
        """Assert that this invariant is violated, with all these words in one message."""
        assert invariant in {each.__name__ for each in INVARIANTS}
        violations = await self.check(logs=logs, **known)
        messages = [str(each) for each in violations if each.invariant == invariant]
        assert any(all(word in text for word in words) for text in messages), (words, violations)


async def _provision(server: Server, settings: dict[str, Any], platform: str) -> list[UUID]:
    await server.run(f'create database "{platform}" template "{TEMPLATE}"')
    loaded = Settings(
        _env_file=None,
        DATABASE_URL=server.dsn_of(platform),
        PGWORKER_ENCRYPTION_KEYS=ENCRYPTION_KEY,
        PGWORKER_MIGRATIONS_DIR=str(MIGRATIONS),
        PGWORKER_PROJECT_POLL_SECONDS=0.05,
        **settings,
    )
    async with open_platform(loaded) as opened, asyncio.timeout(60):
        for name in ("Acme", "Initech"):
            await opened.commands.create_client(ClientRequest(name))
        left = await Daemon(opened, until_empty=True).run()
        assert (left.live, left.failed) == (0, 0)
        rows = await opened.pool.fetch("select id from clients order by name")
    return [row["id"] for row in rows]


def settings_for_databases(server: Server) -> dict[str, Any]:
    return {"PGWORKER_PROVIDER": "postgres", "PGWORKER_TENANTS_URL": server.dsn}


@pytest.fixture(scope="module")
def ready(own_server: Server) -> Iterator[list[UUID]]:
    """A platform to copy; no test may change the databases of its two clients."""
    with asyncio.Runner() as loop:
        yield loop.run(_provision(own_server, settings_for_databases(own_server), READY))
        loop.run(own_server.run(f'drop database "{READY}" with (force)'))
        loop.run(drop_tenants(own_server))


@pytest.fixture
async def platform(own_server: Server, ready: list[UUID]) -> AsyncIterator[ReadyPlatform]:
    """Two clients with databases; only their platform may be changed."""
    await own_server.run(f'create database "{PLATFORM}" template "{READY}"')
    yield ReadyPlatform(own_server, ready)
    await own_server.run(f'drop database "{PLATFORM}" with (force)')


@pytest.fixture
async def fresh_platform(own_server: Server) -> AsyncIterator[ReadyPlatform]:
    """Two clients with databases, which may be changed as well."""
    clients = await _provision(own_server, settings_for_databases(own_server), PLATFORM)
    yield ReadyPlatform(own_server, clients)
    await own_server.run(
        f'drop database "{PLATFORM}" with (force)',
        *(f"drop database if exists pgw_{client.hex} with (force)" for client in clients),
        *(f"drop role pgw_{client.hex}" for client in clients),
    )


@pytest.fixture
async def simulated_platform(own_server: Server) -> AsyncIterator[ReadyPlatform]:
    """Two clients with projects."""
    settings = SimulatorSettings(
        admin_dsn=own_server.dsn, rate_limit=10_000, duplicate_names="accepted", key_kinds="new"
    )
    async with running_simulator(settings) as simulator:
        try:
            clients = await _provision(own_server, build_environment(simulator), PLATFORM)
            yield ReadyPlatform(own_server, clients, simulator)
        finally:
            await own_server.run(f'drop database if exists "{PLATFORM}" with (force)')


async def test_a_campaign_without_faults_has_no_violation(platform: ReadyPlatform) -> None:
    assert await platform.check() == []


async def test_a_simulated_campaign_without_faults_has_no_violation(
    simulated_platform: ReadyPlatform,
) -> None:
    assert await simulated_platform.check() == []


# -- projects ---------------------------------------------------------------------------------


async def post(simulator: Simulator, path: str, body: dict[str, Any]) -> dict[str, Any]:
    async with httpx.AsyncClient(timeout=60) as http:
        answer = await http.post(
            simulator.url + path, json=body, headers={"Authorization": f"Bearer {simulator.token}"}
        )
    assert answer.status_code == 201
    made: dict[str, Any] = answer.json()
    return made


async def create_project(simulator: Simulator, name: str) -> str:
    body = {
        "name": name,
        "organization_slug": simulator.organization,
        "db_pass": "the-password-of-another",
        "region_selection": {"type": "specific", "code": "us-east-1"},
    }
    return str((await post(simulator, "/v1/projects", body))["ref"])


async def test_a_second_project_of_a_client_is_found(simulated_platform: ReadyPlatform) -> None:
    assert simulated_platform.simulator is not None
    name = f"pgworker-{simulated_platform.clients[0]}"
    ref = await create_project(simulated_platform.simulator, name)
    await simulated_platform.assert_found("one_project_per_client", name, "2 times", ref)
    await simulated_platform.assert_found("no_orphan", ref, "paid for")


async def test_a_project_without_a_client_is_found(simulated_platform: ReadyPlatform) -> None:
    assert simulated_platform.simulator is not None
    ref = await create_project(simulated_platform.simulator, "pgworker-without-a-client")
    await simulated_platform.assert_found("no_orphan", ref, "no client uses it")


async def test_keys_that_were_created_repeatedly_are_found(
    simulated_platform: ReadyPlatform,
) -> None:
    assert simulated_platform.simulator is not None
    ref = await simulated_platform.fetch_ref()
    for number in range(3):
        body = {"type": "publishable", "name": f"another_{number}"}
        await post(simulated_platform.simulator, f"/v1/projects/{ref}/api-keys", body)
    await simulated_platform.assert_found("one_project_per_client", ref, "3 API keys")


async def test_two_clients_of_one_project_are_found(platform: ReadyPlatform) -> None:
    await platform.run(f"update clients set project_ref = '{await platform.fetch_ref()}'")
    await platform.assert_found(
        "one_project_per_client", await platform.fetch_ref(), "2 clients use it"
    )


async def test_a_database_without_a_client_is_found(platform: ReadyPlatform) -> None:
    name = f"pgw_{'0' * 32}"
    await platform.run(f"create role {name}", f"create database {name} owner {name}")
    await platform.assert_found("no_orphan", f"database {name}", "no client uses it")
    await platform.run(f"drop database {name}", f"drop role {name}")


async def test_a_role_without_a_database_is_found(platform: ReadyPlatform) -> None:
    name = f"pgw_{'0' * 32}"
    await platform.run(f"create role {name}")
    await platform.assert_found("no_orphan", f"role {name}")
    await platform.run(f"drop role {name}")


async def test_a_database_that_was_left_open_is_found(fresh_platform: ReadyPlatform) -> None:
    ref = await fresh_platform.fetch_ref()
    await fresh_platform.run(f"grant connect on database {ref} to public")
    await fresh_platform.assert_found("no_partial_tenant", ref, "open to all roles")


async def test_a_missing_database_is_found(fresh_platform: ReadyPlatform) -> None:
    ref = await fresh_platform.fetch_ref()
    await fresh_platform.run(f"drop database {ref} with (force)")
    await fresh_platform.assert_found("no_partial_tenant", ref, "doesn't exist")
    await fresh_platform.assert_found("no_orphan", f"role {ref}")


async def test_an_intent_for_another_project_is_found(platform: ReadyPlatform) -> None:
    await platform.run("update pgworker.intents set ref = 'another'")
    await platform.assert_found("no_partial_tenant", str(platform.clients[0]), "intent")


# -- clients ----------------------------------------------------------------------------------


async def test_a_client_without_a_job_is_found(platform: ReadyPlatform) -> None:
    await platform.run(
        "alter table clients disable trigger all",
        "insert into clients (name, auto_provision) values ('Forgotten', true)",
    )
    await platform.assert_found("no_lost_client", "it has no job")


async def test_a_job_without_a_worker_is_found(platform: ReadyPlatform) -> None:
    await platform.run("insert into clients (name, auto_provision) values ('Waiting', true)")
    await platform.assert_found("no_lost_client", "queued and no worker runs it")


async def test_a_client_whose_status_disagrees_with_its_job_is_found(
    platform: ReadyPlatform,
) -> None:
    await platform.run("update clients set provisioning_status = 'schema_syncing'")
    await platform.assert_found(
        "no_lost_client", str(platform.clients[1]), "schema_syncing", "succeeded"
    )


@pytest.mark.parametrize("error", ["null", "''"])
async def test_a_client_that_failed_without_an_explanation_is_found(
    platform: ReadyPlatform, error: str
) -> None:
    job_id = await platform.fetch_job_id()
    await platform.run(
        f"update client_provisioning_jobs set status = 'failed', error_kind = 'permanent'"
        f" where id = {job_id}",
        f"update clients set provisioning_status = 'failed', provisioning_error = {error}"
        f" where id = '{platform.clients[0]}'",
    )
    await platform.assert_found(
        "no_lost_client", str(platform.clients[0]), "failed without an error", all_ready=False
    )


async def test_a_failed_client_counts_only_where_all_should_be_ready(
    platform: ReadyPlatform,
) -> None:
    job_id = await platform.fetch_job_id()
    await platform.run(
        f"update client_provisioning_jobs set status = 'failed', error_kind = 'quota'"
        f" where id = {job_id}",
        "update clients set provisioning_status = 'failed', provisioning_error = 'no money'"
        f" where id = '{platform.clients[0]}'",
    )
    await platform.assert_found("no_lost_client", "no money")
    found = await platform.check(all_ready=False)
    assert [each for each in found if each.invariant == "no_lost_client"] == []


async def test_two_live_jobs_of_a_client_are_found(platform: ReadyPlatform) -> None:
    await platform.run(
        "drop index client_provisioning_jobs_one_live",
        f"insert into client_provisioning_jobs (client_id) values ('{platform.clients[0]}')",
        f"insert into client_provisioning_jobs (client_id) values ('{platform.clients[0]}')",
    )
    await platform.assert_found("one_live_job_per_client", str(platform.clients[0]), "2 live jobs")


async def test_a_missing_row_of_a_tenants_history_is_found(fresh_platform: ReadyPlatform) -> None:
    await fresh_platform.run(
        "delete from supabase_migrations.schema_migrations where version = '20260101000100'",
        database=await fresh_platform.fetch_ref(),
    )
    await fresh_platform.assert_found(
        "history_is_complete", str(fresh_platform.clients[0]), "its history is"
    )


async def test_a_migration_that_ran_twice_is_found(fresh_platform: ReadyPlatform) -> None:
    await fresh_platform.run(
        "insert into runs (version) values ('20260101000300')",
        database=await fresh_platform.fetch_ref(),
    )
    await fresh_platform.assert_found(
        "history_is_complete", str(fresh_platform.clients[0]), "files that ran"
    )


async def test_a_schema_version_that_is_not_the_newest_is_found(platform: ReadyPlatform) -> None:
    await platform.run("update clients set schema_version = '20260101000000'")
    await platform.assert_found("history_is_complete", "it shows the schema version 20260101000000")


async def test_a_password_that_is_refused_is_found(fresh_platform: ReadyPlatform) -> None:
    await fresh_platform.run(f"alter role {await fresh_platform.fetch_ref()} password 'another'")
    await fresh_platform.assert_found("credentials_work", str(fresh_platform.clients[0]), "refused")


async def test_a_secret_that_cannot_be_decrypted_is_found(platform: ReadyPlatform) -> None:
    await platform.run("update pgworker.tenant_secrets set nonce = '\\x000000000000000000000000'")
    await platform.assert_found("credentials_work", "does not decrypt")


async def test_a_missing_key_is_found(simulated_platform: ReadyPlatform) -> None:
    await simulated_platform.run("delete from pgworker.tenant_secrets where field = 'secret_key'")
    await simulated_platform.assert_found(
        "credentials_work", str(simulated_platform.clients[0]), "keys are missing"
    )


@pytest.mark.parametrize("state", ["intended", "unknown"])
async def test_a_step_without_an_outcome_is_found(platform: ReadyPlatform, state: str) -> None:
    await platform.run(f"update pgworker.steps set state = '{state}' where step = 'create_project'")
    await platform.assert_found("every_step_has_an_outcome", "create_project", f"still {state}")


async def test_a_step_that_was_done_twice_is_found(platform: ReadyPlatform) -> None:
    await platform.run(
        "insert into pgworker.steps (client_id, job_id, claim_token, step, target, state)"
        " select client_id, job_id, claim_token, step, target, state from pgworker.steps"
        " where step = 'apply_migration'"
    )
    await platform.assert_found("every_step_has_an_outcome", "apply_migration", "2 times")


# -- the audit trail --------------------------------------------------------------------------


@pytest.mark.parametrize("event", ["enqueued", "claimed", "advanced", "succeeded"])
async def test_a_missing_event_is_found(platform: ReadyPlatform, event: str) -> None:
    job_id = await platform.fetch_job_id()
    await platform.change_events(
        f"delete from pgworker.event_log where id = (select min(id) from pgworker.event_log"
        f" where job_id = {job_id} and event = '{event}')"
    )
    await platform.assert_found("audit_trail_has_no_gap", f"job {job_id}")


async def test_a_job_that_was_changed_without_an_event_is_found(platform: ReadyPlatform) -> None:
    job_id = await platform.fetch_job_id()
    await platform.run(
        f"update client_provisioning_jobs set job_type = 'schema_sync' where id = {job_id}"
    )
    await platform.assert_found("audit_trail_has_no_gap", f"job {job_id}", "schema_sync")


async def test_an_attempt_that_was_counted_twice_is_found(platform: ReadyPlatform) -> None:
    job_id = await platform.fetch_job_id()
    await platform.run(f"update client_provisioning_jobs set attempts = 1 where id = {job_id}")
    await platform.assert_found("no_attempt_is_miscounted", f"job {job_id}", "counts 1 attempts")


async def test_a_crash_that_was_not_counted_is_found(platform: ReadyPlatform) -> None:
    job_id = await platform.fetch_job_id()
    await platform.change_events(
        "update pgworker.event_log set event = 'rescued', from_status = 'running'"
        f" where job_id = {job_id} and event = 'claimed' and from_phase = 'create_project'"
    )
    await platform.change_events(
        f"delete from pgworker.event_log where job_id = {job_id} and event = 'advanced'"
    )
    await platform.assert_found("no_attempt_is_miscounted", f"job {job_id}", "0 crashes", "show 1")


async def test_an_event_with_an_older_token_is_found(platform: ReadyPlatform) -> None:
    job_id = await platform.fetch_job_id()
    await platform.change_events(
        "update pgworker.event_log set claim_token = 0"
        f" where job_id = {job_id} and event = 'succeeded'"
    )
    await platform.assert_found(
        "no_write_after_a_lost_fence", f"job {job_id}", "succeeded", "token 0"
    )


async def test_an_event_by_a_worker_that_did_not_hold_the_job_is_found(
    platform: ReadyPlatform,
) -> None:
    job_id = await platform.fetch_job_id()
    await platform.change_events(
        "update pgworker.event_log set actor = 'host:1:late'"
        f" where job_id = {job_id} and event = 'succeeded'"
    )
    await platform.assert_found("no_write_after_a_lost_fence", f"job {job_id}", "host:1:late")


@pytest.mark.parametrize(
    "statement",
    [
        "update pgworker.intents set updated_at = now()",
        "update pgworker.tenant_secrets set updated_at = now()",
        "update pgworker.steps set ended_at = now()",
    ],
)
async def test_a_write_of_a_worker_that_holds_nothing_is_found(
    platform: ReadyPlatform, statement: str
) -> None:
    await platform.write_as_worker(4711, statement)
    await platform.assert_found("no_write_after_a_lost_fence", "4711", "when its job was succeeded")


async def test_a_write_while_another_worker_holds_the_job_is_found(platform: ReadyPlatform) -> None:
    job_id = await platform.fetch_job_id()
    await platform.run(
        f"update client_provisioning_jobs set status = 'running', claimed_by = 'host:42:abc'"
        f" where id = {job_id}"
    )
    await platform.write_as_worker(4711, "update pgworker.intents set updated_at = now()")
    await platform.assert_found(
        "no_write_after_a_lost_fence", "4711", "when host:42:abc held the job"
    )


async def test_an_event_that_another_process_wrote_is_found(platform: ReadyPlatform) -> None:
    job_id = await platform.fetch_job_id()
    await platform.write_as_worker(
        4711,
        "insert into pgworker.event_log (event, actor, client_id, job_id, claim_token)"
        f" values ('snoozed', 'host:42:abc', '{platform.clients[0]}', {job_id}, 1)",
    )
    await platform.assert_found(
        "no_write_after_a_lost_fence", "4711", "event snoozed", "host:42:abc"
    )


# -- secrets and leftovers --------------------------------------------------------------------


async def fetch_password(platform: ReadyPlatform) -> str:
    settings = Settings(
        _env_file=None,
        DATABASE_URL=platform.server.dsn_of(PLATFORM),
        PGWORKER_ENCRYPTION_KEYS=ENCRYPTION_KEY,
    )
    async with open_platform(settings) as opened:
        return (await opened.secrets().get_fields(platform.clients[0]))["db_password"]


@pytest.mark.parametrize(
    ("table", "statement"),
    [
        ("public.clients", "update clients set additional_settings = jsonb_build_object('a', $1)"),
        (
            "client_provisioning_jobs",
            "update client_provisioning_jobs set last_error = 'no: ' || $1",
        ),
        ("pgworker.steps", "update pgworker.steps set target = $1"),
    ],
)
async def test_a_secret_in_a_table_is_found(
    platform: ReadyPlatform, table: str, statement: str
) -> None:
    password = await fetch_password(platform)
    await platform.run(statement.replace("$1", f"'{password}'::text"))
    await platform.assert_found(
        "no_secret_in_clear", table, f"db_password of client {platform.clients[0]}"
    )


async def test_a_secret_in_a_log_is_found(platform: ReadyPlatform) -> None:
    logs = {"worker-1": f'{{"event": "connected", "dsn": "x:{await fetch_password(platform)}@y"}}'}
    await platform.assert_found(
        "no_secret_in_clear", "the log of worker-1", "db_password", logs=logs
    )


async def test_a_breaker_that_stayed_open_is_found(platform: ReadyPlatform) -> None:
    await platform.run(
        "insert into pgworker.breakers (credential, reason, probe_at) values ('x', 'y', now())"
    )
    await platform.assert_found("every_breaker_is_closed", "x")


@pytest.mark.parametrize(
    "log",
    [
        '{"event": "phase_crashed", "job_id": 1}',
        "Traceback (most recent call last):\n  File x\nKeyError: 4\n",
        "  + Exception Group Traceback (most recent call last):\n  |   File x\n",
    ],
)
async def test_an_unexpected_error_is_found(platform: ReadyPlatform, log: str) -> None:
    await platform.assert_found(
        "no_unexpected_error", "the log of worker-1", logs={"worker-1": log}
    )


async def test_a_broken_connection_that_no_task_awaits_is_not_an_error(
    platform: ReadyPlatform,
) -> None:
    log = (
        "Task exception was never retrieved\nfuture: <Task finished>\n"
        "Traceback (most recent call last):\n  File x\n"
        "asyncpg.exceptions.ConnectionDoesNotExistError: connection was closed\n"
    )
    assert await platform.check(logs={"worker-1": log}) == []
