"""What `pgworker reconcile` may find to be not as it should be."""

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
    """What is not as it should be; the worst first."""

    UNSEEN = "unseen"  # the provider couldn't be looked at
    DUPLICATE = "duplicate"  # a further tenant of one client's name
    ORPHAN = "orphan"  # nothing here was meant to have it
    GONE = "gone"  # a client's recorded tenant isn't there
    UNRECORDED = "unrecorded"  # made for a client, and the answer got lost
    HALF_MADE = "half_made"  # begun for a client, and nobody goes on with it
    FOREIGN = "foreign"  # a name of ours on what belongs to somebody else
    MISMATCH = "mismatch"  # client and ledger tell different refs
    UNANSWERED = "unanswered"  # a create without an answer, of which nothing shows
    SECRETS_MISSING = "secrets_missing"  # a ready client without what it takes to use its tenant


class Remedy(StrEnum):
    """What `--fix` does about a finding. None of them can lose anything."""

    RETRY = "retry"  # the failed job goes back in line: its next try adopts what is there
    SETTLE = "settle"  # the ledger notes that the create made nothing
    SHOW = "show"  # the client gets the ref that the ledger records


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that isn't as it should be.

    Attributes:
        ref: of the tenant in question.
        message: what was found, naming it.
        advice: what a person can do.
        created_at: when the tenant was made, where the provider tells.
        remedy: what `--fix` does; None leaves it to a person.
        is_deletable: whether `--delete` takes the ref.
        outcome: what was done about it just now.
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
    """A client with what the ledger knows of its tenant.

    Attributes:
        provider: who made, or is to make, the tenant; None when nothing was meant yet.
        tenant_name, recorded_ref: of the intent; None without one.
        shown_ref: what the client's own row shows.
        was_begun: a create was sent for it, whatever became of that.
        unanswered_for: how long ago the newest create without an outcome was sent.
        is_live: a job of it is queued, running or waiting: somebody looks after it.
        job_status: of the job that a retry would take; None when it has no job.
        secrets: the fields that are stored.
    """

    id: UUID
    name: str
    status: str
    provider: str | None
    tenant_name: str | None
    recorded_ref: str | None
    shown_ref: str | None
    was_begun: bool
    unanswered_for: timedelta | None
    is_live: bool
    job_status: str | None
    secrets: frozenset[str] = frozenset()

    @property
    def ref(self) -> str | None:
        """The tenant's ref; the ledger's word goes before the client's row."""
        return self.recorded_ref or self.shown_ref

    @property
    def is_leaving(self) -> bool:
        """Whether its tenant is meant to go."""
        return self.status in {ClientStatus.DEPROVISIONING, ClientStatus.DEPROVISIONED}


@dataclass(frozen=True, slots=True)
class Look:
    """One complete look at a provider.

    Attributes:
        gone: recorded refs that it doesn't list and, asked for each of them, doesn't have; with
            its answers.
        settles_after: how long a create may go without showing up; a look-up is final then.
    """

    provider: str
    tenants: tuple[RemoteTenant, ...]
    gone: Mapping[str, str] = field(default_factory=dict)
    settles_after: timedelta = timedelta(0)


def in_order(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Return findings by kind, then by client and ref: the same ones in the same order."""
    rank = {kind: number for number, kind in enumerate(FindingKind)}
    return tuple(
        sorted(
            findings,
            key=lambda each: (rank[each.kind], each.provider, each.client_name or "", str(each)),
        )
    )


def unseen(provider: str, reason: str) -> Finding:
    """Return the finding that nothing is known of a provider."""
    return Finding(
        FindingKind.UNSEEN,
        provider,
        f"provider {provider} could not be looked at: {reason}",
        "nothing is said of its tenants; mend that, then look again (pgworker doctor helps)",
    )


def unasked(provider: str, ref: str, reason: str) -> Finding:
    """Return the finding that a provider takes no question about one tenant."""
    return Finding(
        FindingKind.UNSEEN,
        provider,
        f"provider {provider} could not be asked for {ref}: {reason}",
        "nothing is said of it; is that the ref of a tenant?",
        ref=ref,
    )


def choose_deletable(findings: Sequence[Finding], refs: Sequence[str]) -> list[Finding]:
    """Return the findings of the tenants that a person names for deletion.

    Raises:
        NotDeleted: one of them isn't a finding, or has an owner; a line for each.
    """
    by_ref = {each.ref: each for each in findings if each.is_deletable}
    others = {each.ref: each.message for each in findings if each.ref is not None}
    blind = [each.message for each in findings if each.kind is FindingKind.UNSEEN]
    refusals = [
        f"{ref} can't be deleted here: "
        + others.get(ref, "; ".join([*blind, "it is nothing that pgworker reconcile finds amiss"]))
        for ref in refs
        if ref not in by_ref
    ]
    if refusals:
        raise NotDeleted("\n".join([*refusals, "nothing was deleted"]))
    return [by_ref[ref] for ref in refs]
