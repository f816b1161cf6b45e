"""Looks at providers and ledger, reports what nobody owns or nobody has, mends what it safely can.

It never deletes unless a person names what to delete.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from pgworker.db.queries import load
from pgworker.errors import JobError, NotDeleted, OutcomeUnknown, Permanent, Transient
from pgworker.maintenance.comparison import compare, unlisted
from pgworker.maintenance.findings import (
    Finding,
    Look,
    Owner,
    Remedy,
    choose_deletable,
    in_order,
    unasked,
    unseen,
)
from pgworker.providers.base import TenantState
from pgworker.tenants.redaction import scrub

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pgworker.context import Platform
    from pgworker.providers.base import Provider, RemoteTenant

# A listing that changes while it is read is read again, so often in all.
LISTINGS = 3


class ReconcileQueries(NamedTuple):
    """The statements of `sql/queries/reconcile.sql`."""

    providers_in_use: str
    owners: str
    retry: str
    settle: str
    show: str
    begin_delete: str
    end_delete: str


QUERIES = load(ReconcileQueries, "queries/reconcile.sql")


class Reconciler:
    """Compares one platform's ledger with the providers' own listings."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform

    async def look(self, provider: str | None = None) -> tuple[Finding, ...]:
        """Return what isn't as it should be; changes nothing.

        Args:
            provider: look at this one only; None looks at the default one and all in use.

        A provider that can't be looked at is a finding itself, and nothing else is said of what it
        has.
        """
        names = [provider] if provider is not None else await self._in_use()
        listings: dict[str, tuple[RemoteTenant, ...]] = {}
        blind: list[Finding] = []
        for name in names:
            try:
                listings[name] = await self._list(name)
            except JobError as error:
                blind.append(unseen(name, scrub(str(error))))
        # After the listings: see `comparing`.
        owners = await self._owners()
        looks = []
        for name, tenants in listings.items():
            try:
                look, unasked_refs = await self._confirm(name, tenants, owners)
                looks.append(look)
                blind += unasked_refs
            except JobError as error:
                blind.append(unseen(name, scrub(str(error))))
        found = compare(looks, owners)
        return in_order([*blind, *(each for each in found if each.provider in names)])

    async def fix(self, finding: Finding) -> Finding:
        """Apply the finding's remedy; return it with what was done, or as it is.

        Safe to repeat: what has changed since the look is left alone.
        """
        try:
            outcome = await self._apply(finding)
        except JobError:
            # The provider is away: a finding of its own says so.
            return finding
        return replace(finding, outcome=outcome)

    async def delete(self, finding: Finding) -> Finding:
        """Delete the tenant of a finding for good; return the finding with what was done.

        Raises:
            NotDeleted: it has an owner by now, or the provider didn't do it. The audit trail tells
                of every deletion that was begun, and what became of it.
        """
        ref = str(finding.ref)
        choose_deletable([finding], [ref])
        what = (finding.provider, ref, finding.name)
        refusal = await self._value(QUERIES.begin_delete, *what)
        if refusal is not None:
            raise NotDeleted(f"{ref} was not deleted: {refusal}")
        try:
            await self._provider(finding.provider).delete(ref)
        except JobError as error:
            reason = scrub(str(error))
            await self._value(QUERIES.end_delete, *what, reason)
            unclear = isinstance(error, OutcomeUnknown | Transient)
            maybe = "may not have been deleted" if unclear else "was not deleted"
            raise NotDeleted(f"{ref} {maybe}: {reason}") from error
        await self._value(QUERIES.end_delete, *what, None)
        return replace(finding, outcome="deleted")

    # -- looking ------------------------------------------------------------------------------

    async def _in_use(self) -> list[str]:
        rows = await self._platform.pool.fetch(QUERIES.providers_in_use)
        return list(dict.fromkeys([self._platform.settings.provider, *(row[0] for row in rows)]))

    async def _list(self, name: str) -> tuple[RemoteTenant, ...]:
        provider = self._provider(name)
        for _ in range(LISTINGS - 1):
            try:
                return await provider.list_tenants()
            except Transient:
                continue
        return await provider.list_tenants()

    async def _owners(self) -> tuple[Owner, ...]:
        rows = await self._platform.pool.fetch(QUERIES.owners)
        return tuple(_owner(dict(row)) for row in rows)

    async def _confirm(
        self, name: str, tenants: tuple[RemoteTenant, ...], owners: Sequence[Owner]
    ) -> tuple[Look, list[Finding]]:
        """Ask for each recorded tenant that the listing lacks."""
        provider = self._provider(name)
        gone, blind = {}, []
        for ref in unlisted(name, tenants, owners):
            try:
                seen = await provider.observe(ref)
            except Permanent as error:
                # About this one only: whatever a client shows as its ref, the others are asked for.
                blind.append(unasked(name, ref, scrub(str(error))))
                continue
            if seen.state is TenantState.GONE:
                gone[ref] = scrub(seen.answer)
        return Look(name, tenants, gone, self._settles_after(provider)), blind

    def _settles_after(self, provider: Provider) -> timedelta:
        if provider.lookup_is_final:
            return timedelta(0)
        return self._platform.settings.create_lookup

    # -- mending ------------------------------------------------------------------------------

    async def _apply(self, finding: Finding) -> str | None:
        """Return what was done, or None when nothing was."""
        match finding.remedy:
            case Remedy.RETRY:
                if await self._value(QUERIES.retry, finding.client_id, finding.ref):
                    return "its job is in line again; the next try adopts what is there"
            case Remedy.SETTLE:
                after = self._settles_after(self._provider(finding.provider))
                if await self._value(QUERIES.settle, finding.client_id, after):
                    return "the ledger notes that the create made nothing"
            case Remedy.SHOW:
                assert finding.name is not None
                tenant = await self._provider(finding.provider).find(finding.name)
                if (
                    tenant is not None
                    and tenant.ref == finding.ref
                    and await self._value(QUERIES.show, finding.client_id, tenant.ref, tenant.url)
                ):
                    return f"the client shows {tenant.ref} again"
        return None

    def _provider(self, name: str) -> Provider:
        return self._platform.providers.named(name)

    async def _value(self, query: str, *arguments: object) -> Any:
        return await self._platform.pool.fetchval(query, *arguments)


def _owner(row: dict[str, Any]) -> Owner:
    seconds = row.pop("seconds_unanswered")
    unanswered_for = None if seconds is None else timedelta(seconds=seconds)
    return Owner(**row | {"unanswered_for": unanswered_for, "secrets": frozenset(row["secrets"])})
