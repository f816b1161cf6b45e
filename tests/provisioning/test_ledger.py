"""The ledger: committed before anything is sent, and only by the worker that holds the job."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest

from pgworker.db.pool import open_pool
from pgworker.errors import LeaseLost, OutcomeUnknown
from pgworker.models import Job
from pgworker.providers.base import Tenant
from pgworker.provisioning.ledger import LEDGER_QUERIES, Intent, Ledger, generate_password
from pgworker.provisioning.step_ledger import STEP_QUERIES, StepLedger
from pgworker.queue.jobs import Jobs
from pgworker.tenants.secrets import DATABASE_PASSWORD, TenantSecrets, Vault
from pgworker.tenants.steps import Step
from tests.support.polling import wait_for_lock
from tests.support.workers import within

if TYPE_CHECKING:
    from pgworker.db.pool import Pool

LEASE = timedelta(seconds=30)
TENANT = Tenant(ref="abc", url="https://abc.test", name="pgworker-abc")
TABLES = (
    "pgworker.intents",
    "pgworker.tenant_secrets",
    "public.clients",
    "public.client_provisioning_jobs",
)


@dataclass
class LedgerInTest:
    """A ledger, and a client whose job is claimed."""

    pool: Pool
    ledger: Ledger
    secrets: TenantSecrets
    client_id: UUID
    job: Job

    async def commit(self, job: Job | None = None, *, region: str | None = None) -> Intent:
        return await self.ledger.commit(
            job or self.job, provider="supabase", name="pgworker-abc", region=region, plan=None
        )

    async def lose_job(self) -> None:
        """Let another worker take the job over."""
        await self.pool.execute(
            "update client_provisioning_jobs set lease_expires_at = now() - interval '1 s'"
        )
        (taken,) = await Jobs(self.pool, worker="fast", lease=LEASE).claim(1, ["provision"])
        assert taken.claim_token == self.job.claim_token + 1

    async def create_without_an_answer(self, job: Job) -> None:
        steps = StepLedger(self.pool, self.client_id, job)
        with pytest.raises(OutcomeUnknown):
            async with steps.record(Step.CREATE_PROJECT, "pgworker-abc"):
                raise OutcomeUnknown("timed out")

    async def read_tables(self) -> list[str]:
        return [
            row["text"]
            for table in TABLES
            for row in await self.pool.fetch(f"select t::text as text from {table} t order by 1")
        ]


@pytest.fixture
async def held(database: str) -> AsyncIterator[LedgerInTest]:
    async with open_pool(database, max_size=4) as pool:
        tenant_secrets = TenantSecrets(pool, Vault({"k": bytes(32)}))
        client_id = await pool.fetchval(
            "insert into clients (name, auto_provision) values ('Acme', true) returning id"
        )
        (job,) = await Jobs(pool, worker="slow", lease=LEASE).claim(1, ["provision"])
        ledger = Ledger(pool, tenant_secrets)
        yield LedgerInTest(pool, ledger, tenant_secrets, client_id, job)


WRITES: dict[str, Callable[[LedgerInTest], Coroutine[Any, Any, object]]] = {
    "commit": lambda held: held.commit(),
    "record_ref": lambda held: held.ledger.record_ref(
        held.job, TENANT, provisioning={"region": "x"}
    ),
    "replace_password": lambda held: held.ledger.replace_password(held.job),
    "store_secrets": lambda held: held.ledger.store_secrets(held.job, {"dsn": "x"}),
}


@pytest.mark.parametrize("write", WRITES)
async def test_a_worker_that_lost_the_job_writes_nothing_and_gets_lease_lost(
    held: LedgerInTest, write: str
) -> None:
    await held.commit()
    await held.lose_job()
    before = await held.read_tables()

    with pytest.raises(LeaseLost):
        await WRITES[write](held)

    assert await held.read_tables() == before


@pytest.mark.parametrize("write", WRITES)
async def test_after_a_reset_by_plain_sql_the_holder_writes_nothing(
    held: LedgerInTest, write: str
) -> None:
    await held.commit()
    await held.pool.execute("update client_provisioning_jobs set attempts = 0, claimed_at = null")
    before = await held.read_tables()

    with pytest.raises(LeaseLost):
        await WRITES[write](held)

    assert await held.read_tables() == before


@pytest.mark.parametrize("write", WRITES)
async def test_a_worker_that_loses_the_job_while_it_waits_to_write_writes_nothing(
    held: LedgerInTest, write: str
) -> None:
    await held.commit()
    async with held.pool.acquire() as connection, connection.transaction():
        await connection.execute(
            "update client_provisioning_jobs set claim_token = claim_token + 1"
        )
        writing = asyncio.create_task(WRITES[write](held))
        await wait_for_lock(held.pool)
    before = await held.read_tables()

    with pytest.raises(LeaseLost):
        await within(writing)

    assert await held.read_tables() == before


async def test_settings_that_were_just_written_to_the_client_are_kept(held: LedgerInTest) -> None:
    await held.commit()
    async with held.pool.acquire() as connection, connection.transaction():
        await connection.execute("update clients set additional_settings = $1", {"mine": 1})
        writing = asyncio.create_task(WRITES["record_ref"](held))
        await wait_for_lock(held.pool)
    await within(writing)

    settings = await held.pool.fetchval("select additional_settings from clients")
    assert settings == {"mine": 1, "provisioning": {"region": "x"}}


async def test_a_first_commit_by_a_worker_that_lost_the_job_leaves_no_intent(
    held: LedgerInTest,
) -> None:
    await held.lose_job()

    with pytest.raises(LeaseLost):
        await held.commit()

    assert await held.pool.fetchval("select count(*) from pgworker.intents") == 0
    assert await held.pool.fetchval("select count(*) from pgworker.tenant_secrets") == 0


def test_every_writing_method_is_tried_above() -> None:
    public = {name for name in vars(Ledger) if not name.startswith("_")}

    assert public - {"find_intent"} == WRITES.keys()


async def test_an_intent_is_stored_with_its_password_before_anything_is_sent(
    held: LedgerInTest,
) -> None:
    intent = await held.commit(region="eu-central-1")

    assert (intent.creates, intent.ref, intent.since_create) == (0, None, None)
    assert intent.region == "eu-central-1"
    stored = await held.secrets.get_fields(held.client_id)
    assert stored == {DATABASE_PASSWORD: intent.password}
    assert await held.ledger.find_intent(held.client_id) == intent


async def test_the_first_intent_stands_when_the_clients_wishes_change(
    held: LedgerInTest,
) -> None:
    first = await held.commit(region="eu-central-1")

    again = await held.ledger.commit(
        held.job, provider="postgres", name="another-name", region="us-east-1", plan="large"
    )

    assert again == first


async def test_the_password_of_an_intent_is_never_replaced(held: LedgerInTest) -> None:
    first = await held.commit()
    stored = await held.secrets.get_fields(held.client_id)
    again = await held.commit()

    assert await held.secrets.get_fields(held.client_id) == stored
    assert again.password == first.password == stored[DATABASE_PASSWORD]


async def test_a_password_that_was_there_before_the_intent_is_the_intents(
    held: LedgerInTest,
) -> None:
    await held.secrets.put(held.client_id, {DATABASE_PASSWORD: "an earlier one"})

    intent = await held.commit()

    assert intent.password == "an earlier one"
    assert await held.secrets.get_fields(held.client_id) == {DATABASE_PASSWORD: intent.password}


async def test_an_intent_does_not_show_its_password(held: LedgerInTest) -> None:
    intent = await held.commit()

    assert str(intent.password) not in repr(intent)


async def test_a_person_who_retries_allows_further_creates(held: LedgerInTest) -> None:
    await held.commit()
    for _ in range(3):
        await held.create_without_an_answer(held.job)
    assert (await held.commit()).creates == 3

    await held.pool.execute("update client_provisioning_jobs set attempts = 0, claimed_at = null")
    (again,) = await Jobs(held.pool, worker="next", lease=LEASE).claim(1, ["provision"])

    intent = await held.commit(again)
    assert intent.creates == 0
    assert intent.since_create is not None
    await held.create_without_an_answer(again)
    assert (await held.commit(again)).creates == 1


async def test_the_ref_and_the_tenants_real_properties_are_on_the_client_at_once(
    held: LedgerInTest,
) -> None:
    await held.pool.execute(
        "update clients set additional_settings = $1", {"region": "eu-west-1", "mine": [1]}
    )
    await held.commit()
    await held.ledger.record_ref(held.job, TENANT, provisioning={"region": "eu-west-1"})

    client = await held.pool.fetchrow("select * from clients")
    assert client is not None
    assert (client["project_ref"], client["project_url"]) == (TENANT.ref, TENANT.url)
    assert client["additional_settings"] == {
        "region": "eu-west-1",
        "mine": [1],
        "provisioning": {"region": "eu-west-1"},
    }
    intent = await held.ledger.find_intent(held.client_id)
    assert intent is not None
    assert (intent.provider, intent.ref) == ("supabase", TENANT.ref)


async def test_the_ref_is_recorded_with_the_step_that_created_it(held: LedgerInTest) -> None:
    await held.commit()
    steps = StepLedger(held.pool, held.client_id, held.job)
    async with steps.record(Step.CREATE_PROJECT, "pgworker-abc"):
        pass

    await held.ledger.record_ref(held.job, TENANT, provisioning={}, done=steps.drain_completed())

    assert await held.pool.fetchval("select state from pgworker.steps") == "done"
    await held.lose_job()
    await steps.flush()  # nothing is left to record, or it would be refused


async def test_only_what_a_later_commit_covers_does_not_wait_for_the_disk(
    held: LedgerInTest,
) -> None:
    """Before a request is sent, and when a person acts, no later commit is certain."""
    who, step = (held.client_id, held.job.id, held.job.claim_token), Step.CREATE_PROJECT

    async def commit_intent(connection: Any) -> None:
        holder = (held.job.id, held.job.claim_token, held.client_id)
        intent: tuple[Any, ...] = ("supabase", "pgworker-abc", {}, DATABASE_PASSWORD, "k", b"", b"")
        await connection.fetchval(LEDGER_QUERIES.commit_intent, *holder, *intent)

    async def record_ref(connection: Any) -> None:
        holder = (held.job.id, held.job.claim_token, held.client_id)
        await connection.execute(LEDGER_QUERIES.record_ref, *holder, "ref", "url", {}, [])

    async def begin_step(connection: Any) -> None:
        await connection.fetchval(STEP_QUERIES.begin_step, *who, step, "x", None, [], [])

    async def end_step(connection: Any) -> None:
        await connection.fetchval(STEP_QUERIES.end_step, *who, [], "done")

    async def put_secret_by_worker(connection: Any) -> None:
        await held.secrets.put(held.client_id, {"dsn": "x"}, job=held.job, connection=connection)

    async def put_secret_by_person(connection: Any) -> None:
        await held.secrets.put(held.client_id, {"dsn": "x"}, connection=connection)

    waits = {}
    for write in (
        commit_intent,
        begin_step,
        end_step,
        record_ref,
        put_secret_by_worker,
        put_secret_by_person,
    ):
        async with held.pool.acquire() as connection, connection.transaction():
            await connection.execute("set local synchronous_commit = on")
            await write(connection)
            waits[write.__name__] = await connection.fetchval(
                "select current_setting('synchronous_commit')"
            )

    assert waits == {
        "commit_intent": "off",
        "begin_step": "on",
        "end_step": "off",
        "record_ref": "on",
        "put_secret_by_worker": "off",
        "put_secret_by_person": "on",
    }


async def test_a_client_without_an_attempt_has_no_intent(held: LedgerInTest) -> None:
    assert await held.ledger.find_intent(held.client_id) is None


def test_a_password_needs_no_escaping_and_never_comes_twice() -> None:
    made = {generate_password() for _ in range(50)}

    assert len(made) == 50
    assert all(
        len(password) == 40 and password.isascii() and password.isalnum() for password in made
    )
