"""The SQL that applying a migration sends to a tenant. Pure text, built for one call each.

Everything fits in one call because the Management API keeps no session between two of them.
"""

from __future__ import annotations

import re
import secrets
from base64 import b64encode
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from pgworker.db.queries import load
from pgworker.schema.splitter import LineFinder

if TYPE_CHECKING:
    from pgworker.schema.grammar import ConcurrentIndex
    from pgworker.schema.migrations import Migration


class TenantSchemaQueries(NamedTuple):
    """The statements of `sql/queries/tenant_schema.sql`, which run in a tenant."""

    reset_session: str
    open_transaction: str
    create_history: str
    read_history: str
    record: str
    run_marked: str
    close_transaction: str
    find_invalid_indexes: str


_COMMENTS: Final = re.compile(r"^--.*\n|[ \t]*-- noqa.*$", re.MULTILINE)
# Without their comments: a person who looks at pg_stat_activity in a tenant sees the first kilobyte
# of a script, and looks for the migration.
QUERIES: Final = TenantSchemaQueries._make(
    _COMMENTS.sub("", block) for block in load(TenantSchemaQueries, "queries/tenant_schema.sql")
)

READ_HISTORY: Final = QUERIES.read_history
RESET_SESSION: Final = QUERIES.reset_session
CREATE_HISTORY: Final = (
    f"{QUERIES.open_transaction.format(characteristics='')}\n{QUERIES.create_history}\n"
)
# The role's own time-out is for queries; an index is built for as long as it takes.
NO_TIMEOUT: Final = "set statement_timeout = 0"

_MARK: Final = re.compile(r"pgworker statement (\d+): ")


@dataclass(frozen=True, slots=True)
class Place:
    """A place in a file; statement and line count from 1, None when they aren't known."""

    statement: int | None = None
    line: int | None = None


def quote(text: str) -> str:
    """Return the text as a literal that is right in every session, whatever the text holds."""
    tag = _free_tag(text)
    return f"{tag}{text}{tag}"


def fill(block: str, **values: object) -> str:
    """Return a block with its places filled; no value can end a body quoted by `$body$`."""
    tag = _free_tag("".join(map(str, values.values())))
    return block.replace("$body$", tag).format(**values)


def _free_tag(text: str) -> str:
    # A random tag: the text can't end it, and standard_conforming_strings doesn't matter.
    tag = f"$pgw{secrets.token_hex(4)}$"
    while tag in text:
        tag = f"$pgw{secrets.token_hex(4)}$"
    return tag


def build_row_insert(migration: Migration) -> str:
    """Return the insert of the migration's row."""
    return QUERIES.record.format(
        version=quote(migration.version),
        name=quote(migration.name),
        statements=", ".join(map(_encode, migration.recorded_statements)),
    )


def _encode(text: str) -> str:
    # Not as a literal: the server points at an error in a function's body only when the text that
    # it was sent holds that body once.
    return f"convert_from(decode('{b64encode(text.encode()).decode()}', 'base64'), 'UTF8')"


def build_transaction_head(migration: Migration) -> str:
    """Return the part of the script before the file's text.

    The row comes first, though the CLI writes it last. Both are in one transaction anyway; but so a
    `set role` or `search_path` of the file can't harm it, and of two syncs the second fails on the
    key before it has run a statement of the file.
    """
    characteristics = "\n".join(f"{each.text};" for each in migration.characteristics)
    opened = QUERIES.open_transaction.format(characteristics=characteristics)
    return f"{opened}\n{build_row_insert(migration)}\n"


def build_transaction(migration: Migration) -> str:
    """Return the script that applies the file and writes its row, or does neither."""
    script = f"{build_transaction_head(migration)}{_blank_characteristics(migration)}"
    # On a line of its own: the file may end in a comment, or without a semicolon.
    return f"{script}\n;\n{QUERIES.close_transaction}\n"


def _blank_characteristics(migration: Migration) -> str:
    """Return the file's text, with blanks in place of its characteristics: offsets stay."""
    end = max((each.end for each in migration.characteristics), default=0)
    return re.sub(r"[^\n]", " ", migration.text[:end]) + migration.text[end:]


def build_trial(migration: Migration) -> str:
    """Return a script that finds the failing statement and never commits.

    Each statement runs in a `do` block that adds the statement's number to its error: `read_mark`
    reads it.
    """
    statements = "\n".join(
        fill(QUERIES.run_marked, statement=quote(statement.text), number=number)
        for number, statement in enumerate(migration.statements, start=1)
        if statement not in migration.characteristics
    )
    return f"{build_transaction_head(migration)}{statements}\nrollback;\n"


def read_mark(message: str) -> int | None:
    """Return the number of the statement that failed in a trial; None when there is none."""
    match = _MARK.match(message)
    return None if match is None else int(match[1])


def find_place(migration: Migration, offset: int) -> Place:
    """Return the place of a character of the file's text."""
    # The server points behind the text when it expected more.
    within = max(0, min(offset, len(migration.text.rstrip()) - 1))
    started = sum(statement.start <= within for statement in migration.statements)
    return Place(statement=max(1, started), line=LineFinder(migration.text)(within))


def build_index_search(index: ConcurrentIndex) -> str:
    """Return a query for the indexes that failed or running builds have left on the table."""
    return QUERIES.find_invalid_indexes.format(table=quote(index.table))
