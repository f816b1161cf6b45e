"""The canonical set is what the files of its directory say, read again or from the cache."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from pgworker.errors import BadConfiguration, MigrationRefused
from pgworker.schema import directory as module
from pgworker.schema.directory import (
    load_canonical_set,
    read_canonical_set,
    read_configured_set,
)

FIRST, SECOND = "20260101000000_a.sql", "20260101000100_b.sql"


def write(directory: Path, files: dict[str, str | bytes]) -> Path:
    for name, content in files.items():
        data = content if isinstance(content, bytes) else content.encode()
        (directory / name).write_bytes(data)
    return directory


# -- reading ----------------------------------------------------------------------------------


def test_a_directory_is_read_in_the_order_of_versions(tmp_path: Path) -> None:
    canonical = read_canonical_set(
        write(
            tmp_path,
            {"20260102000000_b.sql": "select 2;", "20260101000000_a_first.sql": "select 1;"},
        )
    )

    assert [(m.version, m.name) for m in canonical.migrations] == [
        ("20260101000000", "a_first"),
        ("20260102000000", "b"),
    ]
    assert canonical.head == "20260102000000"
    assert canonical.notices == ()


def test_other_entries_are_left_out_with_a_notice(tmp_path: Path) -> None:
    write(tmp_path, {"1_a.sql": "select 1", "README.md": "", "x_1.sql": "", "2_b.SQL": ""})
    (tmp_path / "3_folder.sql").mkdir()
    (tmp_path / "smoke").mkdir()

    canonical = read_canonical_set(tmp_path)

    assert [m.file for m in canonical.migrations] == ["1_a.sql"]
    assert [notice.split(" ")[0] for notice in canonical.notices] == [
        "2_b.SQL",
        "3_folder.sql",
        "README.md",
        "x_1.sql",
    ]


def test_an_old_init_is_left_out_as_the_cli_does(tmp_path: Path) -> None:
    write(tmp_path, {"20211208000000_init.sql": "select 1", "20211210000000_init.sql": "select 2"})

    canonical = read_canonical_set(tmp_path)

    assert [m.file for m in canonical.migrations] == ["20211210000000_init.sql"]
    assert "20211208000000_init.sql" in canonical.notices[0]


def test_a_missing_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MigrationRefused, match="does not exist: create it, or set"):
        read_canonical_set(tmp_path / "nowhere")


def test_a_file_instead_of_a_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MigrationRefused, match="is not a directory"):
        read_canonical_set(write(tmp_path, {"1_a.sql": ""}) / "1_a.sql")


def test_a_directory_without_a_migration_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MigrationRefused, match="has no migration: add a file named"):
        read_canonical_set(write(tmp_path, {".gitkeep": ""}))


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"1_a.sql": b"select '\xff'"}, r"1_a\.sql is not UTF-8 \(byte 9\)"),
        ({"1_a.sql": b"select 1;\n\0"}, r"1_a\.sql:2: remove the NUL"),
        ({"1_a.sql": "", "1_b.sql": ""}, r"1_a\.sql and 1_b\.sql have the same version"),
        ({"10_a.sql": "", "9_b.sql": ""}, "different lengths"),
        ({"1_a.sql": "select 1;\nBegin;"}, r"1_a\.sql:2: remove BEGIN"),
        ({"1_a.sql": "select 1;\n\nend"}, r"1_a\.sql:3: remove END"),
        ({"1_a.sql": "savepoint a"}, "remove SAVEPOINT"),
        ({"1_a.sql": "start transaction"}, "remove START"),
        ({"1_a.sql": "rollback to a"}, "remove ROLLBACK"),
        ({"1_a.sql": "select 1;\n\\i other.sql\n"}, r"1_a\.sql:2: a backslash command of psql"),
        ({"1_a.sql": "copy t from stdin;\n1\t\\N\n\\.\n"}, r"1_a\.sql:1: COPY FROM STDIN"),
        (
            {"1_a.sql": "create table t ();\n\ncreate index concurrently i on t (a);"},
            r"1_a\.sql:3: CREATE INDEX CONCURRENTLY can't run in a transaction",
        ),
        ({"1_a.sql": "vacuum t; select 1"}, "VACUUM"),
        ({"1_a.sql": "select 1; create database d"}, "CREATE DATABASE"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused(
    tmp_path: Path, files: dict[str, str | bytes], message: str
) -> None:
    with pytest.raises(MigrationRefused, match=message) as caught:
        read_canonical_set(write(tmp_path, files))

    assert "\n" not in str(caught.value)


def test_a_broken_link_is_refused_rather_than_left_out(tmp_path: Path) -> None:
    (tmp_path / "1_a.sql").symlink_to(tmp_path / "nowhere")

    with pytest.raises(MigrationRefused, match=r"1_a\.sql can't be read"):
        read_canonical_set(tmp_path)


def test_a_byte_order_mark_is_not_part_of_the_text(tmp_path: Path) -> None:
    canonical = read_canonical_set(write(tmp_path, {"1_a.sql": b"\xef\xbb\xbfselect 1"}))

    assert canonical.migrations[0].text == "select 1"


def test_a_setting_that_names_no_directory_or_one_without_sql_is_bad_configuration(
    tmp_path: Path,
) -> None:
    for directory in (tmp_path / "nowhere", write(tmp_path, {"README.md": ""})):
        with pytest.raises(BadConfiguration, match="migrations directory"):
            read_configured_set(directory)


def test_a_file_that_cannot_be_used_is_not_a_matter_of_the_setting(tmp_path: Path) -> None:
    with pytest.raises(MigrationRefused, match="remove BEGIN"):
        read_configured_set(write(tmp_path, {"1_a.sql": "begin"}))


# -- caching ----------------------------------------------------------------------------------


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
async def test_unchanged_files_are_read_once(directory: Path, reads: list[Path]) -> None:
    first = await load_canonical_set(directory)

    assert await load_canonical_set(directory) is first
    assert first == read_canonical_set(directory)
    assert reads == [directory]


@pytest.mark.usefixtures("settled")
async def test_a_file_that_is_changed_added_or_removed_is_noticed(directory: Path) -> None:
    await load_canonical_set(directory)

    # As long as before, and with its old time: tools that copy files may keep it.
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
