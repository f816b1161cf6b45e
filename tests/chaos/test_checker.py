"""The checker itself: each violation, seeded into real databases, is found and named."""

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

from chaos.campaign import expected
from chaos.checker import INVARIANTS, check
from chaos.snapshot import gather
from chaos.testbed import KEY, MIGRATIONS, TEMPLATE, drop_tenants
from pgworker.context import open_platform
from pgworker.runtime.daemon import Daemon
from pgworker.settings import Settings, parse_encryption_keys
from pgworker.simulator import Simulator, SimulatorSettings, running_simulator
from pgworker.status.commands import ClientRequest
from pgworker.tenants.secrets import Vault
from tests.support.stack import environment_of

if TYPE_CHECKING:
    from chaos.checker import Violation
    from tests.support.clusters import Server

PLATFORM = "checked_platform"
READY = "ready_platform"


@dataclass
class Scene:
    """A platform whose two clients are ready, to be tampered with."""

    server: Server
    clients: list[UUID]
    simulator: Simulator | None = None

    async def run(self, *statements: str, database: str = PLATFORM) -> None:
        await self.server.run(*statements, database=database)

    async def value(self, query: str, *arguments: Any) -> Any:
        connection = await asyncpg.connect(self.server.dsn_of(PLATFORM))
        try:
            return await connection.fetchval(query, *arguments)
        finally:
            await connection.close()

    async def ref(self, number: int = 0) -> str:
        ref: str = await self.value(
            "select project_ref from clients where id = $1", self.clients[number]
        )
        return ref

    async def job(self, number: int = 0) -> int:
        job_id: int = await self.value(
            "select id from client_provisioning_jobs where client_id = $1", self.clients[number]
        )
        return job_id

    async def write_as_worker(self, pid: int, statement: str) -> None:
        """Write past pgworker, as a worker of a campaign with this pid."""
        connection = await asyncpg.connect(
            self.server.dsn_of(PLATFORM),
            server_settings={"application_name": f"pgworker pid={pid}"},
        )
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

    async def change_events(self, statement: str) -> None:
        """Rewrite the audit trail, which takes an owner who switches its trigger off."""
        await self.run(
            "alter table pgworker.event_log disable trigger all",
            statement,
            "alter table pgworker.event_log enable trigger all",
        )

    async def violations(
        self, *, logs: dict[str, str] | None = None, **known: Any
    ) -> list[Violation]:
        evidence = await gather(
            {PLATFORM: self.server.dsn_of(PLATFORM)},
            self.server.dsn,
            vault=Vault(parse_encryption_keys((SecretStr(KEY),))),
            ledger=None if self.simulator is None else self.simulator.ledger.as_json(),
            logs=logs,
        )
        return check(evidence, expected(**known))

    async def finds(
        self, invariant: str, *words: str, logs: dict[str, str] | None = None, **known: Any
    ) -> None:
        """Assert that this invariant is violated, in these words."""
        assert invariant in {each.__name__ for each in INVARIANTS}
        violations = await self.violations(logs=logs, **known)
        told = [str(each) for each in violations if each.invariant == invariant]
        assert any(all(word in line for word in words) for line in told), (words, violations)


async def _provision(server: Server, settings: dict[str, Any], platform: str) -> list[UUID]:
    await server.run(f'create database "{platform}" template "{TEMPLATE}"')
    chosen = Settings(
        _env_file=None,
        DATABASE_URL=server.dsn_of(platform),
        PGWORKER_ENCRYPTION_KEYS=KEY,
        PGWORKER_MIGRATIONS_DIR=str(MIGRATIONS),
        PGWORKER_PROJECT_POLL_SECONDS=0.05,
        **settings,
    )
    async with open_platform(chosen) as opened, asyncio.timeout(60):
        for name in ("Acme", "Initech"):
            await opened.commands.create_client(ClientRequest(name))
        left = await Daemon(opened, until_empty=True).run()
        assert (left.live, left.failed) == (0, 0)
        rows = await opened.pool.fetch("select id from clients order by name")
    return [row["id"] for row in rows]


def with_databases(server: Server) -> dict[str, Any]:
    return {"PGWORKER_PROVIDER": "postgres", "PGWORKER_TENANTS_URL": server.dsn}


@pytest.fixture(scope="module")
def ready(own_server: Server) -> Iterator[list[UUID]]:
    """A platform to copy: its two clients have databases, which stay as they are."""
    with asyncio.Runner() as loop:
        yield loop.run(_provision(own_server, with_databases(own_server), READY))
        loop.run(own_server.run(f'drop database "{READY}" with (force)'))
        loop.run(drop_tenants(own_server))


@pytest.fixture
async def scene(own_server: Server, ready: list[UUID]) -> AsyncIterator[Scene]:
    """Two clients with databases; only their platform may be tampered with."""
    await own_server.run(f'create database "{PLATFORM}" template "{READY}"')
    yield Scene(own_server, ready)
    await own_server.run(f'drop database "{PLATFORM}" with (force)')


@pytest.fixture
async def fresh(own_server: Server) -> AsyncIterator[Scene]:
    """Two clients with databases that may be tampered with."""
    clients = await _provision(own_server, with_databases(own_server), PLATFORM)
    yield Scene(own_server, clients)
    await own_server.run(
        f'drop database "{PLATFORM}" with (force)',
        *(f"drop database if exists pgw_{client.hex} with (force)" for client in clients),
        *(f"drop role pgw_{client.hex}" for client in clients),
    )


@pytest.fixture
async def simulated(own_server: Server) -> AsyncIterator[Scene]:
    """Two clients with projects."""
    how = SimulatorSettings(
        admin_dsn=own_server.dsn, rate_limit=10_000, duplicate_names="accepted", key_kinds="new"
    )
    async with running_simulator(how) as simulator:
        try:
            clients = await _provision(own_server, environment_of(simulator), PLATFORM)
            yield Scene(own_server, clients, simulator)
        finally:
            await own_server.run(f'drop database if exists "{PLATFORM}" with (force)')


async def test_a_campaign_without_faults_has_no_violation(scene: Scene) -> None:
    assert await scene.violations() == []


async def test_a_simulated_campaign_without_faults_has_no_violation(simulated: Scene) -> None:
    assert await simulated.violations() == []


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
        "db_pass": "a-password-of-somebody",
        "region_selection": {"type": "specific", "code": "us-east-1"},
    }
    return str((await post(simulator, "/v1/projects", body))["ref"])


async def test_a_second_project_of_a_client_is_found(simulated: Scene) -> None:
    assert simulated.simulator is not None
    name = f"pgworker-{simulated.clients[0]}"
    ref = await create_project(simulated.simulator, name)
    await simulated.finds("one_project_per_client", name, "2 times", ref)
    await simulated.finds("no_orphan", ref, "paid for")


async def test_a_project_that_is_paid_for_and_nobodys_is_found(simulated: Scene) -> None:
    assert simulated.simulator is not None
    ref = await create_project(simulated.simulator, "pgworker-of-somebody-forgotten")
    await simulated.finds("no_orphan", ref, "no client has it")


async def test_keys_made_over_and_over_are_found(simulated: Scene) -> None:
    assert simulated.simulator is not None
    ref = await simulated.ref()
    for number in range(3):
        body = {"type": "publishable", "name": f"another_{number}"}
        await post(simulated.simulator, f"/v1/projects/{ref}/api-keys", body)
    await simulated.finds("one_project_per_client", ref, "3 API keys")


async def test_two_clients_of_one_project_are_found(scene: Scene) -> None:
    await scene.run(f"update clients set project_ref = '{await scene.ref()}'")
    await scene.finds("one_project_per_client", await scene.ref(), "2 clients have it")


async def test_a_database_without_a_client_is_found(scene: Scene) -> None:
    name = f"pgw_{'0' * 32}"
    await scene.run(f"create role {name}", f"create database {name} owner {name}")
    await scene.finds("no_orphan", f"database {name}", "no client has it")
    await scene.run(f"drop database {name}", f"drop role {name}")


async def test_a_role_without_a_database_is_found(scene: Scene) -> None:
    name = f"pgw_{'0' * 32}"
    await scene.run(f"create role {name}")
    await scene.finds("no_orphan", f"role {name}")
    await scene.run(f"drop role {name}")


async def test_a_database_that_was_left_open_is_found(fresh: Scene) -> None:
    ref = await fresh.ref()
    await fresh.run(f"grant connect on database {ref} to public")
    await fresh.finds("nothing_half_made", ref, "open to everybody")


async def test_a_database_that_is_gone_is_found(fresh: Scene) -> None:
    ref = await fresh.ref()
    await fresh.run(f"drop database {ref} with (force)")
    await fresh.finds("nothing_half_made", ref, "isn't there")
    await fresh.finds("no_orphan", f"role {ref}")


async def test_an_intent_that_tells_of_another_project_is_found(scene: Scene) -> None:
    await scene.run("update pgworker.intents set ref = 'another'")
    await scene.finds("nothing_half_made", str(scene.clients[0]), "intent")


# -- clients ----------------------------------------------------------------------------------


async def test_a_client_without_a_job_is_found(scene: Scene) -> None:
    await scene.run(
        "alter table clients disable trigger all",
        "insert into clients (name, auto_provision) values ('Forgotten', true)",
    )
    await scene.finds("no_lost_client", "it has no job")


async def test_a_job_that_nobody_works_on_is_found(scene: Scene) -> None:
    await scene.run("insert into clients (name, auto_provision) values ('Waiting', true)")
    await scene.finds("no_lost_client", "queued and nobody is at it")


async def test_a_client_that_shows_something_else_than_its_job_is_found(scene: Scene) -> None:
    await scene.run("update clients set provisioning_status = 'schema_syncing'")
    await scene.finds("no_lost_client", str(scene.clients[1]), "schema_syncing", "succeeded")


@pytest.mark.parametrize("error", ["null", "''"])
async def test_a_client_that_failed_without_an_explanation_is_found(
    scene: Scene, error: str
) -> None:
    job_id = await scene.job()
    await scene.run(
        f"update client_provisioning_jobs set status = 'failed', error_kind = 'permanent'"
        f" where id = {job_id}",
        f"update clients set provisioning_status = 'failed', provisioning_error = {error}"
        f" where id = '{scene.clients[0]}'",
    )
    await scene.finds(
        "no_lost_client", str(scene.clients[0]), "nobody is told why", all_ready=False
    )


async def test_a_client_in_the_hands_of_a_person_counts_only_where_all_should_be_ready(
    scene: Scene,
) -> None:
    job_id = await scene.job()
    await scene.run(
        f"update client_provisioning_jobs set status = 'failed', error_kind = 'quota'"
        f" where id = {job_id}",
        "update clients set provisioning_status = 'failed', provisioning_error = 'no money'"
        f" where id = '{scene.clients[0]}'",
    )
    await scene.finds("no_lost_client", "no money")
    found = await scene.violations(all_ready=False)
    assert [each for each in found if each.invariant == "no_lost_client"] == []


async def test_two_live_jobs_of_a_client_are_found(scene: Scene) -> None:
    await scene.run(
        "drop index client_provisioning_jobs_one_live",
        f"insert into client_provisioning_jobs (client_id) values ('{scene.clients[0]}')",
        f"insert into client_provisioning_jobs (client_id) values ('{scene.clients[0]}')",
    )
    await scene.finds("one_live_job_per_client", str(scene.clients[0]), "2 live jobs")


async def test_a_missing_row_of_a_tenants_history_is_found(fresh: Scene) -> None:
    await fresh.run(
        "delete from supabase_migrations.schema_migrations where version = '20260101000100'",
        database=await fresh.ref(),
    )
    await fresh.finds("history_is_complete", str(fresh.clients[0]), "its history is")


async def test_a_migration_that_ran_twice_is_found(fresh: Scene) -> None:
    await fresh.run(
        "insert into runs (version) values ('20260101000300')", database=await fresh.ref()
    )
    await fresh.finds("history_is_complete", str(fresh.clients[0]), "files that ran")


async def test_a_schema_version_that_is_not_the_newest_is_found(scene: Scene) -> None:
    await scene.run("update clients set schema_version = '20260101000000'")
    await scene.finds("history_is_complete", "it shows the schema version 20260101000000")


async def test_a_password_that_does_not_let_in_is_found(fresh: Scene) -> None:
    await fresh.run(f"alter role {await fresh.ref()} password 'another'")
    await fresh.finds("credentials_work", str(fresh.clients[0]), "refused")


async def test_a_secret_that_does_not_open_is_found(scene: Scene) -> None:
    await scene.run("update pgworker.tenant_secrets set nonce = '\\x000000000000000000000000'")
    await scene.finds("credentials_work", "does not decrypt")


async def test_a_missing_key_is_found(simulated: Scene) -> None:
    await simulated.run("delete from pgworker.tenant_secrets where field = 'secret_key'")
    await simulated.finds("credentials_work", str(simulated.clients[0]), "keys are missing")


@pytest.mark.parametrize("state", ["intended", "unknown"])
async def test_a_step_without_an_outcome_is_found(scene: Scene, state: str) -> None:
    await scene.run(f"update pgworker.steps set state = '{state}' where step = 'create_project'")
    await scene.finds("every_step_has_an_outcome", "create_project", f"still {state}")


async def test_a_step_that_was_done_twice_is_found(scene: Scene) -> None:
    await scene.run(
        "insert into pgworker.steps (client_id, job_id, claim_token, step, target, state)"
        " select client_id, job_id, claim_token, step, target, state from pgworker.steps"
        " where step = 'apply_migration'"
    )
    await scene.finds("every_step_has_an_outcome", "apply_migration", "2 times")


# -- the audit trail --------------------------------------------------------------------------


@pytest.mark.parametrize("event", ["enqueued", "claimed", "advanced", "succeeded"])
async def test_a_missing_event_is_found(scene: Scene, event: str) -> None:
    job_id = await scene.job()
    await scene.change_events(
        f"delete from pgworker.event_log where id = (select min(id) from pgworker.event_log"
        f" where job_id = {job_id} and event = '{event}')"
    )
    await scene.finds("audit_trail_has_no_gap", f"job {job_id}")


async def test_a_job_that_was_changed_past_the_audit_trail_is_found(scene: Scene) -> None:
    job_id = await scene.job()
    await scene.run(
        f"update client_provisioning_jobs set job_type = 'schema_sync' where id = {job_id}"
    )
    await scene.finds("audit_trail_has_no_gap", f"job {job_id}", "schema_sync")


async def test_an_attempt_that_was_counted_twice_is_found(scene: Scene) -> None:
    job_id = await scene.job()
    await scene.run(f"update client_provisioning_jobs set attempts = 1 where id = {job_id}")
    await scene.finds("no_attempt_is_miscounted", f"job {job_id}", "counts 1 attempts")


async def test_a_crash_that_was_not_counted_is_found(scene: Scene) -> None:
    job_id = await scene.job()
    await scene.change_events(
        "update pgworker.event_log set event = 'rescued', from_status = 'running'"
        f" where job_id = {job_id} and event = 'claimed' and from_phase = 'create_project'"
    )
    await scene.change_events(
        f"delete from pgworker.event_log where job_id = {job_id} and event = 'advanced'"
    )
    await scene.finds("no_attempt_is_miscounted", f"job {job_id}", "0 crashes", "has 1")


async def test_an_event_with_an_older_token_is_found(scene: Scene) -> None:
    job_id = await scene.job()
    await scene.change_events(
        "update pgworker.event_log set claim_token = 0"
        f" where job_id = {job_id} and event = 'succeeded'"
    )
    await scene.finds("no_write_after_a_lost_fence", f"job {job_id}", "succeeded", "token 0")


async def test_an_event_by_somebody_who_did_not_hold_the_job_is_found(scene: Scene) -> None:
    job_id = await scene.job()
    await scene.change_events(
        "update pgworker.event_log set actor = 'host:1:late'"
        f" where job_id = {job_id} and event = 'succeeded'"
    )
    await scene.finds("no_write_after_a_lost_fence", f"job {job_id}", "host:1:late")


@pytest.mark.parametrize(
    "statement",
    [
        "update pgworker.intents set updated_at = now()",
        "update pgworker.tenant_secrets set updated_at = now()",
        "update pgworker.steps set ended_at = now()",
    ],
)
async def test_a_write_of_a_worker_that_holds_nothing_is_found(
    scene: Scene, statement: str
) -> None:
    await scene.write_as_worker(4711, statement)
    await scene.finds("no_write_after_a_lost_fence", "4711", "when its job was succeeded")


async def test_a_write_while_somebody_else_holds_the_job_is_found(scene: Scene) -> None:
    job_id = await scene.job()
    await scene.run(
        f"update client_provisioning_jobs set status = 'running', claimed_by = 'host:42:abc'"
        f" where id = {job_id}"
    )
    await scene.write_as_worker(4711, "update pgworker.intents set updated_at = now()")
    await scene.finds("no_write_after_a_lost_fence", "4711", "when host:42:abc held the job")


async def test_an_event_that_another_process_wrote_is_found(scene: Scene) -> None:
    job_id = await scene.job()
    await scene.write_as_worker(
        4711,
        "insert into pgworker.event_log (event, actor, client_id, job_id, claim_token)"
        f" values ('snoozed', 'host:42:abc', '{scene.clients[0]}', {job_id}, 1)",
    )
    await scene.finds("no_write_after_a_lost_fence", "4711", "event snoozed", "host:42:abc")


# -- secrets and leftovers --------------------------------------------------------------------


async def password_of(scene: Scene) -> str:
    settings = Settings(
        _env_file=None,
        DATABASE_URL=scene.server.dsn_of(PLATFORM),
        PGWORKER_ENCRYPTION_KEYS=KEY,
    )
    async with open_platform(settings) as platform:
        return (await platform.secrets().of_client(scene.clients[0]))["db_password"]


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
async def test_a_secret_in_a_table_is_found(scene: Scene, table: str, statement: str) -> None:
    password = await password_of(scene)
    await scene.run(statement.replace("$1", f"'{password}'::text"))
    await scene.finds("no_secret_in_clear", table, f"db_password of client {scene.clients[0]}")


async def test_a_secret_in_a_log_is_found(scene: Scene) -> None:
    logs = {"worker-1": f'{{"event": "connected", "dsn": "x:{await password_of(scene)}@y"}}'}
    await scene.finds("no_secret_in_clear", "the log of worker-1", "db_password", logs=logs)


async def test_a_breaker_that_stayed_open_is_found(scene: Scene) -> None:
    await scene.run(
        "insert into pgworker.breakers (credential, reason, probe_at) values ('x', 'y', now())"
    )
    await scene.finds("every_breaker_is_closed", "x")


@pytest.mark.parametrize(
    "log",
    [
        '{"event": "phase_crashed", "job_id": 1}',
        "Traceback (most recent call last):\n  File x\nKeyError: 4\n",
        "  + Exception Group Traceback (most recent call last):\n  |   File x\n",
    ],
)
async def test_an_error_that_nobody_foresaw_is_found(scene: Scene, log: str) -> None:
    await scene.finds("nothing_unforeseen", "the log of worker-1", logs={"worker-1": log})


async def test_a_connection_that_nobody_waits_for_any_more_may_break(scene: Scene) -> None:
    log = (
        "Task exception was never retrieved\nfuture: <Task finished>\n"
        "Traceback (most recent call last):\n  File x\n"
        "asyncpg.exceptions.ConnectionDoesNotExistError: connection was closed\n"
    )
    assert await scene.violations(logs={"worker-1": log}) == []
