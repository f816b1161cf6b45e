"""Takes secrets out of text that is stored, logged or shown, and cuts it to a bounded length.

Text from outside may be of any length and of any shape: a tenant's exception is an answer to us.
Whatever is done here takes time in proportion to `LIMIT`, not to the text.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

HIDDEN = "[hidden]"
# Characters of a text that are kept: enough for a message, few enough for a row, an event and a
# line of the log each.
LIMIT: Final = 4096
# Longer than any secret. A secret that begins in the part that is kept ends in this margin, so
# that it is seen whole.
_MARGIN: Final = 4096

# What looks like a credential, wherever it comes from. Each pattern starts only where a word can
# start, and never looks at a character twice from two starts: a pattern that does takes seconds for
# 40,000 letters.
_CREDENTIALS: Final = (
    (re.compile(r"\b(sbp|sb_secret|sb_publishable|sbp_oauth)_[\w-]+"), HIDDEN),
    (re.compile(r"(?<![\w-])eyJ[\w-]+(?:\.[\w-]*)+"), HIDDEN),
    (re.compile(r"(?i)\bbearer\s+\S+"), f"Bearer {HIDDEN}"),
    # Without a boundary in front: db_password, PGPASSWORD, sslpassword.
    (
        re.compile(
            r"""(?i)((?:db_pass|password)["']?\s*[:=]\s*)(?:"[^"]*"|'[^']*'|["']?[^\s"',}]+)"""
        ),
        rf"\1{HIDDEN}",
    ),
    # As in `alter role … password '…'`.
    (re.compile(r"""(?i)(password\s+)'[^']*'"""), rf"\1{HIDDEN}"),
)
_WORD: Final = re.compile(r"\S+")


def scrub(text: str, secrets: Iterable[str] = ()) -> str:
    """Return the text without these secrets and without anything that looks like a credential.

    Of a text longer than `LIMIT` characters the head and the tail remain.
    """
    known = sorted(filter(None, secrets), key=len, reverse=True)
    kept = LIMIT // 2
    window = kept + _MARGIN
    if len(text) <= 2 * window:
        return _shorten(_hide(text, known))
    head, tail = _hide(text[:window], known), _hide(text[-window:], known)
    return f"{head[:-_MARGIN][:kept]}{_note(len(text))}{tail[_MARGIN:][-kept:]}"


def _shorten(text: str) -> str:
    if len(text) <= LIMIT:
        return text
    return f"{text[: LIMIT // 2]}{_note(len(text))}{text[-LIMIT // 2 :]}"


def _note(length: int) -> str:
    return f" [… cut: {length} characters …] "


def _hide(text: str, secrets: Iterable[str]) -> str:
    # The longest first: a DSN holds the password.
    for secret in secrets:
        text = text.replace(secret, HIDDEN)
    text = _WORD.sub(_hide_password_of_url, text)
    for pattern, replacement in _CREDENTIALS:
        text = pattern.sub(replacement, text)
    return text


def _hide_password_of_url(match: re.Match[str]) -> str:
    """Hide what stands between `scheme://user:` and the word's last @.

    To the last one: a password that isn't escaped may hold an @ itself.
    """
    word = match[0]
    at = word.rfind("@")
    start = word.find("://")
    while 0 < start < at:
        end_of_user = min(i for each in ":/@" if (i := word.find(each, start + 3)) >= 0)
        if word[end_of_user] == ":" and end_of_user + 1 < at:
            return f"{word[:end_of_user]}:{HIDDEN}{word[at:]}"
        start = word.find("://", start + 3)
    return word
