"""The differences between a provider and the ledger, by table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from pgworker.errors import NotDeleted
from pgworker.maintenance.comparison import find_differences, find_unlisted
from pgworker.maintenance.findings import (
    Finding,
    FindingKind,
    Owner,
    Remedy,
    Snapshot,
    choose_deletable,
    provider_not_inspected,
)
from pgworker.providers.base import RemoteState, RemoteTenant
from pgworker.providers.postgres.provider import PostgresProvider
from pgworker.providers.supabase.provider import SupabaseProvider

ACME = UUID("0b54e3a2-7c1d-4a1e-9f00-1234567890ab")
NAME = f"pgworker-{ACME}"
REF, OTHER = "a" * 20, "b" * 20
SECRETS = frozenset({"db_password", "publishable_key", "secret_key"})

REQUIRED_SECRETS = {
    each.name: each.required_secrets for each in (PostgresProvider, SupabaseProvider)
}
NOTHING: list[tuple[FindingKind, str | None, Remedy | None, bool]] = []


def owner(**changes: Any) -> Owner:
    """A client whose tenant is recorded and ready."""
    values: dict[str, Any] = {
        "id": ACME,
        "name": "Acme",
        "status": "ready",
        "provider": "supabase",
        "tenant_name": NAME,
        "recorded_ref": REF,
        "shown_ref": REF,
        "create_was_sent": True,
        "unanswered_for": None,
        "is_live": False,
        "job_status": "succeeded",
        "secrets": SECRETS,
    }
    return Owner(**values | changes)


def lost(**changes: Any) -> Owner:
    """A client whose create was sent and never answered; its job has failed."""
    values: dict[str, Any] = {
        "status": "failed",
        "recorded_ref": None,
        "shown_ref": None,
        "unanswered_for": timedelta(hours=1),
        "job_status": "failed",
        "secrets": frozenset({"db_password"}),
    }
    return owner(**values | changes)


def without_intent(**changes: Any) -> Owner:
    """A client without an intent: nothing was ever to be created for it."""
    values: dict[str, Any] = {
        "provider": None,
        "tenant_name": None,
        "create_was_sent": False,
        "unanswered_for": None,
        "job_status": None,
    }
    return lost(**values | changes)


def seen(ref: str = REF, state: RemoteState = RemoteState.COMPLETE) -> RemoteTenant:
    return RemoteTenant(ref, NAME, ACME, state, f"project {ref}")


def compare(snapshots: Sequence[Snapshot], owners: Sequence[Owner]) -> tuple[Finding, ...]:
    return find_differences(snapshots, owners, REQUIRED_SECRETS)


def found(
    *tenants: RemoteTenant, owners: tuple[Owner, ...], missing: dict[str, str] | None = None
) -> list[tuple[FindingKind, str | None, Remedy | None, bool]]:
    snapshot = Snapshot("supabase", tenants, missing or {}, visible_within=timedelta(minutes=2))
    return [
        (each.kind, each.ref, each.remedy, each.is_deletable)
        for each in compare([snapshot], owners)
    ]


# -- no difference ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "client",
    [
        pytest.param(lost(is_live=True, job_status="waiting"), id="its job waits or runs"),
        pytest.param(
            without_intent(is_live=True, job_status="queued"), id="its job will create it"
        ),
        pytest.param(owner(), id="it is recorded"),
        pytest.param(owner(provider=None, tenant_name=None), id="only the client shows it"),
        pytest.param(owner(status="deprovisioned"), id="its client is off-boarded"),
    ],
)
def test_a_tenant_that_its_client_records_or_will_record_is_no_finding(client: Owner) -> None:
    assert found(seen(), owners=(client,)) == NOTHING


@pytest.mark.parametrize(
    "client",
    [
        pytest.param(owner(), id="not asked for, or answered otherwise"),
        pytest.param(owner(is_live=True), id="its job looks by itself"),
        pytest.param(owner(status="deprovisioning"), id="being removed"),
        pytest.param(without_intent(), id="there is no intent"),
        pytest.param(lost(unanswered_for=None), id="its create was refused"),
        pytest.param(lost(unanswered_for=timedelta(minutes=1)), id="it may still show up"),
        pytest.param(lost(is_live=True), id="its job looks for it"),
    ],
)
def test_a_listing_without_the_tenant_proves_nothing_by_itself(client: Owner) -> None:
    assert found(owners=(client,)) == NOTHING


def test_an_unrecorded_tenant_that_is_being_deleted_is_no_finding() -> None:
    leaving = seen(state=RemoteState.DELETING)
    assert found(leaving, owners=()) == NOTHING
    assert found(leaving, owners=(lost(),)) == NOTHING
    assert found(seen(), seen(OTHER, RemoteState.DELETING), owners=(owner(),)) == NOTHING


# -- what a provider shows --------------------------------------------------------------------


def test_a_tenant_without_a_client_is_an_orphan_that_a_fix_never_touches() -> None:
    assert found(seen(), owners=()) == [(FindingKind.ORPHAN, REF, None, True)]


def test_a_tenant_whose_client_has_one_elsewhere_is_an_orphan() -> None:
    elsewhere = owner(provider="postgres", recorded_ref="pgw_x", shown_ref="pgw_x")
    assert (FindingKind.ORPHAN, REF, None, True) in found(seen(), owners=(elsewhere,))


@pytest.mark.parametrize(
    ("client", "remedy"),
    [
        (lost(), Remedy.RETRY),
        # Not by itself: a person has stopped it.
        (lost(job_status="cancelled"), None),
        # Not by itself: another pgworker may have made it; adopting sets its password.
        (lost(create_was_sent=False, unanswered_for=None), None),
        (without_intent(), None),
        (without_intent(job_status="failed"), None),
    ],
)
@pytest.mark.parametrize(
    ("state", "kind"),
    [
        (RemoteState.COMPLETE, FindingKind.UNRECORDED),
        (RemoteState.UNFINISHED, FindingKind.HALF_MADE),
        (RemoteState.PARTIAL, FindingKind.HALF_MADE),
    ],
)
def test_an_unrecorded_tenant_is_adopted_by_a_fix_only_when_its_job_failed(
    client: Owner, remedy: Remedy | None, state: RemoteState, kind: FindingKind
) -> None:
    assert found(seen(state=state), owners=(client,)) == [(kind, REF, remedy, True)]


def test_of_two_projects_of_one_name_only_the_one_not_recorded_can_be_deleted() -> None:
    assert found(seen(), seen(OTHER), owners=(owner(),)) == [
        (FindingKind.DUPLICATE, OTHER, None, True)
    ]


def test_of_two_unrecorded_projects_a_person_chooses_one() -> None:
    both = [(FindingKind.DUPLICATE, REF, None, True), (FindingKind.DUPLICATE, OTHER, None, True)]
    assert found(seen(), seen(OTHER), owners=(lost(),)) == both
    assert found(seen(), seen(OTHER), owners=(without_intent(),)) == both


def test_two_projects_are_reported_while_a_job_is_live_and_neither_can_be_deleted() -> None:
    assert found(seen(), seen(OTHER), owners=(lost(is_live=True),)) == [
        (FindingKind.DUPLICATE, REF, None, False),
        (FindingKind.DUPLICATE, OTHER, None, False),
    ]


def test_of_two_refs_on_record_neither_can_be_deleted() -> None:
    reported = found(seen(), seen(OTHER), owners=(owner(shown_ref=OTHER),))
    assert reported == [
        (FindingKind.DUPLICATE, OTHER, None, False),
        (FindingKind.MISMATCH, REF, None, False),
    ]


@pytest.mark.parametrize("client", [owner(), owner(status="failed", job_status="failed")])
def test_a_recorded_tenant_that_the_provider_does_not_have_is_gone(client: Owner) -> None:
    assert found(owners=(client,), missing={REF: "404"}) == [(FindingKind.GONE, REF, None, False)]


@pytest.mark.parametrize("state", [RemoteState.DELETING, RemoteState.PARTIAL])
def test_a_recorded_tenant_that_is_partial_or_being_deleted_is_gone(state: RemoteState) -> None:
    assert found(seen(state=state), owners=(owner(),)) == [(FindingKind.GONE, REF, None, False)]


def test_a_recorded_tenant_that_is_open_to_others_is_half_made_and_not_deletable() -> None:
    unfinished = seen(state=RemoteState.UNFINISHED)
    assert found(unfinished, owners=(owner(),)) == [(FindingKind.HALF_MADE, REF, None, False)]


@pytest.mark.parametrize("clients", [(), (owner(),), (lost(),), (without_intent(),)])
def test_a_tenant_with_another_owner_is_never_fixed_nor_deleted(
    clients: tuple[Owner, ...],
) -> None:
    foreign = seen(state=RemoteState.FOREIGN)
    assert found(foreign, owners=clients) == [(FindingKind.FOREIGN, REF, None, False)]


@pytest.mark.parametrize("job_status", ["failed", "cancelled", None])
def test_a_create_without_a_visible_result_after_its_time_is_settled(
    job_status: str | None,
) -> None:
    assert found(owners=(lost(job_status=job_status),)) == [
        (FindingKind.UNANSWERED, None, Remedy.SETTLE, False)
    ]


# -- what the ledger alone shows --------------------------------------------------------------


@pytest.mark.parametrize(
    ("recorded", "shown", "remedy"),
    [
        (REF, None, Remedy.SHOW),
        (REF, OTHER, None),  # a person finds out which is right
        (None, OTHER, None),
    ],
)
def test_a_mismatch_of_client_and_ledger_is_reported_without_the_provider(
    recorded: str | None, shown: str | None, remedy: Remedy | None
) -> None:
    (reported,) = compare([], [owner(recorded_ref=recorded, shown_ref=shown)])
    assert (reported.kind, reported.ref, reported.remedy) == (
        FindingKind.MISMATCH,
        recorded,
        remedy,
    )


@pytest.mark.parametrize(
    ("provider", "secrets", "missing"),
    [
        ("supabase", {"db_password", "anon_key", "service_role_key"}, None),
        ("supabase", {"db_password", "anon_key"}, "secret_key or service_role_key"),
        ("supabase", {"publishable_key", "secret_key"}, "db_password"),
        ("postgres", {"db_password", "dsn"}, None),
        ("postgres", {"db_password"}, "dsn"),
    ],
)
def test_a_ready_client_without_the_secrets_of_its_tenant_is_reported(
    provider: str, secrets: set[str], missing: str | None
) -> None:
    reported = compare([], [owner(provider=provider, secrets=frozenset(secrets))])
    assert [(each.kind, f"no stored {missing}" in each.message) for each in reported] == (
        [] if missing is None else [(FindingKind.SECRETS_MISSING, True)]
    )
    assert compare([], [owner(status="failed", provider=provider, secrets=frozenset())]) == ()


# -- before and after -------------------------------------------------------------------------


def test_the_provider_is_asked_only_about_recorded_tenants_without_a_live_job() -> None:
    def asked(*owners: Owner, listed: tuple[RemoteTenant, ...] = ()) -> tuple[str, ...]:
        return find_unlisted("supabase", listed, owners)

    assert asked(owner()) == (REF,)
    assert asked(owner(recorded_ref=None)) == (REF,)
    assert asked(owner(), listed=(seen(),)) == ()
    for client in (
        owner(is_live=True),
        owner(status="deprovisioned"),
        owner(provider="postgres"),
        lost(),
    ):
        assert asked(client) == ()


def test_findings_have_one_order_the_worst_first() -> None:
    clients = (lost(), owner(id=UUID(int=1), name="Zeta", shown_ref=None, secrets=frozenset()))
    reported = compare([Snapshot("supabase", (seen(OTHER),))], clients)
    assert reported == compare([Snapshot("supabase", (seen(OTHER),))], clients[::-1])
    assert [each.kind for each in reported] == [
        FindingKind.UNRECORDED,
        FindingKind.MISMATCH,
        FindingKind.SECRETS_MISSING,
    ]


def test_no_ref_is_deletable_when_one_of_them_has_an_owner_or_is_unknown() -> None:
    findings = compare([Snapshot("supabase", (seen(), seen(OTHER)))], [owner()])
    (duplicate,) = findings
    assert choose_deletable(findings, [OTHER]) == [duplicate]
    gone = replace(duplicate, kind=FindingKind.GONE, ref=REF, is_deletable=False)
    for refs in ([REF], [OTHER, REF], [OTHER, "unknown"]):
        with pytest.raises(NotDeleted, match="nothing was deleted"):
            choose_deletable([*findings, gone], refs)


def test_a_refusal_to_delete_says_that_a_provider_was_not_inspected() -> None:
    uninspected: Finding = provider_not_inspected("supabase", "no answer")
    with pytest.raises(NotDeleted, match="supabase could not be inspected: no answer"):
        choose_deletable([uninspected], [REF])
