"""What an answer of the Management API means for the job: pure decisions, no I/O."""

from __future__ import annotations

import html
import json
import math
import re
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
    """The project or organisation that the request names isn't there (HTTP 404)."""


@dataclass(frozen=True, slots=True)
class Call:
    """One request as its errors tell of it.

    Attributes:
        scope: the project's ref or the organisation's slug; with the endpoint, the rate limit's
            bucket.
        credential: names the token without revealing it.
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
            is_crowded=self.endpoint.of_organization,
        )


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer, whole."""

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)


# The API tells of unpaid invoices and of the limit of free projects in prose, under 400 or 402 or
# 403 (which of them isn't documented).
_BILLING = re.compile(
    r"overdue|invoice|billing|payment|spend cap|quota exceeded|exceeded .{0,40}quota"
    r"|active free projects|free project|projects? limit|limit of .{0,40}projects"
    r"|maximum (number|amount) of .{0,40}projects|upgrade (your|the|to)",
    re.IGNORECASE,
)
_NAME_TAKEN = re.compile(r"already exists? in (your|this|the) organi[sz]ation", re.IGNORECASE)


def classify(call: Call, answer: Answer) -> JobError:
    """Return the error that an answer outside of 2xx means (docs/providers.md, Errors)."""
    status, endpoint = answer.status, call.endpoint
    message = read_message(answer.body, secrets=call.secrets)
    told = f"the Management API answered {status} to {call}: {message}"
    is_refusal = 400 <= status < 500

    if status == 429:
        return Throttled(told, retry_after(answer.headers))
    if status == 401:
        hint = "check SUPABASE_ACCESS_TOKEN"
        return CredentialRefused(f"{told}; {hint}", call.credential)
    tells_of_money = is_refusal and not endpoint.quotes_sql and _BILLING.search(message)
    if status == 402 or tells_of_money:
        return QuotaExceeded(f"{told}; settle it in the organisation's billing settings")
    if status == 403:
        lacking = f"the token may lack the permission {endpoint.permission}"
        if endpoint.is_basic:
            return CredentialRefused(f"{told}; {lacking}", call.credential)
        return Permanent(f"{told}; {lacking}: give it, then retry")
    is_about_name = status == 409 or (is_refusal and _NAME_TAKEN.search(message))
    if endpoint.creates_project and is_about_name:
        return NameTaken(f"{told}; it is looked up and adopted")
    if not is_refusal or status in {408, 425}:
        # Below 400 is a redirect (or stranger): of a POST it may be the page after the deed.
        return endpoint.unclear(told)
    if endpoint.creates_project and not _is_json(answer.body):
        # A gateway's page isn't the API's refusal: nobody says how far the request went.
        return OutcomeUnknown(told)
    if status in endpoint.not_ready:
        return Transient(told)
    if status == 404:
        return NotFound(told)
    return Permanent(told)


def lost(call: Call, reason: str, *, sent: bool) -> JobError:
    """Return the error for a request without an answer.

    Args:
        call: the request.
        reason: what happened, for a person.
        sent: False only when it is certain that no byte of the request left.
    """
    told = f"no answer from the Management API to {call}: {_one_line(reason, call.secrets)}"
    return call.endpoint.unclear(told) if sent else Transient(told)


def unreadable(call: Call, status: int, what: str) -> JobError:
    """Return the error for a 2xx whose body isn't what the contract promises."""
    return call.endpoint.unclear(
        f"the Management API answered {status} to {call} with an unusable body ({what})"
    )


def retry_after(headers: Mapping[str, str]) -> timedelta:
    """Return how long to wait after a 429, between one second and five minutes.

    Args:
        headers: by lower-case name, or a mapping that doesn't care.

    `X-RateLimit-Reset` holds the seconds left (not a time), `Retry-After` seconds or a date.
    """
    told = (_seconds(headers.get(name)) for name in ("x-ratelimit-reset", "retry-after"))
    wait = next((seconds for seconds in told if seconds is not None), DEFAULT_WAIT)
    return min(max(wait, timedelta(seconds=1)), LONGEST_WAIT)


def read_rate_limit(answer: Answer) -> RateLimit:
    """Return what an answer tells of its bucket; a 429 always tells how long it is empty."""
    headers, is_refusal = answer.headers, answer.status == 429
    return RateLimit(
        limit=_count(headers.get("x-ratelimit-limit")) or None,
        remaining=_count(headers.get("x-ratelimit-remaining")),
        reset=retry_after(headers) if is_refusal else _seconds(headers.get("x-ratelimit-reset")),
        is_refusal=is_refusal,
    )


def _count(text: str | None) -> int | None:
    # Longer ones are nobody's limit, and don't fit into a column.
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
    # A number beyond timedelta's range is capped by the caller anyway.
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
    """Return `message` as it came, with its line breaks and unscrubbed: only for taking apart."""
    try:
        answer = json.loads(body)
    except ValueError:
        return body.decode("utf-8", errors="replace")
    return _words(answer)


def _one_line(text: str, secrets: Iterable[str]) -> str:
    known = tuple(secrets)
    # Scrubbed before it is cut, so that no half of a secret stays; and once more with white space
    # folded on both sides, since a statement may come back on one line.
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
