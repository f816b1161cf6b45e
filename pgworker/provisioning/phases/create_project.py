"""The phase `create_project`."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from pgworker.errors import LeaseLost, Permanent
from pgworker.models import ClientStatus, Done, Outcome, Snooze
from pgworker.providers.base import Tenant, TenantRequest
from pgworker.provisioning.ledger import Intent
from pgworker.provisioning.phases.base import PhaseContext
from pgworker.tenants.steps import Step

MAX_CREATES = 3
# A project can't have been created for a client that signed up later; clocks differ.
OLDER_THAN_ITS_CLIENT = timedelta(hours=1)


class CreateProject:
    """Give the client a tenant: adopt the one an earlier try made, or create it.

    Safe to repeat from any line, also with a provider whose create takes no idempotency key:
    safety comes from the intent, the deterministic name and the look-up before each create.
    """

    name = "create_project"
    client_status = ClientStatus.CREATING_PROJECT
    may_cost_money = True

    async def run(self, ctx: PhaseContext) -> Outcome:
        """Return `Done` once the tenant's ref is committed.

        Raises:
            JobError: of any kind; `OutcomeUnknown` when the create may have happened.
            LeaseLost: another worker holds the job now.
        """
        intent = await ctx.ledger.commit(
            ctx.job,
            provider=ctx.provider.name,
            name=ctx.provider.tenant_name(ctx.client.id),
            region=_read_wish(ctx, "region"),
            plan=_read_wish(ctx, "plan"),
        )
        if intent.ref is not None:
            # An earlier attempt recorded it, with everything that the client shows of it. If it is
            # gone, await_project says so: a recorded tenant is never silently replaced.
            await ctx.steps.confirm(Step.CREATE_PROJECT, [intent.name])
            return Done()
        # Before each create, not only after one without an answer: the worker may have died before
        # it could record that there was none.
        tenant = await ctx.provider.find(intent.name)
        if tenant is not None:
            _refuse_foreign(ctx, tenant)
            await ctx.steps.confirm(Step.CREATE_PROJECT, [intent.name])
            ctx.log.info("project_found", project_ref=tenant.ref)
        else:
            wait = _wait_before_create(intent, ctx)
            if wait is not None:
                return wait
            tenant = await self._create(ctx, intent)
        try:
            await ctx.ledger.record_ref(
                ctx.job,
                tenant,
                provisioning=_describe_tenant(ctx, tenant),
                done=ctx.steps.drain_completed(),
            )
        except LeaseLost:
            # The worker that holds the job now finds the project by its name.
            ctx.log.warning("project_left_unrecorded", project_ref=tenant.ref)
            raise
        ctx.log.info("project_recorded", project_ref=tenant.ref)
        return Done()

    async def _create(self, ctx: PhaseContext, intent: Intent) -> Tenant:
        assert intent.password is not None, "commit has stored one, if there was none"
        # The lease outlasts the request: another worker that claimed the job meanwhile would
        # create a second tenant. A crash between here and `record_ref` leaves a tenant of which
        # only the intent is recorded: the next attempt finds it by the name committed first.
        async with ctx.steps.record(
            Step.CREATE_PROJECT, intent.name, time_limit=ctx.provider.create_timeout
        ) as must_leave_before:
            return await ctx.provider.create(
                TenantRequest(
                    client_id=ctx.client.id,
                    name=intent.name,
                    database_password=intent.password,
                    region=intent.region,
                    plan=intent.plan,
                    must_leave_before=must_leave_before,
                )
            )


def _refuse_foreign(ctx: PhaseContext, tenant: Tenant) -> None:
    """Refuse to adopt a tenant that can't be this client's.

    Raises:
        Permanent: it is older than the client.
    """
    created_at, wanted_at = tenant.created_at, ctx.client.created_at
    if created_at is None or wanted_at is None:
        return
    if created_at < wanted_at - OLDER_THAN_ITS_CLIENT:
        raise Permanent(
            f"project {tenant.ref} is called {tenant.name} but was created on "
            f"{created_at:%Y-%m-%d}, before its client (on {wanted_at:%Y-%m-%d}): it isn't this "
            "client's; rename or delete it, then retry"
        )


def _wait_before_create(intent: Intent, ctx: PhaseContext) -> Snooze | None:
    """Return how to wait while an earlier create may still show up; None when one may be sent.

    Raises:
        Permanent: enough were sent, and none has shown up.
    """
    since = intent.since_create
    if since is None or ctx.provider.lookup_is_final:
        return None
    remaining = ctx.settings.create_lookup - since
    if remaining > timedelta(0):
        # Growing intervals, with the last look after the window has closed.
        delay = min(max(since / 2, ctx.settings.project_poll / 5), remaining)
        return Snooze(
            delay, reason="the provider's listing to show a project that may have been created"
        )
    if intent.creates >= MAX_CREATES:
        raise Permanent(
            f"{intent.creates} creates of {intent.name} ended without an answer and none shows "
            "up: look at the provider's dashboard, then retry"
        )
    return None


def _describe_tenant(ctx: PhaseContext, tenant: Tenant) -> dict[str, str]:
    """Return what the client shows under `additional_settings.provisioning`."""
    got = {
        "provider": ctx.provider.name,
        "region": tenant.region,
        "plan": tenant.plan,
        "organization": tenant.organization,
        # If the provider doesn't say: now, or by an earlier attempt a short time ago.
        "created_at": (tenant.created_at or datetime.now(UTC)).isoformat(),
    }
    return {key: value for key, value in got.items() if value is not None}


def _read_wish(ctx: PhaseContext, key: str) -> str | None:
    """Return what the client asks for in `additional_settings`.

    Raises:
        Permanent: it isn't text.
    """
    wish = ctx.client.settings.get(key)
    if wish is None or (isinstance(wish, str) and wish):
        return wish
    raise Permanent(f"additional_settings.{key} must be text, it is {type(wish).__name__}")
