"""An error's kind alone decides what becomes of its job."""

from __future__ import annotations

from datetime import timedelta

import pytest

from pgworker.errors import (
    CredentialRefused,
    DatabaseUnreachable,
    MigrationFailed,
    OutcomeUnknown,
    Permanent,
    QuotaExceeded,
    SmokeCheckFailed,
    Throttled,
    Transient,
)
from pgworker.models import ErrorKind, Failure, Snooze
from pgworker.queue.policy import after_bug, after_error


@pytest.mark.parametrize(
    ("error", "kind", "retry"),
    [
        (Transient("503"), ErrorKind.TRANSIENT, True),
        (OutcomeUnknown("504 on a create"), ErrorKind.UNKNOWN, True),
        (QuotaExceeded("two free projects"), ErrorKind.QUOTA, False),
        (Permanent("422"), ErrorKind.PERMANENT, False),
        (SmokeCheckFailed("no answer"), ErrorKind.PERMANENT, False),
        (MigrationFailed("syntax error", file="1_a.sql"), ErrorKind.PERMANENT, False),
    ],
)
def test_a_failure_of_this_kind_counts_and_is_retried_or_not(
    error: Transient, kind: ErrorKind, retry: bool
) -> None:
    assert after_error(error) == Failure(kind, str(error), retry=retry)


def test_a_throttled_job_waits_as_long_as_the_provider_says_without_an_attempt() -> None:
    outcome = after_error(Throttled("slow down", timedelta(seconds=42)))

    assert isinstance(outcome, Snooze)
    assert outcome.delay == timedelta(seconds=42)
    assert outcome.error_kind is ErrorKind.THROTTLED
    assert outcome.error == "slow down"


def test_a_refused_credential_parks_the_job_without_an_attempt() -> None:
    outcome = after_error(CredentialRefused("401", credential="token ab12"))

    assert isinstance(outcome, Snooze)
    assert outcome.error_kind is ErrorKind.AUTH
    assert outcome.credential == "token ab12"
    assert "credential" in outcome.reason


def test_an_outage_of_the_platforms_own_database_is_nobodys_attempt() -> None:
    outcome = after_error(DatabaseUnreachable("connection reset"))

    assert isinstance(outcome, Snooze)
    assert outcome.error_kind is None


def test_a_bug_is_retried_and_its_text_stays_in_the_log() -> None:
    outcome = after_bug(KeyError("a secret that was a key"))

    assert outcome.retry
    assert outcome.kind is ErrorKind.TRANSIENT
    assert "KeyError" in outcome.error
    assert "secret" not in outcome.error
