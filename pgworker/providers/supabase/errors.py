"""What an answer of the Management API means for the job: pure decisions, no I/O."""

from __future__ import annotations

import html
import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Final

from pgworker.errors import (
    CredentialRefused,
    JobError,
    OutcomeUnknown,
    Permanent,
    QuotaExceeded,
    Throttled,
    Transient,
)
from pgworker.providers.rate_limits import Bucket, RateLimit
from pgworker.tenants.redaction import scrub

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pgworker.providers.supabase.endpoints import Endpoint

MESSAGE_LIMIT: Final = 300
DEFAULT_WAIT: Final = timedelta(seconds=30)
LONGEST_WAIT: Final = timedelta(minutes=5)


class NameTaken(OutcomeUnknown):
    """The organisation already has a project of that name: look it up and adopt it."""


class NotFound(Permanent):
    """The project or organisation of the request doesn't exist (HTTP 404)."""


@dataclass(frozen=True, slots=True)
class ApiCall:
    """One request, as its errors describe it.

    Attributes:
        scope: the project's ref or the organisation's slug; with the endpoint, the rate limit's
            bucket.
        credential: identifies the token without revealing it.
        secrets: what must not appear in a message: passwords, keys, the token, statements.
    """

    endpoint: Endpoint
    scope: str
    credential: str
    secrets: tuple[str, ...] = field(default=(), repr=False)

    def __str__(self) -> str:
        return str(self.bucket)

    @property
    def bucket(self) -> Bucket:
        """What the API counts this request by."""
        return Bucket(
            self.credential,
            self.scope,
            str(self.endpoint),
            is_contended=self.endpoint.of_organization,
        )


@dataclass(frozen=True, slots=True)
class ApiAnswer:
    """An HTTP answer, complete."""

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)


# -- answers outside of 2xx -------------------------------------------------------------------

# Unpaid invoices and the limit of free projects come as prose, with 400, 402 or 403; which of them
# isn't documented.
_BILLING = re.compile(
    r"overdue|invoice|billing|payment|spend cap|quota exceeded|exceeded .{0,40}quota"
    r"|active free projects|free project|projects? limit|limit of .{0,40}projects"
    r"|maximum (number|amount) of .{0,40}projects|upgrade (your|the|to)",
    re.IGNORECASE,
)
_NAME_TAKEN = re.compile(r"already exists? in (your|this|the) organi[sz]ation", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class _Refusal:
    """An answer outside of 2xx, with what the rules below ask about it.

    Attributes:
        message: the answer's own words.
        text: the error's message, which ends in them.
    """

    call: ApiCall
    answer: ApiAnswer
    message: str
    text: str

    @property
    def endpoint(self) -> Endpoint:
        return self.call.endpoint

    @property
    def status(self) -> int:
        return self.answer.status

    @property
    def is_4xx(self) -> bool:
        return 400 <= self.status < 500

    @property
    def is_about_money(self) -> bool:
        return self.status == 402 or bool(
            self.is_4xx and not self.endpoint.quotes_sql and _BILLING.search(self.message)
        )

    @property
    def is_about_name(self) -> bool:
        is_conflict = self.status == 409 or (self.is_4xx and _NAME_TAKEN.search(self.message))
        return bool(self.endpoint.creates_project and is_conflict)

    @property
    def has_no_clear_outcome(self) -> bool:
        # Below 400 is a redirect, or stranger: after a POST it may be the page of a success.
        return not self.is_4xx or self.status in {408, 425}

    @property
    def is_of_gateway(self) -> bool:
        # A gateway's page isn't the API's refusal: it doesn't say how far a create went.
        return self.endpoint.creates_project and not _is_json(self.answer.body)


def _refuse_token(refusal: _Refusal) -> JobError:
    return CredentialRefused(
        f"{refusal.text}; check SUPABASE_ACCESS_TOKEN", refusal.call.credential
    )


def _refuse_permission(refusal: _Refusal) -> JobError:
    lacking = f"{refusal.text}; the token may lack the permission {refusal.endpoint.permission}"
    if refusal.endpoint.is_basic:
        return CredentialRefused(lacking, refusal.call.credential)
    return Permanent(f"{lacking}: give it, then retry")


# The first rule that applies decides.
_RULES: Final[tuple[tuple[Callable[[_Refusal], bool], Callable[[_Refusal], JobError]], ...]] = (
    (lambda it: it.status == 429, lambda it: Throttled(it.text, retry_after(it.answer.headers))),
    (lambda it: it.status == 401, _refuse_token),
    (
        lambda it: it.is_about_money,
        lambda it: QuotaExceeded(f"{it.text}; settle it in the organisation's billing settings"),
    ),
    (lambda it: it.status == 403, _refuse_permission),
    (
        lambda it: it.is_about_name,
        lambda it: NameTaken(f"{it.text}; it is looked up and adopted"),
    ),
    (lambda it: it.has_no_clear_outcome, lambda it: it.endpoint.unclear(it.text)),
    (lambda it: it.is_of_gateway, lambda it: OutcomeUnknown(it.text)),
    (lambda it: it.status in it.endpoint.not_ready, lambda it: Transient(it.text)),
    (lambda it: it.status == 404, lambda it: NotFound(it.text)),
    (lambda _: True, lambda it: Permanent(it.text)),
)


def classify(call: ApiCall, answer: ApiAnswer) -> JobError:
    """Return the error that an answer outside of 2xx means (docs/providers.md, Errors)."""
    message = read_message(answer.body, secrets=call.secrets)
    text = f"the Management API answered {answer.status} to {call}: {message}"
    refusal = _Refusal(call, answer, message, text)
    return next(make_error(refusal) for applies_to, make_error in _RULES if applies_to(refusal))


def lost(call: ApiCall, reason: str, *, sent: bool) -> JobError:
    """Return the error for a request without an answer.

    Args:
        call: the request.
        reason: what happened, for a person.
        sent: False only when it is certain that no byte of the request left.
    """
    text = f"no answer from the Management API to {call}: {_one_line(reason, call.secrets)}"
    return call.endpoint.unclear(text) if sent else Transient(text)


def unreadable(call: ApiCall, status: int, what: str) -> JobError:
    """Return the error for a 2xx whose body isn't what the contract promises."""
    return call.endpoint.unclear(
        f"the Management API answered {status} to {call} with an unusable body ({what})"
    )


# -- headers ----------------------------------------------------------------------------------


def retry_after(headers: Mapping[str, str]) -> timedelta:
    """Return how long to wait after a 429, between one second and five minutes.

    Args:
        headers: by lower-case name, or a mapping that ignores case.

    `X-RateLimit-Reset` holds the seconds left (not a time), `Retry-After` seconds or a date.
    """
    waits = (_seconds(headers.get(name)) for name in ("x-ratelimit-reset", "retry-after"))
    wait = next((seconds for seconds in waits if seconds is not None), DEFAULT_WAIT)
    return min(max(wait, timedelta(seconds=1)), LONGEST_WAIT)


def read_rate_limit(answer: ApiAnswer) -> RateLimit:
    """Return what an answer reports about its bucket; a 429 always reports how long it is empty."""
    headers, is_refusal = answer.headers, answer.status == 429
    return RateLimit(
        limit=_count(headers.get("x-ratelimit-limit")) or None,
        remaining=_count(headers.get("x-ratelimit-remaining")),
        reset=retry_after(headers) if is_refusal else _seconds(headers.get("x-ratelimit-reset")),
        is_refusal=is_refusal,
    )


def _count(text: str | None) -> int | None:
    # A longer number is no limit, and wouldn't fit into the column.
    return int(text) if text is not None and re.fullmatch("[0-9]{1,9}", text) else None


def _seconds(text: str | None) -> timedelta | None:
    if not text:
        return None
    try:
        seconds = float(text)
    except ValueError:
        try:
            moment = parsedate_to_datetime(text)
        except ValueError:
            return None
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        seconds = (moment - datetime.now(UTC)).total_seconds()
    if not math.isfinite(seconds) or seconds < 0:
        return None
    # Above timedelta's range; the caller's limit is far lower.
    return timedelta(seconds=min(seconds, 1e6))


# -- messages ---------------------------------------------------------------------------------


def read_message(body: bytes, *, secrets: Iterable[str] = ()) -> str:
    """Return the answer's own words: one line of at most 300 characters, without secrets.

    The body may be JSON with a `message` (a text or a list), plain text, HTML or empty.
    """
    text = body.decode("utf-8", errors="replace")
    try:
        words = _words(json.loads(text))
    except ValueError:
        words = _without_markup(text)
    return _one_line(words, secrets) or "no message"


def raw_message(body: bytes) -> str:
    """Return `message` as it came, with line breaks and unscrubbed: to be parsed, never shown."""
    try:
        answer = json.loads(body)
    except ValueError:
        return body.decode("utf-8", errors="replace")
    return _words(answer)


def _one_line(text: str, secrets: Iterable[str]) -> str:
    known = tuple(secrets)
    # Scrubbed before it is cut, so that no half of a secret stays; and again with white space
    # folded on both sides, because a statement may come back on one line.
    folded = " ".join(scrub(text, known).split())
    folded = scrub(folded, [" ".join(secret.split()) for secret in known])
    return folded if len(folded) <= MESSAGE_LIMIT else folded[: MESSAGE_LIMIT - 1] + "…"


def _words(answer: Any) -> str:
    if isinstance(answer, str):
        return answer
    if isinstance(answer, list):
        return "; ".join(filter(None, map(_words, answer)))
    if isinstance(answer, dict):
        for name in ("message", "msg", "error_description", "error", "errors"):
            words = _words(answer.get(name))
            if words:
                return words
    return ""


def _without_markup(text: str) -> str:
    text = re.sub(r"(?is)<(script|style)\b.*?</\1>", " ", text)
    return html.unescape(re.sub(r"<[^>]*>", " ", text))


def _is_json(body: bytes) -> bool:
    try:
        return isinstance(json.loads(body), dict | list)
    except ValueError:
        return False
