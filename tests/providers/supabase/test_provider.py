"""The `supabase` provider: its decisions by table, its behaviour with the simulator."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import httpx
import pytest

from pgworker.errors import (
    BadConfiguration,
    CredentialRefused,
    JobError,
    LeaseLost,
    OutcomeUnknown,
    Permanent,
    QuotaExceeded,
    SmokeCheckFailed,
    Transient,
)
from pgworker.providers.base import (
    Credentials,
    Provider,
    TenantRequest,
    TenantState,
)
from pgworker.providers.supabase import provider as supabase
from pgworker.providers.supabase.catalog import instance_size, select_region
from pgworker.providers.supabase.errors import NameTaken
from pgworker.providers.supabase.keys import build_dsn, choose_keys, is_allowed_host
from pgworker.providers.supabase.models import ApiKey, PoolerConfig
from pgworker.providers.supabase.provider import SupabaseProvider
from pgworker.providers.supabase.services import Read, plan_reads
from pgworker.providers.supabase.settings import SupabaseSettings
from pgworker.providers.supabase.states import judge_project
from pgworker.simulator import Answer, Drop, Simulator, SimulatorSettings, running_simulator
from pgworker.simulator.faults import Truncated
from pgworker.tenants.connection import StatementError
from pgworker.tenants.steps import NoSteps

TOKEN = "sbp_0123456789abcdef0123456789abcdef01234567"
PASSWORD = "Kq7Zp2Wm9Xr4Tb6Vn8Lc3Hd5Jf1Gs0Ay"
CLIENT = UUID("0b54e3a2-7c1d-4a1e-9f00-1234567890ab")
NAME = f"pgworker-{CLIENT}"
REF = "abcdefghijklmnopqrst"
SLUG = "acme-org"
REQUEST = TenantRequest(client_id=CLIENT, name=NAME, database_password=PASSWORD)
SETTINGS = SupabaseSettings(
    access_token=TOKEN, organization=SLUG, api_url="https://api.test", key_grace=timedelta()
)

Routes = dict[tuple[str, str], Any]


def listed(name: str = NAME, ref: str = REF, **changes: Any) -> dict[str, Any]:
    return {
        "ref": ref,
        "name": name,
        "cloud_provider": "AWS",
        "region": "eu-central-1",
        "is_branch": False,
        "status": "ACTIVE_HEALTHY",
        "inserted_at": "2026-01-02T03:04:05.678Z",
        "databases": [],
    } | changes


def page(*projects: dict[str, Any], count: int | None = None) -> dict[str, Any]:
    total = len(projects) if count is None else count
    return {
        "projects": list(projects),
        "pagination": {"count": total, "limit": 100, "offset": 0},
    }


def provider_answering(
    reply: Callable[[httpx.Request], httpx.Response], settings: SupabaseSettings = SETTINGS
) -> SupabaseProvider:
    return SupabaseProvider(settings, transport=httpx.MockTransport(reply))


def pages(*bodies: dict[str, Any] | int) -> Callable[[httpx.Request], httpx.Response]:
    """Answer the listing with these pages (or statuses), one after the other."""
    left = list(bodies)

    def reply(request: httpx.Request) -> httpx.Response:
        if request.url.path == f"/v1/organizations/{SLUG}":
            return httpx.Response(200, json={"id": SLUG, "name": "Acme", "plan": "pro"})
        assert request.url.path == f"/v1/organizations/{SLUG}/projects"
        assert "statuses" not in request.url.params
        assert request.url.params["limit"] == "100"
        body = left.pop(0)
        return httpx.Response(body) if isinstance(body, int) else httpx.Response(200, json=body)

    return reply


# -- diagnose ---------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [401, 404, 503])
async def test_a_refusal_is_diagnosed_with_the_settings_to_check(status: int) -> None:
    (diagnosis,) = await provider_answering(lambda _: httpx.Response(status)).diagnose()

    assert not diagnosis.is_ok
    assert f"answered {status}" in diagnosis.detail
    assert diagnosis.advice == "check SUPABASE_ACCESS_TOKEN and SUPABASE_ORG_ID"


async def test_a_silent_api_is_diagnosed_by_its_address(monkeypatch: pytest.MonkeyPatch) -> None:
    async def reply(request: httpx.Request) -> httpx.Response:
        await asyncio.Event().wait()
        raise AssertionError

    monkeypatch.setattr(supabase, "DIAGNOSE_TIMEOUT", timedelta(milliseconds=10))
    provider = SupabaseProvider(SETTINGS, transport=httpx.MockTransport(reply))
    (diagnosis,) = await provider.diagnose()

    assert not diagnosis.is_ok
    assert diagnosis.detail == f"{SETTINGS.api_url} did not answer in time"


# -- find -------------------------------------------------------------------------------------


async def test_only_the_exact_name_outside_of_branches_and_removed_projects_is_ours() -> None:
    bodies = page(
        listed(NAME.upper()),
        listed(f"{NAME}-2"),
        listed(is_branch=True),
        listed(status="REMOVED"),
        listed(ref="b" * 20),
    )
    found = await provider_answering(pages(bodies)).find(NAME)

    assert found is not None
    assert found.ref == "b" * 20
    assert found.url == f"https://{'b' * 20}.supabase.co"
    assert found.region == "eu-central-1"
    assert found.plan == "pro"
    assert found.organization == SLUG
    assert found.created_at == datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=UTC)


async def test_a_project_on_the_last_page_is_found() -> None:
    others = [listed(f"{NAME}{n}", ref=f"{n:a>20}") for n in range(100)]
    found = await provider_answering(
        pages(page(*others, count=101), page(listed(), count=101))
    ).find(NAME)

    assert found is not None
    assert found.ref == REF


async def test_none_is_returned_only_after_a_complete_look_up() -> None:
    assert await provider_answering(pages(page())).find(NAME) is None
    assert (
        await provider_answering(pages(page(listed("x"), count=2), page(count=2))).find(NAME)
        is None
    )


@pytest.mark.parametrize(
    "bodies",
    [
        [page(listed("x"), count=2), page(listed("y"), count=3)],
        [page(listed("x"), count=2), 500],
        [page(listed("x"), count=2), page({"ref": REF}, count=2)],
        [{"projects": []}],
        [page(listed(status="GOING_DOWN"))],
        [page(listed(ref="NOT-A-REF"))],
    ],
)
async def test_an_incomplete_look_up_is_an_error(bodies: list[Any]) -> None:
    with pytest.raises(Transient):
        await provider_answering(pages(*bodies)).find(NAME)


async def test_two_projects_of_our_name_are_named_and_none_is_chosen() -> None:
    two = page(listed(), listed(ref="z" * 20))
    with pytest.raises(Permanent, match=f"{REF}, {'z' * 20}"):
        await provider_answering(pages(two)).find(NAME)


# -- create -----------------------------------------------------------------------------------


async def created_body(request: TenantRequest, settings: SupabaseSettings = SETTINGS) -> Any:
    bodies: list[Any] = []

    def reply(http: httpx.Request) -> httpx.Response:
        bodies.append(json.loads(http.content))
        project = {"ref": REF, "name": request.name, "organization_slug": SLUG}
        more = {"region": "eu-west-1", "status": "UNKNOWN", "created_at": "?", "id": "deprecated"}
        return httpx.Response(201, json=project | more)

    tenant = await provider_answering(reply, settings).create(request)
    assert tenant.ref == REF
    assert tenant.created_at is None
    (body,) = bodies
    return body


async def test_a_create_sends_the_defaults_and_no_deprecated_field() -> None:
    assert await created_body(REQUEST) == {
        "name": NAME,
        "organization_slug": SLUG,
        "db_pass": PASSWORD,
        "region_selection": {"type": "specific", "code": "us-east-1"},
    }


async def test_a_create_sends_the_clients_region_and_size() -> None:
    body = await created_body(
        replace(REQUEST, region="emea", plan="small"), replace(SETTINGS, default_plan="large")
    )

    assert body["region_selection"] == {"type": "smartGroup", "code": "emea"}
    assert body["desired_instance_size"] == "small"


@pytest.mark.parametrize(
    "change",
    [{"region": "mars-1"}, {"plan": "gold"}, {"name": "with.dot"}, {"name": "x" * 257}],
)
async def test_a_request_that_the_api_would_refuse_is_not_sent(
    change: dict[str, Any],
) -> None:
    def reply(request: httpx.Request) -> httpx.Response:
        pytest.fail(f"sent {request.url}")

    with pytest.raises(Permanent, match=next(iter(change.values()))[:40]):
        await provider_answering(reply).create(replace(REQUEST, **change))


@pytest.mark.parametrize("plan", [None, "free", "pro"])
def test_a_plan_of_the_organisation_sends_no_size(plan: str | None) -> None:
    assert instance_size(plan) is None


def test_an_unknown_region_is_refused_with_the_known_ones() -> None:
    with pytest.raises(Permanent, match=r"eu-central-1.*emea"):
        select_region("frankfurt")


@pytest.mark.parametrize(
    ("change", "variable"),
    [
        ({"organization": "../x"}, "SUPABASE_ORG_ID"),
        ({"access_token": "two words"}, "SUPABASE_ACCESS_TOKEN"),
        ({"project_url_template": "https://x"}, "PGWORKER_SUPABASE_PROJECT_URL"),
    ],
)
def test_an_unusable_setting_is_named_without_its_value(
    change: dict[str, Any], variable: str
) -> None:
    with pytest.raises(BadConfiguration, match=variable) as caught:
        SupabaseProvider(replace(SETTINGS, **change))

    assert next(iter(change.values())) not in str(caught.value)
    assert TOKEN not in repr(SETTINGS)


# -- observe ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "state"),
    [
        *((status, None) for status in ("ACTIVE_HEALTHY", "ACTIVE_UNHEALTHY")),
        *((status, TenantState.COMING_UP) for status in ("UNKNOWN", "COMING_UP", "RESTORING")),
        *((status, TenantState.COMING_UP) for status in ("UPGRADING", "RESTARTING", "RESIZING")),
        *((status, TenantState.BROKEN) for status in ("PAUSING", "INACTIVE")),
        *((status, TenantState.GONE) for status in ("GOING_DOWN", "REMOVED")),
        *((status, TenantState.BROKEN) for status in ("INIT_FAILED", "RESTORE_FAILED")),
        ("PAUSE_FAILED", TenantState.BROKEN),
        ("TELEPORTING", TenantState.COMING_UP),
    ],
)
def test_a_projects_status_means_what_the_contract_says(
    status: str, state: TenantState | None
) -> None:
    observation = judge_project(status)

    assert (observation and observation.state) == state
    assert observation is None or status in observation.answer


# -- keys and DSN -----------------------------------------------------------------------------

JWT = "eyJhbGciOiJIUzI1NiJ9.eyJyb2xlIjoiYW5vbiJ9.c2lnbmF0dXJl"
ROLE = {"role": "service_role"}
PUBLISHABLE = ApiKey(name="default", type="publishable", api_key="sb_publishable_abc")
SECRET = ApiKey(name="default", type="secret", api_key="sb_secret_abc", secret_jwt_template=ROLE)
ANON = ApiKey(name="anon", type="legacy", api_key=JWT)
SERVICE = ApiKey(name="service_role", type=None, api_key=JWT)


@pytest.mark.parametrize(
    ("keys", "fields", "missing"),
    [
        ([SECRET, PUBLISHABLE], {"publishable_key", "secret_key"}, ()),
        ([ANON, SERVICE], {"anon_key", "service_role_key"}, ()),
        ([ANON, SECRET], {"anon_key", "secret_key"}, ()),
        ([], set(), ("publishable", "secret")),
        ([PUBLISHABLE], {"publishable_key"}, ("secret",)),
        # Masked, malformed, of another role, of an unknown-of type.
        ([SECRET.model_copy(update={"api_key": "sb_secret_abc····"})], set(), None),
        ([SECRET.model_copy(update={"api_key": "sb_secret_***"})], set(), None),
        ([SECRET.model_copy(update={"api_key": None})], set(), None),
        ([SECRET.model_copy(update={"api_key": "sb_publishable_abc"})], set(), None),
        ([SECRET.model_copy(update={"secret_jwt_template": {"role": "x"}})], set(), None),
        ([SECRET.model_copy(update={"secret_jwt_template": None})], set(), None),
        ([ANON.model_copy(update={"api_key": "not-a-jwt"})], set(), None),
        ([ANON.model_copy(update={"name": "other"})], set(), None),
        ([PUBLISHABLE.model_copy(update={"type": "quantum"})], set(), None),
    ],
)
def test_keys_are_chosen_by_type_and_only_when_usable(
    keys: list[ApiKey], fields: set[str], missing: tuple[str, ...] | None
) -> None:
    chosen = choose_keys(keys)

    assert chosen.fields.keys() == fields
    assert missing is None or chosen.missing == missing
    assert not chosen.fields or "abc" not in repr(chosen)


def pooler(**changes: str) -> PoolerConfig:
    values = {
        "database_type": "PRIMARY",
        "db_user": f"postgres.{REF}",
        "db_host": "aws-0-eu-central-1.pooler.supabase.com",
        "db_name": "postgres",
    }
    return PoolerConfig(**(values | changes))


def dsn_of(*poolers: PoolerConfig, password: str = PASSWORD) -> str:
    hosts = (".supabase.com", "127.0.0.1", "::1")
    return build_dsn(poolers, ref=REF, password=password, port=5432, allowed_hosts=hosts)


def test_the_dsn_is_that_of_the_primary_in_session_mode_with_tls() -> None:
    replica = pooler(database_type="READ_REPLICA", db_host="evil.test")

    assert dsn_of(replica, pooler()) == (
        f"postgresql://postgres.{REF}:{PASSWORD}"
        "@aws-0-eu-central-1.pooler.supabase.com:5432/postgres?sslmode=require"
    )


def test_a_loopback_pooler_needs_no_tls_and_a_strange_password_is_escaped() -> None:
    dsn = dsn_of(pooler(db_host="127.0.0.1"), password="a/b:c@d?")

    assert dsn == f"postgresql://postgres.{REF}:a%2Fb%3Ac%40d%3F@127.0.0.1:5432/postgres"
    assert urlsplit(dsn_of(pooler(db_host="::1"))).hostname == "::1"


@pytest.mark.parametrize(
    "host",
    [
        "evil.test",
        "supabase.com.evil.test",
        "evilsupabase.com",
        "x@evil.test",
        "127.0.0.2",
        "a.supabase.com,evil.test",
        "evil.test/.supabase.com",
        "evil.test#.supabase.com",
        "",
    ],
)
def test_the_password_is_sent_to_allowed_hosts_only(host: str) -> None:
    with pytest.raises(Permanent, match="PGWORKER_SUPABASE_POOLER_HOSTS") as caught:
        dsn_of(pooler(db_host=host))

    assert PASSWORD not in str(caught.value)


def test_a_suffix_allows_the_names_below_it_and_a_name_only_itself() -> None:
    assert is_allowed_host("a.b.supabase.com", [".supabase.com"])
    assert not is_allowed_host(".supabase.com", [".supabase.com"])
    assert not is_allowed_host("supabase.com", [".supabase.com"])
    assert is_allowed_host("db.test", ["db.test"])
    assert not is_allowed_host("x.db.test", ["db.test"])
    assert not is_allowed_host("db.test", ["", "."])


def test_a_pooler_user_of_another_project_is_refused() -> None:
    with pytest.raises(Permanent, match="another tenant"):
        dsn_of(pooler(db_user=f"postgres.{REF[::-1]}"))
    with pytest.raises(Transient):
        dsn_of(pooler(database_type="READ_REPLICA"))


def test_the_low_privilege_key_is_tried_with_an_allowed_and_a_forbidden_table() -> None:
    def row(name: str, *, anon: bool, service: bool) -> dict[str, Any]:
        return {"name": name, "anon_may_read": anon, "service_role_may_read": service}

    tables = [
        row("a", anon=False, service=False),
        row("b", anon=False, service=True),
        row("c", anon=True, service=True),
    ]

    assert plan_reads(tables) == (
        Read("b", is_elevated=True, is_allowed=True),
        Read("c", is_elevated=False, is_allowed=True),
        Read("a", is_elevated=False, is_allowed=False),
    )
    assert plan_reads([]) == (Read(None, is_elevated=True, is_allowed=True),)


# -- against the simulator --------------------------------------------------------------------


class Clock:
    """The simulator's and the provider's time, which stands still until a test moves it."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Stage:
    """A simulator and providers that talk to it."""

    def __init__(self, simulator: Simulator, clock: Clock) -> None:
        self.simulator = simulator
        self.clock = clock
        self.providers: list[SupabaseProvider] = []

    def provider(self, **changes: Any) -> SupabaseProvider:
        settings = SupabaseSettings(
            access_token=self.simulator.token,
            organization=self.simulator.organization,
            api_url=self.simulator.url,
            project_url_template=self.simulator.project_url_template,
            pooler_hosts=("127.0.0.1",),
            pooler_port=self.simulator.pooler_port,
        )
        provider = SupabaseProvider(replace(settings, **changes), clock=self.clock)
        self.providers.append(provider)
        return provider


@asynccontextmanager
async def staged(server_dsn: str, **settings: Any) -> AsyncIterator[Stage]:
    clock = Clock()
    chosen = SimulatorSettings(admin_dsn=server_dsn, clock=clock, **settings)
    async with running_simulator(chosen) as simulator:
        stage = Stage(simulator, clock)
        try:
            yield stage
        finally:
            for provider in stage.providers:
                await provider.aclose()


GRANTED = """
create table public.notes (id int primary key);
create table public.private (id int primary key);
grant select on public.notes to anon, service_role;
grant select on public.private to service_role;
"""


@pytest.mark.parametrize("sql", ["api", "postgres"])
async def test_a_project_is_created_used_checked_and_deleted(server_dsn: str, sql: str) -> None:
    async with staged(server_dsn, foreign_secret_key=True) as stage:
        provider = stage.provider(sql=sql)
        as_protocol: Provider = provider
        (diagnosis,) = await as_protocol.diagnose()
        assert diagnosis.is_ok
        assert diagnosis.detail.endswith("plan pro")
        assert await as_protocol.find(NAME) is None

        tenant = await provider.create(replace(REQUEST, region="eu-west-2"))
        found = await provider.find(NAME)
        assert found is not None
        assert (found.ref, found.region) == (tenant.ref, "eu-west-2")
        assert tenant.plan == "pro"

        observation = await provider.observe(tenant.ref)
        assert observation.state is TenantState.READY, observation.answer

        credentials = await provider.credentials(tenant.ref, PASSWORD, NoSteps())
        assert credentials.fields.keys() == {
            *("publishable_key", "secret_key", "anon_key", "service_role_key"),
            *("db_password", "dsn"),
        }
        async with provider.connect(tenant.ref, credentials) as connection:
            await connection.execute(GRANTED)
            assert await connection.fetch("select 1 as one") == [{"one": 1}]
            with pytest.raises(StatementError) as refused:
                await connection.fetch("select\n    nothing")
        assert refused.value.sqlstate == "42703"
        assert refused.value.position in {8, 12}

        await provider.check_services(tenant.ref, credentials)
        await provider.delete(tenant.ref)
        await provider.delete(tenant.ref)
        assert (await provider.observe(tenant.ref)).state is TenantState.GONE
        assert len(stage.simulator.ledger.find("create_project")) == 1


async def test_a_project_is_ready_only_once_its_services_are(server_dsn: str) -> None:
    async with staged(server_dsn, coming_up_seconds=60, services_lag_seconds=20) as stage:
        provider = stage.provider()
        tenant = await provider.create(REQUEST)
        first = await provider.observe(tenant.ref)
        with pytest.raises(Transient):
            await provider.credentials(tenant.ref, PASSWORD, NoSteps())
        with pytest.raises(Transient):
            await provider.delete(tenant.ref)
        stage.clock.now += 61
        second = await provider.observe(tenant.ref)
        stage.clock.now += 20
        third = await provider.observe(tenant.ref)

    assert (first.state, first.answer) == (TenantState.COMING_UP, "project COMING_UP")
    assert second.state is TenantState.COMING_UP
    assert "db ACTIVE_HEALTHY" in second.answer
    assert "rest UNHEALTHY" in second.answer
    assert third.state is TenantState.READY


@pytest.mark.parametrize(
    "fault",
    [
        Answer(504, after_effect=True),
        Answer(500, "<html>oops</html>", after_effect=True),
        Answer(200, "ok", after_effect=True),
        Truncated(),
        Drop(after_effect=True),
    ],
)
async def test_a_create_with_an_unknown_outcome_is_found_again_and_was_sent_once(
    server_dsn: str, fault: Any
) -> None:
    async with staged(server_dsn) as stage:
        provider = stage.provider()
        stage.simulator.faults.order(operation="create_project", fault=fault)
        with pytest.raises(OutcomeUnknown) as unclear:
            await provider.create(REQUEST)
        found = await provider.find(NAME)

        assert found is not None
        made = stage.simulator.projects.find_by_name(NAME)
        assert [project.ref for project in made] == [found.ref]
        assert PASSWORD not in str(unclear.value)


async def test_a_taken_name_needs_a_look_up_and_no_person(server_dsn: str) -> None:
    async with staged(server_dsn) as stage:
        provider = stage.provider()
        await provider.create(REQUEST)
        with pytest.raises(NameTaken):
            await provider.create(REQUEST)


async def test_the_limit_of_projects_is_a_quota_error(server_dsn: str) -> None:
    async with staged(server_dsn, max_projects=0, quota_status=400) as stage:
        with pytest.raises(QuotaExceeded):
            await stage.provider().create(REQUEST)


async def test_a_wrong_token_is_refused_with_its_fingerprint(server_dsn: str) -> None:
    async with staged(server_dsn) as stage:
        provider = stage.provider(access_token=TOKEN[:-1] + "f")
        with pytest.raises(CredentialRefused) as caught:
            await provider.find(NAME)

    assert caught.value.credential == provider.credential
    assert provider.credential.startswith("supabase:")
    assert TOKEN[:-1] not in str(caught.value)


@pytest.mark.parametrize("kinds", ["new", "legacy"])
async def test_either_kind_of_keys_is_enough(server_dsn: str, kinds: str) -> None:
    async with staged(server_dsn, key_kinds=kinds) as stage:
        provider = stage.provider()
        tenant = await provider.create(REQUEST)
        credentials = await provider.credentials(tenant.ref, PASSWORD, NoSteps())
        await provider.check_services(tenant.ref, credentials)

        names = {"publishable_key", "secret_key"}
        legacy = {"anon_key", "service_role_key"}
        assert credentials.fields.keys() - {"dsn", "db_password"} == (
            names if kinds == "new" else legacy
        )
        assert not stage.simulator.ledger.find("create_api_key")


async def test_a_create_after_its_deadline_is_not_sent(server_dsn: str) -> None:
    """Its process was frozen: its job may be another worker's by now."""
    async with staged(server_dsn) as stage:
        provider = stage.provider()
        with pytest.raises(LeaseLost):
            await provider.create(replace(REQUEST, must_leave_before=time.monotonic() - 0.001))
        assert stage.simulator.ledger.find("create_project") == []

        await provider.create(replace(REQUEST, must_leave_before=time.monotonic() + 30))
        assert len(stage.simulator.ledger.find("create_project")) == 1


async def test_missing_keys_are_created_once_and_only_after_the_grace_period(
    server_dsn: str,
) -> None:
    async with staged(server_dsn) as stage:
        provider = stage.provider()
        tenant = await provider.create(REQUEST)
        stage.simulator.projects.get(tenant.ref).keys.clear()
        with pytest.raises(Transient, match="publishable"):
            await provider.credentials(tenant.ref, PASSWORD, NoSteps())
        assert not stage.simulator.ledger.find("create_api_key")

        stage.clock.now += 31
        # The answer to the first create is lost: a look by name keeps it from being made twice.
        stage.simulator.faults.order(
            operation="create_api_key", fault=Answer(502, after_effect=True)
        )
        with pytest.raises(Transient):
            await provider.credentials(tenant.ref, PASSWORD, NoSteps())
        credentials = await provider.credentials(tenant.ref, PASSWORD, NoSteps())
        again = await provider.credentials(tenant.ref, PASSWORD, NoSteps())
        await provider.check_services(tenant.ref, credentials)

        assert again == credentials
        names = [key.name for key in stage.simulator.projects.get(tenant.ref).keys]
        assert names == ["pgworker_publishable", "pgworker_secret"]


async def test_a_key_of_our_name_that_stays_masked_is_not_created_again(server_dsn: str) -> None:
    async with staged(server_dsn, key_kinds="new") as stage:
        provider = stage.provider(key_grace=timedelta())
        tenant = await provider.create(REQUEST)
        masked = {"name": "pgworker_secret", "type": "secret", "api_key": "sb_secret_abc··"}
        stage.simulator.faults.order(operation="list_api_keys", fault=Answer(200, [masked]))
        with pytest.raises(Permanent, match="pgworker_secret"):
            await provider.credentials(tenant.ref, PASSWORD, NoSteps())

        assert "pgworker_secret" not in {
            key.name for key in stage.simulator.projects.get(tenant.ref).keys
        }


async def test_disabled_legacy_keys_are_not_used(server_dsn: str) -> None:
    async with staged(server_dsn, key_kinds="legacy") as stage:
        provider = stage.provider(key_grace=timedelta())
        tenant = await provider.create(REQUEST)
        stage.simulator.faults.order(
            operation="get_legacy_api_keys", fault=Answer(200, {"enabled": False})
        )
        credentials = await provider.credentials(tenant.ref, PASSWORD, NoSteps())

    assert credentials.fields.keys() - {"dsn", "db_password"} == {"publishable_key", "secret_key"}


async def test_a_token_that_may_not_reveal_keys_is_a_permanent_error(server_dsn: str) -> None:
    async with staged(server_dsn) as stage:
        provider = stage.provider()
        tenant = await provider.create(REQUEST)
        stage.simulator.faults.order(operation="list_api_keys", fault=Answer(403), times=None)
        with pytest.raises(Permanent, match="secrets:read"):
            await provider.credentials(tenant.ref, PASSWORD, NoSteps())


async def test_a_forbidden_pooler_host_fails_only_if_we_would_connect_to_it(
    server_dsn: str,
) -> None:
    async with staged(server_dsn) as stage:
        tenant = await stage.provider().create(REQUEST)
        strict = {"pooler_hosts": (".supabase.com",)}
        with pytest.raises(Permanent, match=r"127\.0\.0\.1"):
            await stage.provider(sql="postgres", **strict).credentials(
                tenant.ref, PASSWORD, NoSteps()
            )
        credentials = await stage.provider(sql="api", **strict).credentials(
            tenant.ref, PASSWORD, NoSteps()
        )

    assert "dsn" not in credentials.fields


async def test_a_pooler_without_the_project_is_a_transient_error(server_dsn: str) -> None:
    async with staged(server_dsn, pooler_lag_seconds=30) as stage:
        provider = stage.provider(sql="postgres")
        tenant = await provider.create(REQUEST)
        credentials = await provider.credentials(tenant.ref, PASSWORD, NoSteps())
        with pytest.raises(Transient, match="not found"):
            async with provider.connect(tenant.ref, credentials):
                pytest.fail("connected")


LAGS = Answer(404, {"code": "PGRST205", "message": "Could not find the table"})
NO_GRANT = Answer(403, {"code": "42501", "message": "permission denied for table notes"})
BAD_KEY = Answer(401, {"message": "Invalid API key"})
FULL = Answer(400, {"message": "Failed to run sql query: ERROR:  53200: out of memory"})
REFUSED = Answer(400, {"message": "Failed to run sql query: ERROR:  42501: permission denied"})


@pytest.mark.parametrize(
    ("operation", "fault", "kind", "words"),
    [
        ("read_table", LAGS, Transient, "schema cache may lag"),
        ("read_table", Answer(503), Transient, "schema cache may lag"),
        ("read_table", Drop(), Transient, "no answer"),
        ("read_table", NO_GRANT, SmokeCheckFailed, "grant select … to service_role"),
        ("read_table", BAD_KEY, Transient, "may not know a new key yet"),
        ("auth_health", Answer(503), Transient, "auth"),
        ("run_query", Answer(544), Transient, "544"),
        ("run_query", FULL, Transient, r"can't be listed: out of memory \[53200\]"),
        ("run_query", REFUSED, SmokeCheckFailed, r"can't be listed: permission denied \[42501\]"),
    ],
)
async def test_a_service_that_answers_wrongly_is_named(
    server_dsn: str, operation: str, fault: Any, kind: type[JobError], words: str
) -> None:
    async with staged(server_dsn) as stage:
        provider = stage.provider()
        tenant = await provider.create(REQUEST)
        credentials = await provider.credentials(tenant.ref, PASSWORD, NoSteps())
        async with provider.connect(tenant.ref, credentials) as connection:
            await connection.execute(GRANTED)
        stage.simulator.faults.order(operation=operation, fault=fault)
        with pytest.raises(kind, match=words) as caught:
            await provider.check_services(tenant.ref, credentials)

    assert credentials.fields["secret_key"] not in str(caught.value)


async def test_a_table_that_anon_reads_without_a_grant_fails_the_check(server_dsn: str) -> None:
    only_private = "create table public.private (id int primary key);"
    leaks = Answer(200, [{"id": 1}])

    async with staged(server_dsn) as stage:
        provider = stage.provider()
        tenant = await provider.create(REQUEST)
        credentials = await provider.credentials(tenant.ref, PASSWORD, NoSteps())
        async with provider.connect(tenant.ref, credentials) as connection:
            await connection.execute(only_private)
        await provider.check_services(tenant.ref, credentials)
        stage.simulator.faults.order(operation="read_table", fault=leaks)
        with pytest.raises(SmokeCheckFailed, match=r"public\.private"):
            await provider.check_services(tenant.ref, credentials)


async def test_the_access_token_never_reaches_a_projects_host() -> None:
    seen: list[httpx.Request] = []

    def reply(request: httpx.Request) -> httpx.Response:
        if request.url.host == "api.test":
            return httpx.Response(201, json=[])
        seen.append(request)
        return httpx.Response(200, json={})

    keys = {"publishable_key": "sb_publishable_a", "secret_key": "sb_secret_b"}
    await provider_answering(reply).check_services(REF, Credentials(keys))

    assert [request.url.host for request in seen] == [f"{REF}.supabase.co"] * 2
    assert [request.headers["apikey"] for request in seen] == ["sb_secret_b", "sb_publishable_a"]
    assert all("authorization" not in request.headers for request in seen)
