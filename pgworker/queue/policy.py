"""Decides what becomes of a job whose phase raised an error. Pure; nothing else decides it."""

from __future__ import annotations

from datetime import timedelta

from pgworker.errors import (
    CredentialRefused,
    DatabaseUnreachable,
    JobError,
    ResultRefused,
    Throttled,
)
from pgworker.models import CREDENTIAL_RECHECK, ErrorKind, Failure, Snooze, Transition

# Soon, because the worker itself may have reached its database again by then.
DATABASE_RECHECK = timedelta(seconds=2)

# The phase that is run again after UNKNOWN looks first whether the request took effect.
_RETRIED = frozenset({ErrorKind.TRANSIENT, ErrorKind.UNKNOWN})


def after_error(error: JobError | DatabaseUnreachable) -> Transition:
    """Return what becomes of a job whose phase raised this."""
    if isinstance(error, DatabaseUnreachable):
        # Not an attempt: our own outage says nothing about the client's work.
        return Snooze(DATABASE_RECHECK, reason="the platform's database to answer again")
    message = str(error)
    if isinstance(error, Throttled):
        return Snooze(
            error.retry_after,
            reason="the provider's rate limit",
            error_kind=ErrorKind.THROTTLED,
            error=message,
        )
    if error.kind is ErrorKind.AUTH:
        credential = error.credential if isinstance(error, CredentialRefused) else None
        return Snooze.for_credential(CREDENTIAL_RECHECK, credential=credential, error=message)
    return Failure(error.kind, message, retry=error.kind in _RETRIED)


def after_bug(error: Exception) -> Failure:
    """Return what becomes of a job whose phase raised an error that pgworker doesn't define."""
    # Without the error's text: it may hold a secret, and the row is shown to people.
    return Failure(
        ErrorKind.TRANSIENT, f"unexpected {type(error).__name__} (see the worker's log)", retry=True
    )


def after_refused_result(error: ResultRefused) -> Failure:
    """Return what becomes of a job whose result can't be stored."""
    kind = ErrorKind.TRANSIENT if error.may_pass else ErrorKind.PERMANENT
    return Failure(kind, str(error), retry=error.may_pass)
