"""Takes secrets out of text that is stored, logged or shown."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

HIDDEN = "[hidden]"

# What looks like a credential, wherever it comes from.
_CREDENTIALS: Final = (
    (re.compile(r"\b(sbp|sb_secret|sb_publishable|sbp_oauth)_[\w-]+"), HIDDEN),
    (re.compile(r"\beyJ[\w-]+\.[\w-]+\.[\w-]*"), HIDDEN),
    (re.compile(r"(?i)\bbearer\s+\S+"), f"Bearer {HIDDEN}"),
    # To the last @: a password that isn't escaped may hold one itself.
    (re.compile(r"(\w+://[^\s:/@]*):\S+@"), rf"\1:{HIDDEN}@"),
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


def scrub(text: str, secrets: Iterable[str] = ()) -> str:
    """Return the text without these secrets and without anything that looks like a credential."""
    # The longest first: a DSN holds the password.
    for secret in sorted(filter(None, secrets), key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    for pattern, replacement in _CREDENTIALS:
        text = pattern.sub(replacement, text)
    return text
