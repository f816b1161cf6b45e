"""The canonical set is what its files say, also when nobody reads them again."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from pgworker.errors import MigrationRefused
from pgworker.schema import directory as module
from pgworker.schema.directory import load_canonical_set, read_canonical_set

FIRST, SECOND = "20260101000000_a.sql", "20260101000100_b.sql"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / FIRST).write_text("select 1")
    return tmp_path


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    seen: list[Path] = []

    def counting(directory: Path) -> Any:
        seen.append(directory)
        return read_canonical_set(directory)

    monkeypatch.setattr(module, "read_canonical_set", counting)
    return seen


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files count as settled once they are written."""
    monkeypatch.setattr(module, "SETTLED_AFTER_SECONDS", -60.0)


@pytest.mark.usefixtures("settled")
async def test_files_that_nobody_changed_are_read_once(directory: Path, reads: list[Path]) -> None:
    first = await load_canonical_set(directory)

    assert await load_canonical_set(directory) is first
    assert first == read_canonical_set(directory)
    assert reads == [directory]


@pytest.mark.usefixtures("settled")
async def test_a_file_that_is_mended_added_or_taken_away_is_noticed(directory: Path) -> None:
    await load_canonical_set(directory)

    # As long as before, and with its old time: whoever copies files may keep it.
    before = (directory / FIRST).stat()
    (directory / FIRST).write_text("select 2")
    os.utime(directory / FIRST, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert await load_canonical_set(directory) == read_canonical_set(directory)

    (directory / SECOND).write_text("select 3")
    assert await load_canonical_set(directory) == read_canonical_set(directory)

    (directory / SECOND).unlink()
    assert await load_canonical_set(directory) == read_canonical_set(directory)


@pytest.mark.usefixtures("settled")
async def test_a_directory_that_went_away_is_refused(directory: Path) -> None:
    await load_canonical_set(directory)
    directory.rename(directory.with_name("elsewhere"))

    with pytest.raises(MigrationRefused, match="does not exist"):
        await load_canonical_set(directory)


async def test_a_file_that_has_just_changed_is_read_again(
    directory: Path, reads: list[Path]
) -> None:
    await load_canonical_set(directory)
    await load_canonical_set(directory)
    assert len(reads) == 2

    long_ago = time.time() - 3600
    os.utime(directory / FIRST, (long_ago, long_ago))  # its inode has changed now
    await load_canonical_set(directory)
    await load_canonical_set(directory)
    assert len(reads) == 4
