"""Reads the canonical set from its directory, in the layout of Supabase's CLI (2.x, mid-2026)."""

from __future__ import annotations

import asyncio
import re
import time
from typing import TYPE_CHECKING, TypeAlias

from pgworker.errors import BadConfiguration, MigrationRefused
from pgworker.schema.migrations import (
    SMOKE_DIRECTORY,
    CanonicalSet,
    is_migration_name,
    parse_migration,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from pgworker.schema.migrations import Migration

    # Of each entry: name, inode, size, and when content and inode last changed, in nanoseconds.
    Fingerprint: TypeAlias = tuple[tuple[str, int, int, int, int], ...]

# The CLI leaves out an `init` that a release before this one dumped from the hosted database.
_OLD_INIT = re.compile(r"([0-9]{14})_init\.sql")
_OLD_INIT_BEFORE = "20211209000000"
# Clocks of file systems are coarse: a file that has just changed may change again and keep its
# fingerprint.
SETTLED_AFTER_SECONDS = 2.0

_cache: dict[Path, tuple[Fingerprint, CanonicalSet]] = {}


def read_canonical_set(directory: Path) -> CanonicalSet:
    """Read the migrations of a directory.

    Its direct children named `<digits>_<name>.sql` are migrations; everything else is left out,
    with a notice.

    Raises:
        MigrationRefused: there is no migration, or one can't be used as it is; says what to do.
    """
    files, notices = _list_files(directory)
    _refuse_clashing_versions(files)
    return CanonicalSet(directory, tuple(_read(file) for file in files), tuple(notices))


def read_configured_set(directory: Path) -> CanonicalSet:
    """Read the directory that a setting names; for a command, which ends with 78 without one.

    Raises:
        BadConfiguration: there is no such directory, or no SQL file in it.
        MigrationRefused: a file can't be used as it is.
    """
    # Which of the two it is decides the exit code: 78 keeps a supervisor from restarting in a loop,
    # and a file with a mistake in it is no matter of the configuration.
    try:
        return read_canonical_set(directory)
    except MigrationRefused as error:
        if directory.is_dir() and any(directory.glob("*.sql")):
            raise
        raise BadConfiguration(str(error)) from error


async def load_canonical_set(directory: Path) -> CanonicalSet:
    """Return what `read_canonical_set` returns, read in a thread, unless no file has changed.

    A worker needs the set for each of its jobs. Comparing the directory's fingerprint takes
    microseconds; reading it again takes a thousand times as long.

    Raises:
        MigrationRefused: as `read_canonical_set`.
    """
    fingerprint = _take_fingerprint(directory)
    cached = _cache.get(directory)
    if cached is not None and cached[0] == fingerprint:
        return cached[1]
    # After the fingerprint: a file that changes in between gives another one the next time.
    canonical = await asyncio.to_thread(read_canonical_set, directory)
    if _is_settled(fingerprint):
        _cache[directory] = fingerprint, canonical
    return canonical


def _list_files(directory: Path) -> tuple[list[Path], list[str]]:
    if not directory.is_dir():
        what = "is not a directory" if directory.exists() else "does not exist"
        raise MigrationRefused(
            f"migrations directory {directory} {what}: create it, or set PGWORKER_MIGRATIONS_DIR"
        )
    try:
        entries = sorted(directory.iterdir(), key=lambda entry: entry.name)
    except OSError as error:
        raise MigrationRefused(
            f"migrations directory {directory} can't be read: {error.strerror}"
        ) from error
    files: list[Path] = []
    notices: list[str] = []
    for entry in entries:
        if entry.name == SMOKE_DIRECTORY:
            continue  # assertions, not migrations
        # Left out with a notice: a misspelled name would be missed without one.
        reason = _reason_to_skip(entry, is_first=not files)
        if reason is None:
            files.append(entry)
        else:
            notices.append(f"{entry.name} is left out: {reason}")
    if not files:
        raise MigrationRefused(
            f"migrations directory {directory} has no migration: add a file named "
            "<14 digits>_<name>.sql, for example 20260101000000_first.sql"
        )
    return files, notices


def _reason_to_skip(entry: Path, *, is_first: bool) -> str | None:
    if entry.is_dir():
        return "it is a directory"
    if not is_migration_name(entry.name):
        return "its name isn't <digits>_<name>.sql"
    old_init = _OLD_INIT.fullmatch(entry.name)
    if is_first and old_init is not None and old_init[1] < _OLD_INIT_BEFORE:
        return f"it is an init older than {_OLD_INIT_BEFORE}, which Supabase's CLI skips as well"
    return None


def _refuse_clashing_versions(files: Sequence[Path]) -> None:
    seen: dict[str, str] = {}
    for file in files:
        version = file.name.partition("_")[0]
        if version in seen:
            raise MigrationRefused(
                f"{seen[version]} and {file.name} have the same version: give one of them another"
            )
        # Versions are compared as text, as the CLI does: 9_x would come after 10_x.
        if seen and len(version) != len(next(iter(seen))):
            raise MigrationRefused(
                f"{next(iter(seen.values()))} and {file.name} have versions of different lengths, "
                "which sort wrongly: give all of them 14 digits"
            )
        seen[version] = file.name


def _read(file: Path) -> Migration:
    try:
        text = file.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise MigrationRefused(
            f"{file.name} is not UTF-8 (byte {error.start + 1}): save it as UTF-8"
        ) from error
    except OSError as error:
        raise MigrationRefused(f"{file.name} can't be read: {error.strerror}") from error
    return parse_migration(file.name, text)


def _take_fingerprint(directory: Path) -> Fingerprint:
    """Return what changes whenever an entry does; nothing when the directory can't be read."""
    try:
        entries = [(entry.name, entry.stat()) for entry in directory.iterdir()]
    except OSError:
        return ()
    return tuple(
        sorted(
            (name, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
            for name, stat in entries
        )
    )


def _is_settled(fingerprint: Fingerprint) -> bool:
    changed_at = max((max(mtime, ctime) for *_, mtime, ctime in fingerprint), default=None)
    return changed_at is not None and changed_at / 1e9 < time.time() - SETTLED_AFTER_SECONDS
