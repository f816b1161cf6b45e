"""Why pgworker can't work with what is there, in one line."""

from __future__ import annotations

from typing import Literal, NamedTuple


class Objection(NamedTuple):
    """Its fields are the keys of `pgworker db migrate --dry-run --json`.

    Attributes:
        subject: a column, the table, a key, a policy, a role.
        found: what it is.
        needed: what pgworker needs.
        advice: what to do, mostly the very SQL.
        about: the table (and what hangs on it), our rights, or row level security.
    """

    subject: str
    found: str
    needed: str
    advice: str
    about: Literal["table", "rights", "security"] = "table"

    def __str__(self) -> str:
        return f"{self.subject} {self.found}; pgworker needs {self.needed} ({self.advice})"


def quoted(name: str) -> str:
    """Return the name as an identifier of SQL."""
    return '"' + name.replace('"', '""') + '"'
