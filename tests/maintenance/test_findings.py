"""What doesn't fit between a provider and the ledger, by table."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from pgworker.errors import NotDeleted
from pgworker.maintenance.comparison import compare, unlisted
from pgworker.maintenance.findings import (
    Finding,
    FindingKind,
    Look,
    Owner,
    Remedy,
    choose_deletable,
    unseen,
)
from pgworker.providers.base import RemoteState, RemoteTenant

ACME = UUID("0b54e3a2-7c1d-4a1e-9f00-1234567890ab")
NAME = f"pgworker-{ACME}"
REF, OTHER = "a" * 20, "b" * 20
SECRETS = frozenset({"db_password", "publishable_key", "secret_key"})

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
        "was_begun": True,
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


def unmeant(**changes: Any) -> Owner:
    """A client for whom nothing was ever meant."""
    values: dict[str, Any] = {
        "provider": None,
        "tenant_name": None,
        "was_begun": False,
        "unanswered_for": None,
        "job_status": None,
    }
    return lost(**values | changes)


def seen(ref: str = REF, state: RemoteState = RemoteState.COMPLETE) -> RemoteTenant:
    return RemoteTenant(ref, NAME, ACME, state, f"project {ref}")


def found(
    *tenants: RemoteTenant, owners: tuple[Owner, ...], gone: dict[str, str] | None = None
) -> list[tuple[FindingKind, str | None, Remedy | None, bool]]:
    look = Look("supabase", tenants, gone or {}, settles_after=timedelta(minutes=2))
    return [
        (each.kind, each.ref, each.remedy, each.is_deletable) for each in compare([look], owners)
    ]


# -- nothing is amiss -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "client",
    [
        pytest.param(lost(is_live=True, job_status="waiting"), id="its job sleeps or works"),
        pytest.param(unmeant(is_live=True, job_status="queued"), id="its job comes to it"),
        pytest.param(owner(), id="it is recorded"),
        pytest.param(owner(provider=None, tenant_name=None), id="only the client shows it"),
        pytest.param(owner(status="deprovisioned"), id="its client is off-boarded"),
    ],
)
def test_a_tenant_whose_client_knows_it_or_is_about_to_is_nothing(client: Owner) -> None:
    assert found(seen(), owners=(client,)) == NOTHING


@pytest.mark.parametrize(
    "client",
    [
        pytest.param(owner(), id="not asked for, or answered otherwise"),
        pytest.param(owner(is_live=True), id="its job looks for itself"),
        pytest.param(owner(status="deprovisioning"), id="meant to go"),
        pytest.param(unmeant(), id="nothing was meant"),
        pytest.param(lost(unanswered_for=None), id="its create was refused"),
        pytest.param(lost(unanswered_for=timedelta(minutes=1)), id="it may still show up"),
        pytest.param(lost(is_live=True), id="somebody looks for it"),
    ],
)
def test_a_listing_without_the_tenant_proves_nothing_by_itself(client: Owner) -> None:
    assert found(owners=(client,)) == NOTHING


def test_what_is_being_deleted_and_recorded_nowhere_is_left_to_go() -> None:
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
        (lost(was_begun=False, unanswered_for=None), None),
        (unmeant(), None),
        (unmeant(job_status="failed"), None),
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
def test_what_was_made_and_not_recorded_is_put_in_line_only_when_its_job_failed(
    client: Owner, remedy: Remedy | None, state: RemoteState, kind: FindingKind
) -> None:
    assert found(seen(state=state), owners=(client,)) == [(kind, REF, remedy, True)]


def test_of_two_projects_of_one_name_only_the_one_not_recorded_can_be_deleted() -> None:
    assert found(seen(), seen(OTHER), owners=(owner(),)) == [
        (FindingKind.DUPLICATE, OTHER, None, True)
    ]


def test_of_two_projects_none_of_them_recorded_a_person_chooses() -> None:
    both = [(FindingKind.DUPLICATE, REF, None, True), (FindingKind.DUPLICATE, OTHER, None, True)]
    assert found(seen(), seen(OTHER), owners=(lost(),)) == both
    assert found(seen(), seen(OTHER), owners=(unmeant(),)) == both


def test_two_projects_are_told_while_a_job_lives_and_then_none_can_be_deleted() -> None:
    assert found(seen(), seen(OTHER), owners=(lost(is_live=True),)) == [
        (FindingKind.DUPLICATE, REF, None, False),
        (FindingKind.DUPLICATE, OTHER, None, False),
    ]


def test_of_two_refs_on_record_neither_can_be_deleted() -> None:
    told = found(seen(), seen(OTHER), owners=(owner(shown_ref=OTHER),))
    assert told == [
        (FindingKind.DUPLICATE, OTHER, None, False),
        (FindingKind.MISMATCH, REF, None, False),
    ]


@pytest.mark.parametrize("client", [owner(), owner(status="failed", job_status="failed")])
def test_a_recorded_tenant_that_is_asked_for_and_not_there_is_gone(client: Owner) -> None:
    assert found(owners=(client,), gone={REF: "404"}) == [(FindingKind.GONE, REF, None, False)]


@pytest.mark.parametrize("state", [RemoteState.DELETING, RemoteState.PARTIAL])
def test_a_recorded_tenant_of_which_little_is_left_is_gone(state: RemoteState) -> None:
    assert found(seen(state=state), owners=(owner(),)) == [(FindingKind.GONE, REF, None, False)]


def test_a_recorded_tenant_that_stands_open_is_half_made_and_nobodys_to_delete() -> None:
    unfinished = seen(state=RemoteState.UNFINISHED)
    assert found(unfinished, owners=(owner(),)) == [(FindingKind.HALF_MADE, REF, None, False)]


@pytest.mark.parametrize("clients", [(), (owner(),), (lost(),), (unmeant(),)])
def test_what_belongs_to_somebody_else_is_never_mended_nor_deleted(
    clients: tuple[Owner, ...],
) -> None:
    foreign = seen(state=RemoteState.FOREIGN)
    assert found(foreign, owners=clients) == [(FindingKind.FOREIGN, REF, None, False)]


@pytest.mark.parametrize("job_status", ["failed", "cancelled", None])
def test_a_create_that_nothing_shows_of_after_its_time_is_settled(job_status: str | None) -> None:
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
def test_client_and_ledger_that_differ_are_told_without_a_look_at_the_provider(
    recorded: str | None, shown: str | None, remedy: Remedy | None
) -> None:
    (told,) = compare([], [owner(recorded_ref=recorded, shown_ref=shown)])
    assert (told.kind, told.ref, told.remedy) == (FindingKind.MISMATCH, recorded, remedy)


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
def test_a_ready_client_without_the_keys_of_its_tenant_is_told(
    provider: str, secrets: set[str], missing: str | None
) -> None:
    told = compare([], [owner(provider=provider, secrets=frozenset(secrets))])
    assert [(each.kind, f"no {missing} stored" in each.message) for each in told] == (
        [] if missing is None else [(FindingKind.SECRETS_MISSING, True)]
    )
    assert compare([], [owner(status="failed", provider=provider, secrets=frozenset())]) == ()


# -- before and after -------------------------------------------------------------------------


def test_only_recorded_tenants_that_nobody_looks_after_are_asked_for() -> None:
    def asked(*owners: Owner, listed: tuple[RemoteTenant, ...] = ()) -> tuple[str, ...]:
        return unlisted("supabase", listed, owners)

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


def test_findings_stand_in_one_order_the_worst_first() -> None:
    clients = (lost(), owner(id=UUID(int=1), name="Zeta", shown_ref=None, secrets=frozenset()))
    told = compare([Look("supabase", (seen(OTHER),))], clients)
    assert told == compare([Look("supabase", (seen(OTHER),))], clients[::-1])
    assert [each.kind for each in told] == [
        FindingKind.UNRECORDED,
        FindingKind.MISMATCH,
        FindingKind.SECRETS_MISSING,
    ]


def test_nothing_is_chosen_for_deletion_when_one_of_the_refs_has_an_owner_or_is_unknown() -> None:
    findings = compare([Look("supabase", (seen(), seen(OTHER)))], [owner()])
    (duplicate,) = findings
    assert choose_deletable(findings, [OTHER]) == [duplicate]
    gone = replace(duplicate, kind=FindingKind.GONE, ref=REF, is_deletable=False)
    for refs in ([REF], [OTHER, REF], [OTHER, "unheard"]):
        with pytest.raises(NotDeleted, match="nothing was deleted"):
            choose_deletable([*findings, gone], refs)


def test_a_refusal_to_delete_says_that_a_provider_was_not_looked_at() -> None:
    blind: Finding = unseen("supabase", "no answer")
    with pytest.raises(NotDeleted, match="supabase could not be looked at: no answer"):
        choose_deletable([blind], [REF])
