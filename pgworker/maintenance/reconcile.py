"""Reads providers and ledger, reports their differences, and fixes those that are safe to fix.

It deletes only what a person names.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from pgworker.db.queries import load
from pgworker.errors import JobError, NotDeleted, OutcomeUnknown, Permanent, Transient
from pgworker.maintenance.comparison import find_differences, find_unlisted
from pgworker.maintenance.findings import (
    Finding,
    Owner,
    Remedy,
    Snapshot,
    choose_deletable,
    provider_not_inspected,
    sort_findings,
    tenant_not_inspected,
)
from pgworker.providers.base import TenantState
from pgworker.tenants.redaction import scrub

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pgworker.context import Platform
    from pgworker.providers.base import Provider, RemoteTenant

# In all: a listing may fail for a reason that passes, or change while its pages are read.
LISTING_ATTEMPTS = 3


class ReconcileQueries(NamedTuple):
    """The statements of `sql/queries/reconcile.sql`."""

    providers_in_use: str
    owners: str
    retry: str
    settle: str
    show: str
    begin_delete: str
    end_delete: str


RECONCILE_QUERIES = load(ReconcileQueries, "queries/reconcile.sql")


class Reconciler:
    """Compares one platform's ledger with the listings of its providers."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform

    async def inspect(self, provider: str | None = None) -> tuple[Finding, ...]:
        """Return the differences, the worst first; changes nothing.

        A provider that can't be inspected is a finding itself, and none of its tenants is judged.

        Args:
            provider: inspect this one only; None inspects the default one and all in use.
        """
        names = [provider] if provider is not None else await self._list_providers()
        listings: dict[str, tuple[RemoteTenant, ...]] = {}
        uninspected: list[Finding] = []
        for name in names:
            try:
                listings[name] = await self._list_tenants(name)
            except JobError as error:
                uninspected.append(provider_not_inspected(name, scrub(str(error))))
        # After the listings: `comparison` says why.
        owners = await self._list_owners()
        snapshots = []
        for name, tenants in listings.items():
            try:
                snapshot, refused = await self._complete_snapshot(name, tenants, owners)
                snapshots.append(snapshot)
                uninspected += refused
            except JobError as error:
                uninspected.append(provider_not_inspected(name, scrub(str(error))))
        found = find_differences(snapshots, owners, self._required_secrets(names))
        return sort_findings([*uninspected, *(each for each in found if each.provider in names)])

    async def fix(self, finding: Finding) -> Finding:
        """Apply the finding's remedy; return it with its outcome, or unchanged.

        Safe to repeat: a tenant or job that has changed since the inspection is left alone.
        """
        try:
            outcome = await self._apply(finding)
        except JobError:
            # The provider can't be reached now, and the finding remains: the exit code says so.
            return finding
        return replace(finding, outcome=outcome)

    async def delete(self, finding: Finding) -> Finding:
        """Delete the tenant of a finding for good; return the finding with its outcome.

        The audit trail records each deletion before it begins, and its result.

        Raises:
            NotDeleted: the tenant has an owner by now, or the provider didn't delete it.
        """
        ref = str(finding.ref)
        choose_deletable([finding], [ref])
        what = (finding.provider, ref, finding.name)
        refusal = await self._value(RECONCILE_QUERIES.begin_delete, *what)
        if refusal is not None:
            raise NotDeleted(f"{ref} was not deleted: {refusal}")
        try:
            await self._provider(finding.provider).delete(ref)
        except JobError as error:
            reason = scrub(str(error))
            await self._value(RECONCILE_QUERIES.end_delete, *what, reason)
            unclear = isinstance(error, OutcomeUnknown | Transient)
            maybe = "may not have been deleted" if unclear else "was not deleted"
            raise NotDeleted(f"{ref} {maybe}: {reason}") from error
        await self._value(RECONCILE_QUERIES.end_delete, *what, None)
        return replace(finding, outcome="deleted")

    # -- reading ------------------------------------------------------------------------------

    async def _list_providers(self) -> list[str]:
        rows = await self._platform.pool.fetch(RECONCILE_QUERIES.providers_in_use)
        return list(dict.fromkeys([self._platform.settings.provider, *(row[0] for row in rows)]))

    async def _list_tenants(self, name: str) -> tuple[RemoteTenant, ...]:
        provider = self._provider(name)
        for _ in range(LISTING_ATTEMPTS - 1):
            try:
                return await provider.list_tenants()
            except Transient:
                continue
        return await provider.list_tenants()

    async def _list_owners(self) -> tuple[Owner, ...]:
        rows = await self._platform.pool.fetch(RECONCILE_QUERIES.owners)
        return tuple(_owner_from_row(dict(row)) for row in rows)

    async def _complete_snapshot(
        self, name: str, tenants: tuple[RemoteTenant, ...], owners: Sequence[Owner]
    ) -> tuple[Snapshot, list[Finding]]:
        """Ask the provider about each recorded tenant that its listing lacks."""
        provider = self._provider(name)
        missing, refused = {}, []
        for ref in find_unlisted(name, tenants, owners):
            try:
                seen = await provider.observe(ref)
            except Permanent as error:
                # This ref only, for example one that a person wrote by hand: ask about the others.
                refused.append(tenant_not_inspected(name, ref, scrub(str(error))))
                continue
            if seen.state is TenantState.GONE:
                missing[ref] = scrub(seen.answer)
        return Snapshot(name, tenants, missing, self._visible_within(provider)), refused

    def _required_secrets(self, names: Sequence[str]) -> dict[str, tuple[tuple[str, ...], ...]]:
        required = {}
        for name in names:
            # A provider that can't be used is a finding already.
            with suppress(Permanent):
                required[name] = self._provider(name).required_secrets
        return required

    def _visible_within(self, provider: Provider) -> timedelta:
        if provider.lookup_is_final:
            return timedelta(0)
        return self._platform.settings.create_lookup

    # -- fixing -------------------------------------------------------------------------------

    async def _apply(self, finding: Finding) -> str | None:
        """Return what was done; None when nothing was."""
        match finding.remedy:
            case Remedy.RETRY:
                if await self._value(RECONCILE_QUERIES.retry, finding.client_id, finding.ref):
                    return "its job is queued again; the next attempt adopts what exists"
            case Remedy.SETTLE:
                after = self._visible_within(self._provider(finding.provider))
                if await self._value(RECONCILE_QUERIES.settle, finding.client_id, after):
                    return "the ledger now records that the create made nothing"
            case Remedy.SHOW:
                assert finding.name is not None
                tenant = await self._provider(finding.provider).find(finding.name)
                if (
                    tenant is not None
                    and tenant.ref == finding.ref
                    and await self._value(
                        RECONCILE_QUERIES.show, finding.client_id, tenant.ref, tenant.url
                    )
                ):
                    return f"the client shows {tenant.ref} again"
        return None

    def _provider(self, name: str) -> Provider:
        return self._platform.providers.named(name)

    async def _value(self, query: str, *arguments: object) -> Any:
        return await self._platform.pool.fetchval(query, *arguments)


def _owner_from_row(row: dict[str, Any]) -> Owner:
    seconds = row.pop("seconds_unanswered")
    unanswered_for = None if seconds is None else timedelta(seconds=seconds)
    return Owner(**row | {"unanswered_for": unanswered_for, "secrets": frozenset(row["secrets"])})
