"""Compares what a provider has with what the ledger records. Pure: `reconcile.py` does the reading.

The order of reading closes a race. An intent is committed before anything is created for it, so a
ledger that is read after the provider's listing knows everything in that listing. Read before it,
the ledger would lack a tenant that is being created just now, and the tenant would look orphaned.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

from pgworker.maintenance.findings import (
    Finding,
    FindingKind,
    Owner,
    Remedy,
    Snapshot,
    sort_findings,
)
from pgworker.models import ClientStatus, JobStatus
from pgworker.providers.base import RemoteState, RemoteTenant

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from uuid import UUID

# By provider: of each group of fields, a ready client must have one stored.
RequiredSecrets = Mapping[str, Sequence[Sequence[str]]]

_INCOMPLETE: Final = frozenset({RemoteState.UNFINISHED, RemoteState.PARTIAL})


def find_unlisted(
    provider: str, tenants: Iterable[RemoteTenant], owners: Iterable[Owner]
) -> tuple[str, ...]:
    """Return the recorded refs that the listing lacks: the provider must be asked about each one.

    Absence from a listing proves too little: the listing may lag, it may have been read before the
    tenant was created, and it doesn't show a renamed project under its old name. A client with a
    live job is left to that job.
    """
    listed = {tenant.ref for tenant in tenants}
    return tuple(
        owner.ref
        for owner in owners
        if owner.provider == provider
        and owner.ref is not None
        and owner.ref not in listed
        and not owner.is_live
        and not owner.is_being_removed
    )


def find_differences(
    snapshots: Iterable[Snapshot], owners: Sequence[Owner], required_secrets: RequiredSecrets
) -> tuple[Finding, ...]:
    """Return every difference between the providers and the ledger, the worst first.

    Args:
        snapshots: of each provider that could be inspected.
        owners: every client, read after the listings.
        required_secrets: of each provider that can be used.
    """
    findings: list[Finding] = []
    for snapshot in snapshots:
        findings += _check_snapshot(snapshot, owners)
    for owner in owners:
        findings += _check_recorded_ref(owner)
        findings += _check_secrets(owner, required_secrets)
    return sort_findings(findings)


# -- what a provider shows --------------------------------------------------------------------


def _check_snapshot(snapshot: Snapshot, owners: Sequence[Owner]) -> Iterator[Finding]:
    """Check each tenant of one provider, and each client that should have a tenant there."""
    by_client: dict[UUID, list[RemoteTenant]] = defaultdict(list)
    for tenant in snapshot.tenants:
        by_client[tenant.client_id].append(tenant)
    known = {owner.id: owner for owner in owners}
    owned_refs = {ref for owner in owners for ref in (owner.recorded_ref, owner.shown_ref) if ref}

    for client_id, tenants in by_client.items():
        owner = known.get(client_id)
        if owner is not None and owner.provider in {None, snapshot.provider}:
            yield from _check_tenants_of_client(snapshot.provider, owner, tenants)
            continue
        # No such client, or its tenant is elsewhere. A tenant whose ref some client records belongs
        # to that client, whatever its name says.
        for tenant in tenants:
            if tenant.ref not in owned_refs:
                yield from _check_orphan(snapshot.provider, owner, tenant)
    for owner in owners:
        if owner.provider == snapshot.provider:
            yield from _check_absent(snapshot, owner, by_client.get(owner.id, []))


def _check_orphan(provider: str, owner: Owner | None, tenant: RemoteTenant) -> Iterator[Finding]:
    """Check a tenant that no client was meant to have.

    `owner` is the client that its name stands for; None where the ledger has no such client.
    """
    if tenant.state is RemoteState.DELETING:
        return
    if tenant.state is RemoteState.FOREIGN:
        yield _finding_about(
            tenant,
            FindingKind.FOREIGN,
            provider,
            f"{tenant.detail}: it has a name of pgworker's, and pgworker did not create it",
            "rename it; if it is a tenant after all, make the role of the same name its owner",
            owner,
        )
        return
    if owner is None:
        whose = f"no client here has the id {tenant.client_id}"
        advice = (
            "it may belong to another pgworker in the same organisation or on the same server: "
            f"ask first; if it belongs to none: pgworker reconcile --delete {tenant.ref}"
        )
    else:
        whose = f"client {owner.name!r} has its tenant at {owner.provider}"
        advice = _inspect_then_delete(tenant)
    yield _finding_about(
        tenant,
        FindingKind.ORPHAN,
        provider,
        f"{tenant.detail}: {whose}",
        advice,
        owner,
        is_deletable=True,
    )


def _check_tenants_of_client(
    provider: str, owner: Owner, tenants: Sequence[RemoteTenant]
) -> Iterator[Finding]:
    """Check all tenants that have the name reserved for one client."""
    present = [each for each in tenants if each.state is not RemoteState.DELETING]
    # Which one of several is the client's, only a person can say.
    if owner.ref is None and len(present) > 1:
        yield from _check_candidates(provider, owner, present)
        return
    for tenant in present:
        if tenant.ref == owner.ref:
            yield from _check_recorded(provider, owner, tenant)
        elif owner.ref is not None:
            yield _finding_about(
                tenant,
                FindingKind.DUPLICATE,
                provider,
                f"{tenant.detail} has the name reserved for client {owner.name!r}, "
                f"whose tenant is {owner.ref}",
                _inspect_then_delete(tenant),
                owner,
                # When ledger and client record different refs, either may be the right one.
                is_deletable=tenant.ref != owner.shown_ref,
            )
        elif not owner.is_live:
            # With a live job it is no finding: the job adopts it.
            yield _check_unrecorded(provider, owner, tenant)


def _check_candidates(
    provider: str, owner: Owner, tenants: Sequence[RemoteTenant]
) -> Iterator[Finding]:
    """Report several tenants with one client's name, while the ledger has no ref for the client."""
    for tenant in tenants:
        yield _finding_about(
            tenant,
            FindingKind.DUPLICATE,
            provider,
            f"{tenant.detail} is one of {len(tenants)} with the name reserved for client "
            f"{owner.name!r}; none of them is recorded",
            f"delete all but one (this one: pgworker reconcile --delete {tenant.ref}), "
            f"then: pgworker retry {owner.id}",
            owner,
            is_deletable=not owner.is_live,
        )


def _check_unrecorded(provider: str, owner: Owner, tenant: RemoteTenant) -> Finding:
    """Check the only tenant with a client's name, while the ledger has no ref for the client."""
    if tenant.state is RemoteState.FOREIGN:
        return _finding_about(
            tenant,
            FindingKind.FOREIGN,
            provider,
            f"{tenant.detail}: it has the name that the tenant of client {owner.name!r} needs",
            f"rename it, then: pgworker retry {owner.id}",
            owner,
        )
    is_incomplete = tenant.state in _INCOMPLETE
    what = "was partly created for" if is_incomplete else "was created for"
    verb = "finish" if is_incomplete else "adopt"
    # Only a tenant that pgworker asked for is adopted without a person: adopting sets its password,
    # and without a create on record it may be another pgworker's. A cancelled job stays cancelled:
    # the person who cancelled it decides.
    remedy = (
        Remedy.RETRY if owner.create_was_sent and owner.job_status == JobStatus.FAILED else None
    )
    if remedy is not None:
        advice = f"{verb} it: pgworker reconcile --fix, or pgworker retry {owner.id}"
    elif owner.create_was_sent:
        advice = (
            f"{verb} it: {_restart_command(owner)}; "
            f"or delete it: pgworker reconcile --delete {tenant.ref}"
        )
    else:
        what = "has the name reserved for"
        advice = (
            "it may belong to another pgworker that has the same client: ask first; if it belongs "
            f"to none, adopt it and set its password: {_restart_command(owner)}"
        )
    return _finding_about(
        tenant,
        FindingKind.HALF_MADE if is_incomplete else FindingKind.UNRECORDED,
        provider,
        f"{tenant.detail} {what} client {owner.name!r} and is not recorded; {_describe_job(owner)}",
        advice,
        owner,
        remedy=remedy,
        is_deletable=True,
    )


def _check_recorded(provider: str, owner: Owner, tenant: RemoteTenant) -> Iterator[Finding]:
    """Check that a client's recorded tenant is complete and still belongs to it."""
    if owner.is_live or owner.is_being_removed or tenant.state is RemoteState.COMPLETE:
        return
    if tenant.state is RemoteState.FOREIGN:
        take_back = "" if tenant.repair is None else f"; to take it back: {tenant.repair}"
        yield _finding_about(
            tenant,
            FindingKind.FOREIGN,
            provider,
            f"the tenant of client {owner.name!r} is {tenant.detail}",
            f"find out who changed it{take_back}",
            owner,
        )
    elif tenant.state is RemoteState.UNFINISHED:
        how = " at the provider" if tenant.repair is None else f": {tenant.repair}"
        yield _finding_about(
            tenant,
            FindingKind.HALF_MADE,
            provider,
            f"the tenant of client {owner.name!r} is {tenant.detail}",
            f"finish it{how}",
            owner,
        )
    else:
        yield _missing(provider, owner, f"there is only {tenant.detail}")


def _check_absent(
    snapshot: Snapshot, owner: Owner, tenants: Sequence[RemoteTenant]
) -> Iterator[Finding]:
    """Check what the provider doesn't have, or is deleting."""
    if owner.is_live or owner.is_being_removed:
        return
    if owner.ref is not None:
        deleting = [
            each for each in tenants if each.ref == owner.ref and each.state is RemoteState.DELETING
        ]
        if deleting:
            yield _missing(snapshot.provider, owner, f"{deleting[0].detail} is being deleted")
        elif owner.ref in snapshot.missing:
            yield _missing(snapshot.provider, owner, snapshot.missing[owner.ref])
        return
    if tenants or owner.unanswered_for is None:
        return
    # Before that time the result of the create may still show up.
    if owner.unanswered_for > snapshot.visible_within:
        yield Finding(
            FindingKind.UNANSWERED,
            snapshot.provider,
            f"a create for client {owner.name!r} was never answered, and the provider has nothing "
            f"of that name; {_describe_job(owner)}",
            "record that it created nothing: pgworker reconcile --fix; "
            f"continue: {_restart_command(owner)} (it looks again before it creates)",
            name=owner.tenant_name,
            client_id=owner.id,
            client_name=owner.name,
            remedy=Remedy.SETTLE,
        )


# -- what the ledger alone shows --------------------------------------------------------------


def _check_recorded_ref(owner: Owner) -> Iterator[Finding]:
    """Check that the client's row and the ledger have the same ref.

    Any program may write `clients.project_ref`; the ledger is pgworker's own.
    """
    if owner.tenant_name is None or owner.is_being_removed or owner.recorded_ref == owner.shown_ref:
        return
    assert owner.provider is not None
    if owner.shown_ref is None:
        message = f"client {owner.name!r} shows no ref; the ledger records {owner.recorded_ref}"
        advice = "copy the ledger's ref to the client: pgworker reconcile --fix"
    else:
        recorded = owner.recorded_ref or "none"
        message = f"client {owner.name!r} shows {owner.shown_ref}; the ledger records {recorded}"
        advice = "find out which one is right, and what wrote clients.project_ref"
        if owner.recorded_ref is not None:
            advice += (
                "; to use the ledger's: update clients set project_ref = "
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


def _check_secrets(owner: Owner, required_secrets: RequiredSecrets) -> Iterator[Finding]:
    """Check that a ready client has every secret that its provider's tenants need."""
    if owner.status != ClientStatus.READY or owner.tenant_name is None:
        return
    assert owner.provider is not None
    missing = [
        " or ".join(fields)
        for fields in required_secrets.get(owner.provider, ())
        if not owner.secrets.intersection(fields)
    ]
    if missing:
        yield Finding(
            FindingKind.SECRETS_MISSING,
            owner.provider,
            f"client {owner.name!r} is ready, but has no stored {', no '.join(missing)}",
            "restore pgworker.tenant_secrets from a backup"
            if "db_password" in missing
            else f"fetch them again: select pgworker.enqueue('{owner.id}');",
            ref=owner.ref,
            name=owner.tenant_name,
            client_id=owner.id,
            client_name=owner.name,
        )


# -- wording ----------------------------------------------------------------------------------


def _finding_about(
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


def _missing(provider: str, owner: Owner, answer: str) -> Finding:
    return Finding(
        FindingKind.GONE,
        provider,
        f"the tenant {owner.ref} of client {owner.name!r} ({owner.status}) is missing: {answer}",
        "find out who deleted it, and restore it from a backup; if many are missing, the settings "
        "may name another server or organisation",
        ref=owner.ref,
        name=owner.tenant_name,
        client_id=owner.id,
        client_name=owner.name,
    )


def _restart_command(owner: Owner) -> str:
    if owner.job_status in {JobStatus.FAILED, JobStatus.CANCELLED}:
        return f"pgworker retry {owner.id}"
    return f"select pgworker.enqueue('{owner.id}');"


def _inspect_then_delete(tenant: RemoteTenant) -> str:
    return f"check its contents; if it is empty: pgworker reconcile --delete {tenant.ref}"


def _describe_job(owner: Owner) -> str:
    if owner.job_status is None:
        return "the client has no job"
    return f"the client's job is {owner.job_status}"
