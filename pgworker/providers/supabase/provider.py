"""Tenants as Supabase projects.

Contract: Supabase Management API v1. Its create takes no idempotency key, so safety is up to the
caller: it commits an intent first, looks up by name, and creates once.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Final
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
from pgworker.providers.rate_limits import LocalLimiter
from pgworker.providers.supabase import endpoints, services
from pgworker.providers.supabase.api import (
    LIMITS,
    USER_AGENT,
    ManagementApi,
    checked_ref,
)
from pgworker.providers.supabase.catalog import build_create_body
from pgworker.providers.supabase.connection import ManagementConnection
from pgworker.providers.supabase.errors import NotFound
from pgworker.providers.supabase.keys import build_dsn
from pgworker.providers.supabase.models import read_time
from pgworker.providers.supabase.project_keys import ProjectKeys
from pgworker.providers.supabase.services import (
    SUPABASE_QUERIES,
    ProjectServices,
    plan_reads,
)
from pgworker.providers.supabase.settings import SupabaseSettings, read_supabase_settings
from pgworker.providers.supabase.states import (
    KNOWN_STATUSES,
    SERVICES,
    has_name,
    is_being_deleted,
    judge_project,
    judge_services,
    project_name,
    read_ref,
    read_remote_tenant,
)
from pgworker.telemetry import get_logger
from pgworker.tenants.connection import as_job_errors
from pgworker.tenants.postgres_connection import connect_postgres

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from pgworker.providers.base import ProviderContext
    from pgworker.providers.rate_limits import Limiter
    from pgworker.providers.supabase.models import Organization
    from pgworker.tenants.connection import TenantConnection
    from pgworker.tenants.steps import Steps

# Below that of the doctor, which doesn't know the URL.
DIAGNOSE_TIMEOUT: Final = timedelta(seconds=15)

log = get_logger()


class SupabaseProvider:
    """The `supabase` provider: a project for each tenant.

    Its only state is HTTP connections and facts that are cheap to read again; any number of jobs
    may use it at once.
    """

    name = "supabase"
    # Whether the API's listings lag, and for how long, isn't documented.
    lookup_is_final = False
    # A service may look healthy for a moment while it starts.
    ready_checks = 2
    required_secrets = (
        ("db_password",),
        ("publishable_key", "anon_key"),
        ("secret_key", "service_role_key"),
    )

    def __init__(
        self,
        settings: SupabaseSettings,
        *,
        limiter: Limiter | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Open no connection yet.

        Args:
            settings: plain values.
            limiter: grants requests; None doesn't consider other processes.
            transport: replaces the network, in tests.
            clock: seconds, monotonic.
        """
        self._settings = settings
        self._api = ManagementApi(
            settings.api_url,
            settings.access_token,
            limiter=limiter or LocalLimiter(clock),
            transport=transport,
        )
        self._keys = ProjectKeys(self._api, grace=settings.key_grace, clock=clock)
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
        self._unknown_statuses: set[str] = set()

    @property
    def create_timeout(self) -> timedelta:
        """How long the request of a create may take: the API client enforces it."""
        return endpoints.CREATE_PROJECT.time_limit

    async def aclose(self) -> None:
        """Close the HTTP connections."""
        await self._client.aclose()
        await self._api.aclose()

    def tenant_name(self, client_id: UUID) -> str:
        """Return the name of the client's project."""
        return project_name(client_id)

    async def check_credential(self) -> None:
        """Use the token once, for a request that changes nothing.

        Raises:
            CredentialRefused: the API refuses it.
            JobError: no answer that says whether it does.
        """
        try:
            await self._read_organization()
        except (Permanent, QuotaExceeded) as error:
            # To give this answer, the API must have accepted the token.
            log.debug("credential_accepted_despite_error", error=str(error))

    async def diagnose(self) -> tuple[Diagnosis, ...]:
        """Read the organisation, which checks token and slug."""
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
            Transient: the listing changed during the look-up, or the project is being deleted.
            Permanent: two projects have the name.
        """
        listed = await self._api.list_all_projects(self._settings.organization, search=name)
        matches = [project for project in listed if has_name(project, name)]
        # Not in `create`, whose time limit covers one request.
        plan = await self._read_plan()
        if not matches:
            return None
        if any(is_being_deleted(project) for project in matches):
            raise Transient(f"a project called {name!r} is being deleted")
        if len(matches) > 1:
            refs = ", ".join(sorted(project.ref[:40] for project in matches))
            raise Permanent(
                f"{len(matches)} projects are called {name!r} ({refs}): "
                "delete or rename all but the right one, then retry"
            )
        project = matches[0]
        ref = read_ref(project)
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
        """Return the projects with names of ours, without branches and removed ones.

        Raises:
            Transient: the listing changed while it was read, or can't be read.
        """
        # Without a search: it isn't documented what that matches, beyond a whole name.
        listed = await self._api.list_all_projects(self._settings.organization)
        tenants = (read_remote_tenant(project) for project in listed)
        return tuple(tenant for tenant in tenants if tenant is not None)

    async def create(self, request: TenantRequest) -> Tenant:
        """Create the project: one POST, never repeated here.

        Raises:
            NameTaken: a project of that name exists; look it up and adopt it.
            OutcomeUnknown: it may have been created.
            Permanent: the request can't be made (nothing was sent), or was refused.
        """
        body = build_create_body(request, self._settings)
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

    async def _read_plan(self) -> str | None:
        """Return the organisation's plan. It is only recorded: an error doesn't fail the job."""
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

        404 is `GONE` here: only the caller knows whether the project is too new to be visible. The
        caller also asks for `READY` twice in a row, and limits the time.
        """
        try:
            project = await self._api.get_project(ref)
        except NotFound:
            return Observation(TenantState.GONE, "project not found (404)")
        self._log_unknown(project.status)
        observation = judge_project(project.status)
        return observation or await self._observe_services(ref)

    async def _observe_services(self, ref: str) -> Observation:
        try:
            health = await self._api.get_health(ref, SERVICES)
        except Permanent as error:
            # 4xx from a project that has only just come up; the caller's time limit ends it.
            return Observation(TenantState.COMING_UP, f"services: {error}")
        return judge_services(health)

    def _log_unknown(self, status: str) -> None:
        if status not in KNOWN_STATUSES | self._unknown_statuses:
            self._unknown_statuses.add(status)
            log.warning("unknown_project_status_seen", status=status[:40])

    # -- credentials --------------------------------------------------------------------------

    async def credentials(self, ref: str, database_password: str, steps: Steps) -> Credentials:
        """Fetch the keys, create those that don't come by themselves, and build the DSN.

        Safe to repeat: a key is created only after a look-up of its name. With `sql='api'` a DSN
        that can't be built is left out, because pgworker doesn't need it.

        Raises:
            Transient: the keys or the pooler don't exist yet.
            Permanent: the token may not reveal keys, or the pooler's host isn't allowed.
        """
        fields = await self._keys.fetch(ref, steps) | {"db_password": database_password}
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

    # -- use ----------------------------------------------------------------------------------

    @asynccontextmanager
    async def connect(self, ref: str, credentials: Credentials) -> AsyncIterator[TenantConnection]:
        """Open a connection for SQL: over the API's `database/query`, or the session pooler.

        Raises:
            Transient: the pooler doesn't know the project yet.
            Permanent: the pooler is needed and no DSN is stored.
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

        What the keys can read is compared with the GRANTs.

        Raises:
            SmokeCheckFailed: an answer is wrong and waiting won't change it.
            Transient: a service doesn't answer yet.
        """
        project = ProjectServices.from_credentials(self._url(ref), credentials.fields, self._client)
        what = "data api: the tables of schema public can't be listed"
        with as_job_errors(what, lasting=SmokeCheckFailed):
            async with self.connect(ref, credentials) as connection:
                tables = await connection.fetch(SUPABASE_QUERIES.readable_tables)
        await project.check(plan_reads(tables))

    async def set_password(self, ref: str, database_password: str) -> None:
        """Give the database this password (contract: PATCH …/database/password)."""
        await self._api.set_password(ref, database_password)

    async def delete(self, ref: str) -> None:
        """Delete the project for good; no error when it doesn't exist.

        Raises:
            Transient: it is still starting, which the API doesn't interrupt.
        """
        try:
            await self._api.delete_project(ref)
        except NotFound:
            log.info("project_already_deleted", project_ref=ref)

    def _url(self, ref: str) -> str:
        return self._settings.project_url_template.replace("{ref}", checked_ref(ref))


def create_supabase_provider(context: ProviderContext) -> SupabaseProvider:
    """Create the provider from the settings of the process.

    Raises:
        BadConfiguration: a setting is missing or can't be used; names its variable.
    """
    return SupabaseProvider(read_supabase_settings(context.settings), limiter=context.limiter)
