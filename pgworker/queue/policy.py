"""Error to what becomes of the job. Pure; nothing else decides it."""

from __future__ import annotations

from datetime import timedelta

from pgworker.errors import CredentialRefused, DatabaseUnreachable, JobError, Throttled
from pgworker.models import ErrorKind, Failure, Snooze, Transition

# While a breaker is open its jobs are woken when it closes; this is for when nobody does.
AUTH_RECHECK = timedelta(seconds=30)
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
        return Snooze.for_credential(AUTH_RECHECK, credential=credential, error=message)
    return Failure(error.kind, message, retry=error.kind in _RETRIED)


def after_bug(error: Exception) -> Failure:
    """Return what becomes of a job whose phase raised what nobody foresaw."""
    return Failure(
        ErrorKind.TRANSIENT, f"unexpected {type(error).__name__} (see the worker's log)", retry=True
    )
