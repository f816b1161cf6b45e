"""Tenants as Supabase projects.

Contract: Supabase Management API v1. Creating a project takes no idempotency key, so safety lies
with the caller: it commits an intent first, looks up by name, and creates once.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import httpx

from pgworker.errors import (
    JobError,
    OutcomeUnknown,
    Permanent,
    QuotaExceeded,
    SmokeCheckFailed,
    Transient,
)
from pgworker.providers.base import (
    Credentials,
    Diagnosis,
    Observation,
    RemoteTenant,
    Tenant,
    TenantRequest,
    TenantState,
)
from pgworker.providers.rate_limits import OwnLimits
from pgworker.providers.supabase import endpoints, services
from pgworker.providers.supabase.api import (
    LIMITS,
    USER_AGENT,
    ManagementApi,
    checked_ref,
)
from pgworker.providers.supabase.catalog import instance_size, select_region
from pgworker.providers.supabase.connection import ManagementConnection
from pgworker.providers.supabase.errors import NotFound
from pgworker.providers.supabase.keys import CREATED_NAMES, build_dsn, choose_keys
from pgworker.providers.supabase.models import read_time
from pgworker.providers.supabase.services import (
    SUPABASE_QUERIES,
    ProjectServices,
    plan_reads,
)
from pgworker.providers.supabase.settings import SupabaseSettings, read_supabase_settings
from pgworker.providers.supabase.states import (
    KNOWN_STATUSES,
    SERVICES,
    is_called,
    is_leaving,
    judge_project,
    judge_services,
    listed_ref,
    project_name,
    read_remote_tenant,
)
from pgworker.telemetry import get_logger
from pgworker.tenants.connection import as_job_errors
from pgworker.tenants.postgres_connection import connect_postgres
from pgworker.tenants.steps import Step

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable

    from pgworker.providers.base import ProviderContext
    from pgworker.providers.rate_limits import Limiter
    from pgworker.providers.supabase.models import ApiKey, ListedProject, Organization
    from pgworker.tenants.connection import TenantConnection
    from pgworker.tenants.steps import Steps

# Below that of the doctor, which doesn't know the URL.
DIAGNOSE_TIMEOUT: Final = timedelta(seconds=15)

_LONGEST_NAME: Final = 256

log = get_logger()


class SupabaseProvider:
    """The `supabase` provider: a project per tenant.

    Keeps nothing but its HTTP connections and what is cheap to learn again; any number of jobs may
    use it at once.
    """

    name = "supabase"
    # How long the API's listings lag, and whether they do, isn't documented.
    lookup_is_final = False
    # A service may look healthy for a moment while it starts.
    ready_checks = 2
    may_cost_money = True
    required_secrets = (
        ("db_password",),
        ("publishable_key", "anon_key"),
        ("secret_key", "service_role_key"),
    )

    def __init__(
        self,
        settings: SupabaseSettings,
        *,
        limits: Limiter | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Open no connection yet.

        Args:
            settings: plain values.
            limits: who may send the next request; None reckons with no other process.
            transport: stands in for the network, in tests.
            clock: seconds, monotonic.
        """
        self._settings = settings
        self._clock = clock
        self._api = ManagementApi(
            settings.api_url,
            settings.access_token,
            limits=limits or OwnLimits(clock),
            transport=transport,
        )
        self.credential = self._api.credential
        # Apart from the API's client: the access token must not reach a project's host.
        self._client = httpx.AsyncClient(
            headers={"User-Agent": USER_AGENT},
            timeout=httpx.Timeout(
                services.ANSWER_TIMEOUT.total_seconds(),
                connect=endpoints.CONNECT_TIMEOUT.total_seconds(),
            ),
            limits=LIMITS,
            transport=transport,
            follow_redirects=False,
        )
        self._organization_plan: str | None = None
        self._is_plan_read = False
        self._keys_missed_at: dict[str, float] = {}
        self._strange_statuses: set[str] = set()

    @property
    def create_timeout(self) -> timedelta:
        """How long the request of a create may take: the client stops waiting after that."""
        return endpoints.CREATE_PROJECT.time_limit

    async def aclose(self) -> None:
        """Close the HTTP connections."""
        await self._client.aclose()
        await self._api.aclose()

    def tenant_name(self, client_id: UUID) -> str:
        """Return what the client's project is called."""
        return project_name(client_id)

    async def check_credential(self) -> None:
        """Use the token once, for a request that changes nothing.

        Raises:
            CredentialRefused: the API doesn't take it.
            JobError: no answer that says so, or the contrary.
        """
        try:
            await self._read_organization()
        except (Permanent, QuotaExceeded) as error:
            # Whatever is wrong, the API knows whom it tells so.
            log.debug("credential_accepted_despite_error", error=str(error))

    async def diagnose(self) -> tuple[Diagnosis, ...]:
        """Read the organisation, which proves that token and slug are good."""
        try:
            async with asyncio.timeout(DIAGNOSE_TIMEOUT.total_seconds()):
                organization = await self._read_organization()
        except TimeoutError:
            detail = f"{self._settings.api_url} did not answer in time"
            advice = "check the network and SUPABASE_API_URL"
            return (Diagnosis(is_ok=False, detail=detail, advice=advice),)
        except JobError as error:
            advice = "check SUPABASE_ACCESS_TOKEN and SUPABASE_ORG_ID"
            return (Diagnosis(is_ok=False, detail=str(error), advice=advice),)
        plan = organization.plan or "unknown"
        return (Diagnosis(is_ok=True, detail=f"organisation {organization.name}, plan {plan}"),)

    async def _read_organization(self) -> Organization:
        return await self._api.get_organization(self._settings.organization)

    # -- find and create ----------------------------------------------------------------------

    async def find(self, name: str) -> Tenant | None:
        """Return our project of exactly that name, or None after a complete look-up without it.

        The API may list a new project late: None soon after an unclear create proves nothing.

        Raises:
            Transient: the listing changed under the look-up, or the project is being deleted.
            Permanent: two projects have the name.
        """
        matches = [project for project in await self._listed(name) if is_called(project, name)]
        # Here and not in `create`, whose time-out the caller's intent reckons with.
        plan = await self._plan()
        if not matches:
            return None
        if any(is_leaving(project) for project in matches):
            raise Transient(f"a project called {name!r} is being deleted")
        if len(matches) > 1:
            refs = ", ".join(sorted(project.ref[:40] for project in matches))
            raise Permanent(
                f"{len(matches)} projects are called {name!r} ({refs}): "
                "delete or rename all but the right one, then retry"
            )
        project = matches[0]
        ref = listed_ref(project)
        return Tenant(
            ref=ref,
            url=self._url(ref),
            name=project.name,
            region=project.region,
            plan=project.instance_size or plan,
            organization=self._settings.organization,
            created_at=read_time(project.inserted_at),
        )

    async def list_tenants(self) -> tuple[RemoteTenant, ...]:
        """Return the projects of our names, branches and removed ones left out.

        Raises:
            Transient: the listing changed under the look-up, or can't be read.
        """
        # Without a search: what that matches, beyond a whole name, isn't documented.
        listed = await self._listed()
        tenants = (read_remote_tenant(project) for project in listed)
        return tuple(tenant for tenant in tenants if tenant is not None)

    async def _listed(self, search: str | None = None) -> list[ListedProject]:
        """Walk all pages. Offsets shift under concurrent creates, which a changed count betrays."""
        organization = self._settings.organization
        by_ref: dict[str, ListedProject] = {}
        offset, count = 0, None
        while count is None or offset < count:
            page = await self._api.list_projects(organization, search=search, offset=offset)
            if count is not None and page.pagination.count != count:
                what = "it was read" if search is None else f"{search!r} was looked up"
                raise Transient(f"the list of projects changed while {what}")
            count = page.pagination.count
            if not page.projects:
                break
            offset += len(page.projects)
            by_ref |= {item.ref: item for item in page.projects}
        return list(by_ref.values())

    async def create(self, request: TenantRequest) -> Tenant:
        """Create the project: one POST, never repeated here.

        Raises:
            NameTaken: there is one of that name; look it up and adopt it.
            OutcomeUnknown: it may have been created.
            Permanent: the request can't be made (nothing was sent), or was refused.
        """
        body = self._create_body(request)
        project = await self._api.create_project(body, must_leave_before=request.must_leave_before)
        if project.name != request.name:
            raise OutcomeUnknown(
                f"creating {request.name!r} was answered with the project {project.ref} "
                "of another name"
            )
        return Tenant(
            ref=project.ref,
            url=self._url(project.ref),
            name=project.name,
            region=project.region,
            plan=body.get("desired_instance_size") or self._organization_plan,
            organization=project.organization_slug,
            created_at=read_time(project.created_at),
        )

    def _create_body(self, request: TenantRequest) -> dict[str, Any]:
        if len(request.name) > _LONGEST_NAME or "." in request.name or not request.name:
            raise Permanent(
                f"{request.name[:40]!r} can't name a project: 1 to 256 characters, no dots"
            )
        body: dict[str, Any] = {
            "name": request.name,
            "organization_slug": self._settings.organization,
            "db_pass": request.database_password,
            "region_selection": select_region(request.region or self._settings.default_region),
        }
        size = instance_size(request.plan or self._settings.default_plan)
        if size is not None:
            body["desired_instance_size"] = size
        return body

    async def _plan(self) -> str | None:
        """Return the organisation's plan, for the record only: a failure isn't worth a job's."""
        if not self._is_plan_read:
            try:
                self._organization_plan = (await self._read_organization()).plan
                self._is_plan_read = True
            except JobError as error:
                log.debug("organization_plan_not_read", error=str(error))
        return self._organization_plan

    # -- observe ------------------------------------------------------------------------------

    async def observe(self, ref: str) -> Observation:
        """Look once whether the project and the services we need are up.

        404 is `GONE` here: only the caller knows that a new project may not be visible yet. It also
        asks for `READY` twice in a row, and limits the time.
        """
        try:
            project = await self._api.get_project(ref)
        except NotFound:
            return Observation(TenantState.GONE, "project not found (404)")
        self._note(project.status)
        observation = judge_project(project.status)
        return observation or await self._observe_services(ref)

    async def _observe_services(self, ref: str) -> Observation:
        try:
            health = await self._api.get_health(ref, SERVICES)
        except Permanent as error:
            # 4xx from a project that has only just come up; the caller's time limit ends it.
            return Observation(TenantState.COMING_UP, f"services: {error}")
        return judge_services(health)

    def _note(self, status: str) -> None:
        if status not in KNOWN_STATUSES | self._strange_statuses:
            self._strange_statuses.add(status)
            log.warning("unknown_project_status_seen", status=status[:40])

    # -- credentials --------------------------------------------------------------------------

    async def credentials(self, ref: str, database_password: str, steps: Steps) -> Credentials:
        """Fetch the keys, create those that are missing for good, and build the DSN.

        Safe to repeat: a key is created only after a look for its name. With `sql='api'` a DSN that
        can't be had is left out, since nothing of ours needs it.

        Raises:
            Transient: the keys or the pooler aren't there yet.
            Permanent: the token may not reveal keys, or the pooler's host isn't allowed.
        """
        fields = await self._keys(ref, steps) | {"db_password": database_password}
        try:
            poolers = await self._api.list_poolers(ref)
            fields["dsn"] = build_dsn(
                poolers,
                ref=ref,
                password=database_password,
                port=self._settings.pooler_port,
                allowed_hosts=self._settings.pooler_hosts,
            )
        except Permanent as error:
            if self._settings.sql == "postgres":
                raise
            log.warning("dsn_skipped", project_ref=ref, error=str(error))
        return Credentials(fields)

    async def _keys(self, ref: str, steps: Steps) -> dict[str, str]:
        listed = await self._api.list_api_keys(ref)
        await steps.confirm(Step.CREATE_API_KEY, [key.name for key in listed])
        chosen = choose_keys(listed)
        if chosen.rests_on_legacy and not await self._api.are_legacy_keys_enabled(ref):
            listed = [key for key in listed if key.type not in {None, "legacy"}]
            chosen = choose_keys(listed)
        if not chosen.missing:
            self._keys_missed_at.pop(ref, None)
            return chosen.fields
        missed_at = self._keys_missed_at.setdefault(ref, self._clock())
        if self._clock() - missed_at < self._settings.key_grace.total_seconds():
            # They come by themselves, as a rule, soon after the project is up.
            raise Transient(_lacking(ref, chosen.missing))
        created = [await self._create_key(ref, kind, listed, steps) for kind in chosen.missing]
        chosen = choose_keys([*listed, *created])
        if chosen.missing:
            raise Transient(_lacking(ref, chosen.missing))
        self._keys_missed_at.pop(ref, None)
        return chosen.fields

    async def _create_key(
        self, ref: str, kind: str, listed: Iterable[ApiKey], steps: Steps
    ) -> ApiKey:
        name = CREATED_NAMES[kind]
        if any(key.name == name for key in listed):
            raise Permanent(
                f"the key {name!r} of project {ref} comes masked or without its role: "
                "the token may lack the permission to reveal keys"
            )
        body: dict[str, Any] = {"type": kind, "name": name}
        if kind == "secret":
            body["secret_jwt_template"] = {"role": "service_role"}
        async with steps.record(
            Step.CREATE_API_KEY, name, time_limit=endpoints.CREATE_API_KEY.time_limit
        ) as must_leave_before:
            key = await self._api.create_api_key(ref, body, must_leave_before=must_leave_before)
        log.info("api_key_created", project_ref=ref, name=name)
        return key

    # -- use ----------------------------------------------------------------------------------

    @asynccontextmanager
    async def connect(self, ref: str, credentials: Credentials) -> AsyncIterator[TenantConnection]:
        """Open the way that SQL takes: the API's `database/query`, or the session pooler.

        Raises:
            Transient: the pooler doesn't know the project yet.
            Permanent: the way is PostgreSQL and no DSN is stored.
        """
        if self._settings.sql == "api":
            yield ManagementConnection(self._api, checked_ref(ref))
            return
        dsn = credentials.fields.get("dsn")
        if dsn is None:
            raise Permanent(
                f"no DSN is stored for project {ref}: retry the phase await_project, "
                "or set PGWORKER_SUPABASE_SQL=api"
            )
        async with connect_postgres(dsn) as connection:
            yield connection

    async def check_services(self, ref: str, credentials: Credentials) -> None:
        """Read through the Data API with both keys, and ask the auth service.

        What the keys may read is compared with what the GRANTs say.

        Raises:
            SmokeCheckFailed: an answer is wrong and waiting won't change it.
            Transient: a service doesn't answer yet.
        """
        project = ProjectServices.of(self._url(ref), credentials.fields, self._client)
        what = "data api: the tables of schema public can't be listed"
        with as_job_errors(what, lasting=SmokeCheckFailed):
            async with self.connect(ref, credentials) as connection:
                tables = await connection.fetch(SUPABASE_QUERIES.readable_tables)
        await project.check(plan_reads(tables))

    async def set_password(self, ref: str, database_password: str) -> None:
        """Give the database this password (contract: PATCH …/database/password)."""
        await self._api.set_password(ref, database_password)

    async def delete(self, ref: str) -> None:
        """Delete the project for good; fine when it is gone already.

        Raises:
            Transient: it is still starting, which the API doesn't interrupt.
        """
        try:
            await self._api.delete_project(ref)
        except NotFound:
            log.info("project_was_gone", project_ref=ref)

    def _url(self, ref: str) -> str:
        return self._settings.project_url_template.replace("{ref}", checked_ref(ref))


def create_supabase_provider(context: ProviderContext) -> SupabaseProvider:
    """Create the provider from the settings of the process.

    Raises:
        BadConfiguration: a setting is missing or can't be used; names its variable.
    """
    return SupabaseProvider(read_supabase_settings(context.settings), limits=context.limits)


def _lacking(ref: str, kinds: Iterable[str]) -> str:
    return f"project {ref} has no usable {' and no '.join(kinds)} key yet"
