"""The phase `await_project`."""

from __future__ import annotations

import random
from datetime import timedelta

from pgworker.errors import OutcomeUnknown, PasswordRefused, Permanent, Transient
from pgworker.models import ClientStatus, Done, Outcome, Snooze
from pgworker.providers.base import Credentials, TenantState
from pgworker.provisioning.phases.base import PhaseContext
from pgworker.tenants.at_once import at_once
from pgworker.tenants.connection import StatementError
from pgworker.tenants.steps import Step

# A project that looks ready is looked at again so many times sooner.
CONFIRM_SOONER = 5
# How much of the time between two looks may count against the provider, as a multiple of
# PGWORKER_PROJECT_POLL_SECONDS.
LONGEST_GAP = 2

# The provider may not show a ref everywhere that it has just returned.
NOT_VISIBLE_YET = timedelta(minutes=2)


class AwaitProject:
    """Wait until the tenant is up, store its keys, and prove it by a query.

    Each look is one run of the phase: between two of them the job sleeps, without a slot or a
    connection. Ready means that a real connection answered, not that the provider says so.
    """

    name = "await_project"
    client_status = ClientStatus.WAITING_FOR_PROJECT

    async def run(self, ctx: PhaseContext) -> Outcome:
        """Return `Done` once the keys are stored and a query was answered.

        Raises:
            Permanent: it is gone, broken, or not up within the time limit.
        """
        seen = await ctx.provider.observe(ctx.ref)
        ctx.log.info("project_observed", state=str(seen.state), answer=seen.answer)
        match seen.state:
            case TenantState.BROKEN:
                raise Permanent(
                    f"project {ctx.ref} will not come up by itself ({seen.answer}): "
                    "look at the provider's dashboard, then retry"
                )
            case TenantState.GONE:
                _refuse_deleted(ctx, seen.answer)
                return _wait_for_project(ctx, seen.answer, was_visible=False)
            case TenantState.COMING_UP:
                return _wait_for_project(ctx, seen.answer)
            case TenantState.READY:
                looks = int(ctx.job.checkpoint.get("ready_checks", 0)) + 1
                if looks < ctx.provider.ready_checks:
                    return _look_again(ctx, seen.answer, looks=looks)
                return await self._prove(ctx, seen.answer, looks=looks)

    async def _prove(self, ctx: PhaseContext, answer: str, *, looks: int) -> Outcome:
        """Give the tenant its password if it lacks it, store its credentials, and log in.

        An error here is a wait, not an attempt: keys, pooler and password lag behind the
        provider's word that the project is healthy (docs/phases.md, "When a failed look is a
        wait"). `_wait_for_proof` bounds it.
        """
        intent = await ctx.ledger.find_intent(ctx.client.id)
        assert intent is not None, "create_project comes first"
        password = intent.password or await ctx.ledger.replace_password(ctx.job)
        tenant_has_it = intent.password_went_with_create or intent.password_was_set
        try:
            if not tenant_has_it:
                await self._set_password(ctx, password)
            await _store_credentials(ctx, password)
        except (Transient, OutcomeUnknown, StatementError) as error:
            return _wait_for_proof(ctx, f"{answer}; {error}", looks=looks)
        except PasswordRefused as error:
            if tenant_has_it and not intent.password_was_set:
                await self._set_password(ctx, password)
            # A pooler accepts a new password with some delay, and bans a client that tries too
            # often: so not sooner, as after a look that found it ready.
            return _wait_for_proof(ctx, f"{answer}; {error}", looks=0)
        return Done(checkpoint={"last_answer": answer, "was_visible": True})

    async def _set_password(self, ctx: PhaseContext, password: str) -> None:
        async with ctx.steps.record(Step.SET_PASSWORD, ctx.ref):
            await ctx.provider.set_password(ctx.ref, password)
        ctx.log.info("password_set", project_ref=ctx.ref)


async def _store_credentials(ctx: PhaseContext, password: str) -> None:
    """Store the tenant's credentials, and use them once."""
    credentials = await ctx.provider.credentials(ctx.ref, password, ctx.steps)
    await at_once(ctx.ledger.store_secrets(ctx.job, credentials.fields), _log_in(ctx, credentials))


async def _log_in(ctx: PhaseContext, credentials: Credentials) -> None:
    async with ctx.connect(credentials) as connection:
        await connection.execute("select 1 as answered")


def _refuse_deleted(ctx: PhaseContext, answer: str) -> None:
    """Refuse a project that has been deleted, unless it is too new to be visible.

    Raises:
        Permanent: it was visible before, or has had the time to become so.
    """
    if ctx.job.checkpoint.get("was_visible") or ctx.job.in_phase > NOT_VISIBLE_YET:
        raise Permanent(
            f"project {ctx.ref} is gone ({answer}); pgworker never replaces a project that it "
            "recorded: find out who deleted it"
        )


def _wait_for_project(ctx: PhaseContext, answer: str, *, was_visible: bool = True) -> Snooze:
    """Return the wait for a project that isn't up.

    Raises:
        Permanent: it has been seen coming up for as long as the time limit.
    """
    seconds = _count(ctx, "coming_up_seconds")
    if seconds > ctx.settings.project_timeout.total_seconds():
        raise Permanent(
            f"project {ctx.ref} is not up after {seconds:.0f} s ({answer}): look at the provider's "
            "dashboard or ask its support, then retry"
        )
    return _look_again(ctx, answer, was_visible=was_visible, coming_up_seconds=seconds)


def _wait_for_proof(ctx: PhaseContext, answer: str, *, looks: int) -> Snooze:
    """Return the wait for a project that reports to be up, and can't be used yet.

    Raises:
        Permanent: it has been in that state for as long as the time limit.
    """
    seconds = _count(ctx, "unproven_seconds")
    if seconds > ctx.settings.project_timeout.total_seconds():
        raise Permanent(
            f"project {ctx.ref} says that it is up, and can't be used after {seconds:.0f} s "
            f"({answer}): look at the provider's dashboard or ask its support, then retry"
        )
    return _look_again(ctx, answer, looks=looks, unproven_seconds=seconds)


def _count(ctx: PhaseContext, counter: str) -> float:
    """Return how many seconds of the time limit have passed, those since the last look included.

    Time without a look isn't the provider's fault: a pause, an open breaker, our own back-off, no
    worker. So of a longer gap only as much counts as we leave between two looks in a busy queue.
    """
    checkpoint, now = ctx.job.checkpoint, ctx.job.in_phase.total_seconds()
    last_look = float(checkpoint.get("looked_at_seconds", 0))
    if last_look > now:
        # A person has put the job back into the phase: the limit starts again.
        return 0
    gap = min(now - last_look, LONGEST_GAP * ctx.settings.project_poll.total_seconds())
    return float(checkpoint.get(counter, 0)) + gap


def _look_again(
    ctx: PhaseContext,
    answer: str,
    *,
    looks: int = 0,
    was_visible: bool = True,
    **counted: float,
) -> Snooze:
    """Return the wait until the next look; a look that found the project ready has no limit."""
    # Jitter, so that jobs of clients that signed up together don't all look together. A project
    # that looks ready only has to be confirmed: soon.
    delay = ctx.settings.project_poll * random.uniform(0.9, 1.1)  # noqa: S311
    if looks:
        delay /= CONFIRM_SOONER
    return Snooze(
        delay,
        reason=f"the project to come up ({answer})",
        checkpoint={
            "last_answer": answer,
            "ready_checks": looks,
            "was_visible": was_visible,
            "looked_at_seconds": round(ctx.job.in_phase.total_seconds(), 3),
            **counted,
        },
    )
