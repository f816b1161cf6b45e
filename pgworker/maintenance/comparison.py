"""Compares what a provider has with what we meant to make. Pure: `reconcile.py` looks, this judges.

The order of the looks closes a race. An intent is committed before anything is made for it, so a
ledger that is read after the provider's listing knows all that the listing shows; read before it,
a tenant that is just being made would look like nobody's.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Final

from pgworker.maintenance.findings import Finding, FindingKind, Look, Owner, Remedy, in_order
from pgworker.models import ClientStatus, JobStatus
from pgworker.providers.base import RemoteState, RemoteTenant

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from uuid import UUID

# A ready client needs one of each, by the fields of `tenant_secrets`.
REQUIRED_SECRETS: Final[Mapping[str, tuple[tuple[str, ...], ...]]] = {
    "postgres": (("db_password",), ("dsn",)),
    "supabase": (
        ("db_password",),
        ("publishable_key", "anon_key"),
        ("secret_key", "service_role_key"),
    ),
}

_IN_PART: Final = frozenset({RemoteState.UNFINISHED, RemoteState.PARTIAL})


def unlisted(
    provider: str, tenants: Iterable[RemoteTenant], owners: Iterable[Owner]
) -> tuple[str, ...]:
    """Return the recorded refs that the listing lacks, for a look at each of them.

    A listing proves too little: it may lag, it may have been read before the tenant was made, and
    a project that somebody renamed is still there. Clients with a live job are left to it.
    """
    listed = {tenant.ref for tenant in tenants}
    return tuple(
        owner.ref
        for owner in owners
        if owner.provider == provider
        and owner.ref is not None
        and owner.ref not in listed
        and not owner.is_live
        and not owner.is_leaving
    )


def compare(looks: Iterable[Look], owners: Sequence[Owner]) -> tuple[Finding, ...]:
    """Return everything that isn't as it should be; the worst first.

    Args:
        looks: at each provider that could be looked at.
        owners: every client, read after the listings.
    """
    findings: list[Finding] = []
    for look in looks:
        findings += _compare_with(look, owners)
    for owner in owners:
        findings += _check_row(owner)
        findings += _check_secrets(owner)
    return in_order(findings)


# -- what a provider shows --------------------------------------------------------------------


def _compare_with(look: Look, owners: Sequence[Owner]) -> Iterator[Finding]:
    by_client: dict[UUID, list[RemoteTenant]] = defaultdict(list)
    for tenant in look.tenants:
        by_client[tenant.client_id].append(tenant)
    known = {owner.id: owner for owner in owners}
    owned_refs = {ref for owner in owners for ref in (owner.recorded_ref, owner.shown_ref) if ref}

    for client_id, tenants in by_client.items():
        owner = known.get(client_id)
        if owner is not None and owner.provider in {None, look.provider}:
            yield from _check_tenants(look.provider, owner, tenants)
            continue
        for tenant in tenants:
            if tenant.ref not in owned_refs:
                yield from _check_ownerless(look.provider, owner, tenant)
    for owner in owners:
        if owner.provider == look.provider:
            yield from _check_absence(look, owner, by_client.get(owner.id, []))


def _check_ownerless(provider: str, owner: Owner | None, tenant: RemoteTenant) -> Iterator[Finding]:
    if tenant.state is RemoteState.DELETING:
        return
    if tenant.state is RemoteState.FOREIGN:
        yield _of(
            tenant,
            FindingKind.FOREIGN,
            provider,
            f"{tenant.detail}: its name is one of ours, and we did not make it",
            "rename it, or give it to the role of its name if it is a tenant after all",
            owner,
        )
        return
    if owner is None:
        whose = f"no client here has the id {tenant.client_id}"
        advice = (
            "it may belong to another pgworker that shares the organisation or server: ask first; "
            f"if it is nobody's: pgworker reconcile --delete {tenant.ref}"
        )
    else:
        whose = f"client {owner.name!r} has its tenant at {owner.provider}"
        advice = f"look what is in it; if nothing is: pgworker reconcile --delete {tenant.ref}"
    yield _of(
        tenant,
        FindingKind.ORPHAN,
        provider,
        f"{tenant.detail}: {whose}",
        advice,
        owner,
        is_deletable=True,
    )


def _check_tenants(
    provider: str, owner: Owner, tenants: Sequence[RemoteTenant]
) -> Iterator[Finding]:
    """Judge what bears the name of one client's tenant."""
    present = [each for each in tenants if each.state is not RemoteState.DELETING]
    if owner.ref is None and len(present) > 1:
        yield from _check_candidates(provider, owner, present)
        return
    for tenant in present:
        if tenant.ref == owner.ref:
            yield from _check_recorded(provider, owner, tenant)
        elif owner.ref is not None:
            yield _of(
                tenant,
                FindingKind.DUPLICATE,
                provider,
                f"{tenant.detail} bears the name of client {owner.name!r}, "
                f"whose tenant is {owner.ref}",
                f"look what is in it; if nothing is: pgworker reconcile --delete {tenant.ref}",
                owner,
                # Both of two refs on record: a mismatch, and no one's to delete.
                is_deletable=tenant.ref != owner.shown_ref,
            )
        elif not owner.is_live:
            yield _check_unrecorded(provider, owner, tenant)


def _check_candidates(
    provider: str, owner: Owner, tenants: Sequence[RemoteTenant]
) -> Iterator[Finding]:
    for tenant in tenants:
        yield _of(
            tenant,
            FindingKind.DUPLICATE,
            provider,
            f"{tenant.detail} is one of {len(tenants)} that bear the name of client "
            f"{owner.name!r}, none of them recorded",
            f"keep one, then: pgworker retry {owner.id}; "
            f"delete the others: pgworker reconcile --delete {tenant.ref}",
            owner,
            is_deletable=not owner.is_live,
        )


def _check_unrecorded(provider: str, owner: Owner, tenant: RemoteTenant) -> Finding:
    if tenant.state is RemoteState.FOREIGN:
        return _of(
            tenant,
            FindingKind.FOREIGN,
            provider,
            f"{tenant.detail}, stands in the way of client {owner.name!r}",
            f"rename it, then: pgworker retry {owner.id}",
            owner,
        )
    in_part = tenant.state in _IN_PART
    what = "was begun for" if in_part else "was made for"
    verb = "finish" if in_part else "adopt"
    # What no create of ours made is another's, perhaps: adopting it sets its password. And what a
    # person stopped is a person's to go on with, or to give up.
    remedy = Remedy.RETRY if owner.was_begun and owner.job_status == JobStatus.FAILED else None
    if remedy is not None:
        advice = f"{verb} it: pgworker reconcile --fix, or pgworker retry {owner.id}"
    elif owner.was_begun:
        advice = f"{verb} it: {_start_again(owner)}; or: pgworker reconcile --delete {tenant.ref}"
    else:
        what = "bears the name of"
        advice = (
            "does another pgworker with this client share the organisation or server? It is the "
            f"other's then. If not: {_start_again(owner)} adopts it and sets its password"
        )
    return _of(
        tenant,
        FindingKind.HALF_MADE if in_part else FindingKind.UNRECORDED,
        provider,
        f"{tenant.detail} {what} client {owner.name!r} and is not recorded; "
        f"its job is {owner.job_status or 'not there'}",
        advice,
        owner,
        remedy=remedy,
        is_deletable=True,
    )


def _check_recorded(provider: str, owner: Owner, tenant: RemoteTenant) -> Iterator[Finding]:
    if owner.is_live or owner.is_leaving or tenant.state is RemoteState.COMPLETE:
        return
    if tenant.state is RemoteState.FOREIGN:
        yield _of(
            tenant,
            FindingKind.FOREIGN,
            provider,
            f"the tenant of client {owner.name!r} is {tenant.detail}",
            f'find out who changed it; to take it back: alter database "{tenant.name}" '
            f'owner to "{tenant.name}";',
            owner,
        )
    elif tenant.state is RemoteState.UNFINISHED:
        yield _of(
            tenant,
            FindingKind.HALF_MADE,
            provider,
            f"the tenant of client {owner.name!r} is {tenant.detail}",
            f'close it: revoke all on database "{tenant.name}" from public;',
            owner,
        )
    else:
        yield _gone(provider, owner, f"there is only {tenant.detail}")


def _check_absence(look: Look, owner: Owner, tenants: Sequence[RemoteTenant]) -> Iterator[Finding]:
    """Judge what isn't there, or won't be for long."""
    if owner.is_live or owner.is_leaving:
        return
    if owner.ref is not None:
        leaving = [
            each for each in tenants if each.ref == owner.ref and each.state is RemoteState.DELETING
        ]
        if leaving:
            yield _gone(look.provider, owner, f"{leaving[0].detail} is being deleted")
        elif owner.ref in look.gone:
            yield _gone(look.provider, owner, look.gone[owner.ref])
        return
    if tenants or owner.unanswered_for is None:
        return
    if owner.unanswered_for > look.settles_after:
        yield Finding(
            FindingKind.UNANSWERED,
            look.provider,
            f"a create for client {owner.name!r} was never answered and nothing of it shows; "
            f"its job is {owner.job_status or 'not there'}",
            "note that it made nothing: pgworker reconcile --fix; "
            f"go on: {_start_again(owner)} (looks again before it creates)",
            name=owner.tenant_name,
            client_id=owner.id,
            client_name=owner.name,
            remedy=Remedy.SETTLE,
        )


# -- what the ledger alone shows --------------------------------------------------------------


def _check_row(owner: Owner) -> Iterator[Finding]:
    if owner.tenant_name is None or owner.is_leaving or owner.recorded_ref == owner.shown_ref:
        return
    assert owner.provider is not None
    if owner.shown_ref is None:
        message = f"client {owner.name!r} shows no ref; the ledger records {owner.recorded_ref}"
        advice = "show it again: pgworker reconcile --fix"
    else:
        recorded = owner.recorded_ref or "none"
        message = f"client {owner.name!r} shows {owner.shown_ref}; the ledger records {recorded}"
        advice = "find out which is right, and who wrote clients.project_ref"
        if owner.recorded_ref is not None:
            advice += (
                "; the ledger's: update clients set project_ref = "
                f"'{owner.recorded_ref}' where id = '{owner.id}';"
            )
    yield Finding(
        FindingKind.MISMATCH,
        owner.provider,
        message,
        advice,
        ref=owner.recorded_ref,
        name=owner.tenant_name,
        client_id=owner.id,
        client_name=owner.name,
        remedy=Remedy.SHOW if owner.shown_ref is None else None,
    )


def _check_secrets(owner: Owner) -> Iterator[Finding]:
    if owner.status != ClientStatus.READY or owner.tenant_name is None:
        return
    assert owner.provider is not None
    missing = [
        " or ".join(fields)
        for fields in REQUIRED_SECRETS.get(owner.provider, ())
        if not owner.secrets.intersection(fields)
    ]
    if missing:
        yield Finding(
            FindingKind.SECRETS_MISSING,
            owner.provider,
            f"client {owner.name!r} is ready and has no {', no '.join(missing)} stored",
            "restore pgworker.tenant_secrets from a backup"
            if "db_password" in missing
            else f"fetch them again: select pgworker.enqueue('{owner.id}');",
            ref=owner.ref,
            name=owner.tenant_name,
            client_id=owner.id,
            client_name=owner.name,
        )


# -- words ------------------------------------------------------------------------------------


def _of(
    tenant: RemoteTenant,
    kind: FindingKind,
    provider: str,
    message: str,
    advice: str,
    owner: Owner | None,
    *,
    remedy: Remedy | None = None,
    is_deletable: bool = False,
) -> Finding:
    return Finding(
        kind,
        provider,
        message,
        advice,
        ref=tenant.ref,
        name=tenant.name,
        client_id=tenant.client_id,
        client_name=None if owner is None else owner.name,
        created_at=tenant.created_at,
        remedy=remedy,
        is_deletable=is_deletable,
    )


def _gone(provider: str, owner: Owner, answer: str) -> Finding:
    return Finding(
        FindingKind.GONE,
        provider,
        f"the tenant {owner.ref} of client {owner.name!r} ({owner.status}) is not there: {answer}",
        "find out who deleted it, and restore it from a backup; if many are gone, the settings "
        "may name another server or organisation",
        ref=owner.ref,
        name=owner.tenant_name,
        client_id=owner.id,
        client_name=owner.name,
    )


def _start_again(owner: Owner) -> str:
    if owner.job_status in {JobStatus.FAILED, JobStatus.CANCELLED}:
        return f"pgworker retry {owner.id}"
    return f"select pgworker.enqueue('{owner.id}');"
