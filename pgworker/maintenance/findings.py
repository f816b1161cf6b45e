"""The differences that `pgworker reconcile` finds between providers and ledger."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING
from uuid import UUID

from pgworker.errors import NotDeleted
from pgworker.models import ClientStatus
from pgworker.providers.base import RemoteTenant

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence


class FindingKind(StrEnum):
    """What is different, the worst first. `reconcile --json` prints the values."""

    UNSEEN = "unseen"  # the provider could not be inspected
    DUPLICATE = "duplicate"  # a further tenant with the name reserved for one client
    ORPHAN = "orphan"  # a tenant that no client was meant to have
    GONE = "gone"  # the recorded tenant of a client is missing
    UNRECORDED = "unrecorded"  # created for a client, but the answer was lost
    HALF_MADE = "half_made"  # partly created for a client, and no job continues
    FOREIGN = "foreign"  # a name of pgworker's on a database that has another owner
    MISMATCH = "mismatch"  # client and ledger record different refs
    UNANSWERED = "unanswered"  # a create without an answer and without a visible result
    SECRETS_MISSING = "secrets_missing"  # a ready client without the secrets that its tenant needs


class Remedy(StrEnum):
    """What `--fix` does about a finding. None of them can lose anything."""

    RETRY = "retry"  # queue the failed job again: its next attempt adopts what exists
    SETTLE = "settle"  # record in the ledger that the create made nothing
    SHOW = "show"  # copy the ledger's ref to the client


@dataclass(frozen=True, slots=True)
class Finding:
    """One difference; the fields are the keys of `reconcile --json`.

    Attributes:
        message: what was found, with the names of client and tenant.
        advice: what a person can do.
        ref: of the tenant in question.
        created_at: when the tenant was created; None when the provider doesn't say.
        remedy: what `--fix` does; None leaves it to a person.
        is_deletable: whether `--delete` accepts the ref.
        outcome: what this run did about it; None when nothing was done.
    """

    kind: FindingKind
    provider: str
    message: str
    advice: str
    ref: str | None = None
    name: str | None = None
    client_id: UUID | None = None
    client_name: str | None = None
    created_at: datetime | None = None
    remedy: Remedy | None = None
    is_deletable: bool = False
    outcome: str | None = None


@dataclass(frozen=True, slots=True)
class Owner:
    """A client with what the ledger records of its tenant.

    Attributes:
        provider: the one that created the tenant, or will; None while there is no intent.
        tenant_name: from the intent; None without one.
        recorded_ref: from the intent; None without one, or while nothing was created.
        shown_ref: from the client's own row.
        create_was_sent: whether a create was sent for it, with any outcome or none.
        unanswered_for: how long ago the newest create without an outcome was sent.
        is_live: whether a job of it is queued, running or waiting.
        job_status: of the job that a retry would take; None when it has no job.
        secrets: names of the stored fields.
    """

    id: UUID
    name: str
    status: str
    provider: str | None
    tenant_name: str | None
    recorded_ref: str | None
    shown_ref: str | None
    create_was_sent: bool
    unanswered_for: timedelta | None
    is_live: bool
    job_status: str | None
    secrets: frozenset[str] = frozenset()

    @property
    def ref(self) -> str | None:
        """The tenant's ref; the ledger takes precedence over the client's row."""
        return self.recorded_ref or self.shown_ref

    @property
    def is_being_removed(self) -> bool:
        """Whether its tenant is meant to disappear, or has done so."""
        return self.status in {ClientStatus.DEPROVISIONING, ClientStatus.DEPROVISIONED}


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What one provider has, from one complete listing.

    Attributes:
        missing: recorded refs that the listing lacks and that the provider, asked about each one,
            doesn't have; with its answers.
        visible_within: a create shows up in a look-up within this time, or it made nothing.
    """

    provider: str
    tenants: tuple[RemoteTenant, ...]
    missing: Mapping[str, str] = field(default_factory=dict)
    visible_within: timedelta = timedelta(0)


def sort_findings(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Return findings by kind, then by client and ref: the same ones always in the same order."""
    rank = {kind: number for number, kind in enumerate(FindingKind)}
    return tuple(
        sorted(
            findings,
            key=lambda each: (rank[each.kind], each.provider, each.client_name or "", str(each)),
        )
    )


def provider_not_inspected(provider: str, reason: str) -> Finding:
    """Return the finding that a provider's listing could not be read."""
    return Finding(
        FindingKind.UNSEEN,
        provider,
        f"provider {provider} could not be inspected: {reason}",
        "its tenants were not compared; fix this, then run reconcile again (pgworker doctor helps)",
    )


def tenant_not_inspected(provider: str, ref: str, reason: str) -> Finding:
    """Return the finding that a provider refuses to answer about one ref."""
    return Finding(
        FindingKind.UNSEEN,
        provider,
        f"provider {provider} could not be asked about {ref}: {reason}",
        "it was not compared; check that this is the ref of a tenant",
        ref=ref,
    )


def choose_deletable(findings: Sequence[Finding], refs: Sequence[str]) -> list[Finding]:
    """Return the findings about the tenants that a person named for deletion.

    Raises:
        NotDeleted: one of them isn't a finding, or has an owner; the message has a line for each.
    """
    by_ref = {each.ref: each for each in findings if each.is_deletable}
    others = {each.ref: each.message for each in findings if each.ref is not None}
    uninspected = [each.message for each in findings if each.kind is FindingKind.UNSEEN]
    refusals = [
        f"{ref} can't be deleted here: "
        + others.get(ref, "; ".join([*uninspected, "pgworker reconcile reports no such tenant"]))
        for ref in refs
        if ref not in by_ref
    ]
    if refusals:
        raise NotDeleted("\n".join([*refusals, "nothing was deleted"]))
    return [by_ref[ref] for ref in refs]
