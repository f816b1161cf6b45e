"""The canonical migrations: parsed, and compared with what a tenant has. Pure.

Layout and history are those of Supabase's CLI (2.x, mid-2026), so that `supabase db push` and
pgworker agree about the same tenant.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from itertools import takewhile
from typing import TYPE_CHECKING

from pgworker.errors import MigrationRefused
from pgworker.schema.grammar import Kind, find_kind, is_setting, sets_characteristics
from pgworker.schema.splitter import (
    LineFinder,
    find_statements,
    normal_form,
    split_script,
    tokenize,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from pgworker.schema.splitter import SqlStatement

# The first line that isn't blank. Other tools have the same option under other names.
_NO_TRANSACTION = re.compile(r"\s*--\s*pgworker:\s*no-transaction\s*$", re.MULTILINE)
_FILE_NAME = re.compile(r"([0-9]+)_(.*)\.sql", re.DOTALL)
_NAMED_AT_MOST = 5

# The set's assertions about a finished schema stand beside its migrations; see smoke.py.
SMOKE_DIRECTORY = "smoke"


@dataclass(frozen=True, slots=True)
class Migration:
    """One file of the canonical set.

    Attributes:
        version: the digits its name starts with, as text.
        name: what follows them.
        file: its name, for messages.
        text: its content, without a byte order mark.
        statements: its statements, in order, without those that are only comments.
        transactional: False when its statements run one by one: the server refuses the last one in
            a transaction block, or the file asks for it.
        characteristics: those of its first statements that set its transaction's isolation level
            or access mode (`set transaction`).
    """

    version: str
    name: str
    file: str
    text: str
    statements: tuple[SqlStatement, ...]
    transactional: bool
    characteristics: tuple[SqlStatement, ...] = ()

    @property
    def recorded_statements(self) -> tuple[str, ...]:
        """The statements that the history keeps of it: split as the CLI does, with comments."""
        return _recorded_statements(self.text)


@dataclass(frozen=True, slots=True)
class CanonicalSet:
    """Every migration of a directory, oldest first.

    Attributes:
        notices: one line for each entry that was left out.
    """

    directory: Path
    migrations: tuple[Migration, ...]
    notices: tuple[str, ...] = ()

    @property
    def smoke_directory(self) -> Path:
        """Where the set's assertions are, if it has any."""
        return self.directory / SMOKE_DIRECTORY

    @property
    def head(self) -> str | None:
        """Version of the newest migration; None when there is none."""
        return self.migrations[-1].version if self.migrations else None


@dataclass(frozen=True, slots=True)
class AppliedMigration:
    """A row of a tenant's history.

    Attributes:
        statements: as they were applied; None when the tool that wrote the row kept none.
    """

    version: str
    name: str | None = None
    statements: tuple[str, ...] | None = None


@lru_cache(maxsize=4096)
def _recorded_statements(text: str) -> tuple[str, ...]:
    return tuple(statement.text for statement in split_script(text))


# -- parsing ----------------------------------------------------------------------------------


def is_migration_name(file: str) -> bool:
    """Return whether a file of this name is a migration, as Supabase's CLI decides it."""
    return _FILE_NAME.fullmatch(file) is not None


# When one file of the set changes, all of them are read again, and only that one is parsed again.
@lru_cache(maxsize=4096)
def parse_migration(file: str, text: str) -> Migration:
    """Make a migration of a file's name and content; remembers what it made of them before.

    Raises:
        MigrationRefused: it can't run as one transaction, nor as one statement without.
    """
    match = _FILE_NAME.fullmatch(file)
    if match is None:
        raise MigrationRefused(f"{file}: name it <14 digits>_<name>.sql")
    if "\0" in text:
        line = LineFinder(text)(text.index("\0"))
        raise MigrationRefused(f"{file}:{line}: remove the NUL character: PostgreSQL takes none")
    statements = find_statements(text)
    kinds = [find_kind(statement) for statement in statements]
    _refuse_what_needs_psql(file, text, statements, kinds)
    _refuse_transaction_control(file, statements, kinds)
    return Migration(
        version=match[1],
        name=match[2],
        file=file,
        text=text,
        statements=statements,
        transactional=not _runs_one_by_one(file, text, statements, kinds),
        characteristics=tuple(takewhile(lambda each: sets_characteristics(each.text), statements)),
    )


def _refuse_transaction_control(
    file: str, statements: Sequence[SqlStatement], kinds: Sequence[Kind]
) -> None:
    for statement, kind in zip(statements, kinds, strict=True):
        if kind is Kind.TRANSACTION_CONTROL:
            raise MigrationRefused(
                f"{file}:{statement.line}: remove {statement.words[0].upper()}: each file runs in "
                "a transaction of its own, together with its row of the history"
            )


def _runs_one_by_one(
    file: str, text: str, statements: Sequence[SqlStatement], kinds: Sequence[Kind]
) -> bool:
    """Return whether the file's statements run one by one, each in a transaction of its own.

    The file's first comment may ask for it. Otherwise one statement may, which the server refuses
    in a transaction; only settings may stand before it.
    """
    if _NO_TRANSACTION.match(text):
        return True
    if Kind.ALONE not in kinds:
        return False
    place = kinds.index(Kind.ALONE)
    if place + 1 == len(statements) and all(is_setting(each.text) for each in statements[:place]):
        return True
    statement = statements[place]
    raise MigrationRefused(
        f"{file}:{statement.line}: {' '.join(statement.words[:3]).upper()} can't run in a "
        "transaction: move it to a file of its own"
    )


def _refuse_what_needs_psql(
    file: str, text: str, statements: Sequence[SqlStatement], kinds: Sequence[Kind]
) -> None:
    # COPY first: the backslashes in its data would hide the true reason.
    for statement, kind in zip(statements, kinds, strict=True):
        if kind is Kind.COPY_FROM_STDIN:
            raise MigrationRefused(
                f"{file}:{statement.line}: COPY FROM STDIN needs psql: use INSERT instead"
            )
    for token in tokenize(text):
        if token.text == "\\":
            line = LineFinder(text)(token.start)
            raise MigrationRefused(
                f"{file}:{line}: a backslash command of psql is not SQL: remove it"
            )


# -- comparing --------------------------------------------------------------------------------


def plan(
    canonical: CanonicalSet, history: Iterable[AppliedMigration], *, include_all: bool = False
) -> tuple[Migration, ...]:
    """Return the migrations that the tenant lacks, in the order to apply them.

    Args:
        canonical: the migrations that it should have.
        history: those that it has.
        include_all: also apply a file that is older than the newest applied one.

    Raises:
        MigrationRefused: the tenant has a migration without a file, a file was changed after it
            had been applied, or one is out of order; names them and says what to do.
    """
    applied = {migration.version: migration for migration in history}
    # The most dangerous first: a tenant with unknown migrations may be another program's.
    _refuse_unknown_versions(canonical, applied)
    _refuse_changed_files(canonical, applied)
    pending = tuple(
        migration for migration in canonical.migrations if migration.version not in applied
    )
    if not include_all:
        _refuse_late_files(pending, newest=max(applied, default=""))
    return pending


def _refuse_unknown_versions(
    canonical: CanonicalSet, applied: Mapping[str, AppliedMigration]
) -> None:
    unknown = sorted(applied.keys() - {migration.version for migration in canonical.migrations})
    if unknown:
        raise MigrationRefused(
            f"the tenant has migrations without a file in {canonical.directory}: {_some(unknown)}; "
            "add their files, or, if they were undone by hand, delete their rows from "
            "supabase_migrations.schema_migrations (supabase migration repair --status reverted)"
        )


def _refuse_changed_files(canonical: CanonicalSet, applied: Mapping[str, AppliedMigration]) -> None:
    changed = [
        migration.file
        for migration in canonical.migrations
        if migration.version in applied and is_changed(migration, applied[migration.version])
    ]
    if changed:
        raise MigrationRefused(
            f"changed after they had been applied: {_some(changed)}; restore them and put the "
            "change into a new migration, or, if the tenant has it already, record the new text "
            "(supabase migration repair --status applied)"
        )


def _refuse_late_files(pending: Iterable[Migration], *, newest: str) -> None:
    late = [migration.file for migration in pending if migration.version < newest]
    if late:
        raise MigrationRefused(
            f"older than {newest}, which the tenant already has: {_some(late)}; give them a newer "
            "version, or apply them all the same with --include-all"
        )


def history_is_complete(canonical: CanonicalSet, history: Iterable[AppliedMigration]) -> bool:
    """Return whether the tenant has exactly the canonical versions."""
    return {row.version for row in history} == {row.version for row in canonical.migrations}


def is_changed(migration: Migration, applied: AppliedMigration) -> bool:
    """Return whether the file differs from the text that was applied; no, if that is unknown."""
    if applied.statements is None or applied.statements == migration.recorded_statements:
        return False
    # A new line before the semicolon: a statement may end in a comment that isn't closed otherwise.
    recorded = "\n;\n".join(applied.statements)
    # Equal texts are the usual case, and compared in no time.
    return recorded != migration.text and normal_form(recorded) != normal_form(migration.text)


def _some(names: Sequence[str]) -> str:
    more = len(names) - _NAMED_AT_MOST
    shown = ", ".join(names[:_NAMED_AT_MOST])
    return shown if more <= 0 else f"{shown} and {more} more"
