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
from pgworker.schema.splitter import LineFinder, split

if TYPE_CHECKING:
    from pgworker.schema.grammar import ConcurrentIndex
    from pgworker.schema.migrations import Migration

# One sync of a tenant at a time. The number is "pgworker" in ASCII; advisory locks belong to a
# database, so that tenants on the same server don't wait for each other.
LOCK_KEY: Final = int.from_bytes(b"pgworker")

# What a file has SET would leak into the next one on the same session.
RESET_SESSION: Final = "reset all;"


class TenantSchemaQueries(NamedTuple):
    """The statements of `sql/queries/tenant_schema.sql`, which run in a tenant."""

    create_history: str
    read_history: str
    keep_role: str
    restore_role: str
    reload_api_schema: str
    find_invalid_index: str


QUERIES: Final = load(TenantSchemaQueries, "queries/tenant_schema.sql")

READ_HISTORY: Final = QUERIES.read_history

# The lock time-out is that of Supabase's CLI. It doesn't hold for our own lock: another sync may
# be in the middle of a long file.
CREATE_HISTORY: Final = f"""\
begin;
{RESET_SESSION}
select pg_advisory_xact_lock({LOCK_KEY});
set local lock_timeout = '4s';
{QUERIES.create_history}
commit;
"""

_MARK: Final = re.compile(r"pgworker statement (\d+): ")


@dataclass(frozen=True, slots=True)
class Place:
    """Where in a file something happened; statement and line count from 1."""

    statement: int | None = None
    line: int | None = None


def quote(text: str) -> str:
    """Return the text as a literal, whatever it holds and however the session is set."""
    # A random tag: the text can't end it, and standard_conforming_strings doesn't matter.
    tag = f"$pgw{secrets.token_hex(4)}$"
    while tag in text:
        tag = f"$pgw{secrets.token_hex(4)}$"
    return f"{tag}{text}{tag}"


def record(migration: Migration) -> str:
    """Return the insert of the migration's row; the key makes a second one fail, as it should."""
    statements = ", ".join(_encoded(statement) for statement in migration.recorded_statements)
    return (
        "insert into supabase_migrations.schema_migrations (version, name, statements) values "
        f"({quote(migration.version)}, {quote(migration.name)}, array[{statements}]::text[]);"
    )


def _encoded(text: str) -> str:
    # Not as a literal: the server points at an error in a function's body only when it finds that
    # body once in what it was sent.
    return f"convert_from(decode('{b64encode(text.encode()).decode()}', 'base64'), 'UTF8')"


def transaction_head(migration: Migration) -> str:
    """Return what stands before the file's text in its script.

    The row comes first, though the CLI writes it last. In here both are the same transaction; but a
    `set role` or `search_path` of the file can't spoil it, and of two syncs the second fails on the
    key before it has run a statement of the file.
    """
    return (
        f"begin;\n{RESET_SESSION}\n{QUERIES.keep_role}\n"
        f"select pg_advisory_xact_lock({LOCK_KEY});\n{record(migration)}\n"
    )


def transaction(migration: Migration) -> str:
    """Return the script that applies the file and writes its row, or does neither."""
    # On a line of its own: the file may end in a comment, or without a semicolon.
    tail = f"{QUERIES.restore_role}\n{QUERIES.reload_api_schema}\ncommit;\n"
    return f"{transaction_head(migration)}{migration.text}\n;\n{tail}"


def trial(migration: Migration) -> str:
    """Return a script that finds the failing statement and never commits.

    Each statement runs inside of a `do` block that says the statement's number when it fails; read
    the message with `read_mark`.
    """
    statements = "".join(
        _marked(number, statement.sql)
        for number, statement in enumerate(migration.statements, start=1)
    )
    return f"{transaction_head(migration)}{statements}rollback;\n"


def _marked(number: int, sql: str) -> str:
    # `when others` leaves out these two.
    body = f"""
begin
    execute {quote(sql)};
exception
    when query_canceled or assert_failure or others then
        raise exception 'pgworker statement {number}: %', sqlerrm using errcode = sqlstate;
end
"""
    return f"do language plpgsql {quote(body)};\n"


def read_mark(message: str) -> int | None:
    """Return the number of the statement that a failed `trial` names."""
    match = _MARK.match(message)
    return None if match is None else int(match[1])


def place_at(migration: Migration, offset: int) -> Place:
    """Return the place of a character of the file's text."""
    pieces = [piece for piece in split(migration.text) if piece.first is not None]
    # The server points behind the text when it waited for more.
    within = max(0, min(offset, len(migration.text.rstrip()) - 1))
    started = sum(piece.start <= within for piece in pieces)
    return Place(statement=max(1, started), line=LineFinder(migration.text)(within))


def find_invalid_index(index: ConcurrentIndex) -> str:
    """Return a query for the remains of a `create index concurrently` that didn't end well."""
    return QUERIES.find_invalid_index.format(index=quote(index.name), table=quote(index.table))
