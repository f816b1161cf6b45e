"""The canonical set as it is now, for whoever needs it again and again."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, TypeAlias

from pgworker.schema.migrations import load_migrations

if TYPE_CHECKING:
    from pathlib import Path

    from pgworker.schema.migrations import CanonicalSet

    # Of each entry: name, inode, size, and when content and inode last changed, in nanoseconds.
    Look: TypeAlias = tuple[tuple[str, int, int, int, int], ...]

# Clocks of file systems are coarse: what has just changed may change again and look the same.
SETTLED_AFTER_SECONDS = 2.0

_known: dict[Path, tuple[Look, CanonicalSet]] = {}


async def canonical_set(directory: Path) -> CanonicalSet:
    """Return what `load_migrations` returns: read anew in a thread, unless no file has changed.

    A look at the directory tells, within microseconds; a thread costs a thousand of them.

    Raises:
        MigrationRefused: as `load_migrations`.
    """
    look = _look_at(directory)
    known = _known.get(directory)
    if known is not None and known[0] == look:
        return known[1]
    # After the look: what changes in between looks different the next time.
    canonical = await asyncio.to_thread(load_migrations, directory)
    if _is_settled(look):
        _known[directory] = look, canonical
    return canonical


def _look_at(directory: Path) -> Look:
    """Return what changes whenever an entry does; nothing when that can't be told."""
    try:
        seen = [(entry.name, entry.stat()) for entry in directory.iterdir()]
    except OSError:
        return ()
    return tuple(
        sorted(
            (name, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
            for name, stat in seen
        )
    )


def _is_settled(look: Look) -> bool:
    changed_at = max((max(mtime, ctime) for *_, mtime, ctime in look), default=None)
    return changed_at is not None and changed_at / 1e9 < time.time() - SETTLED_AFTER_SECONDS
