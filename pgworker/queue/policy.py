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

DATABASE_RECHECK = timedelta(seconds=2)

_RETRIED = frozenset({ErrorKind.TRANSIENT, ErrorKind.UNKNOWN})


def after_error(error: JobError | DatabaseUnreachable) -> Transition:
    """Return what becomes of a job whose phase raised this."""
    if isinstance(error, DatabaseUnreachable):
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
    return Failure(
        ErrorKind.TRANSIENT, f"unexpected {type(error).__name__} (see the worker's log)", retry=True
    )


def after_refused_result(error: ResultRefused) -> Failure:
    """Return what becomes of a job whose result can't be stored."""
    kind = ErrorKind.TRANSIENT if error.may_pass else ErrorKind.PERMANENT
    return Failure(kind, str(error), retry=error.may_pass)
