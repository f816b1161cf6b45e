"""Files that only their owner may read."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

import pytest

from pgworker.db.private_file import create_private, open_private, replace_private

if TYPE_CHECKING:
    from pathlib import Path

USER = 65534


def test_the_first_of_two_that_create_a_file_wins(tmp_path: Path) -> None:
    create_private(tmp_path / "key", "first")
    create_private(tmp_path / "key", "second")

    assert (tmp_path / "key").read_text() == "first\n"
    assert [path.name for path in tmp_path.iterdir()] == ["key"]


def test_a_replaced_file_has_the_new_text_and_leaves_no_draft(tmp_path: Path) -> None:
    replace_private(tmp_path / "port", "1")
    replace_private(tmp_path / "port", "2")

    assert (tmp_path / "port").read_text() == "2\n"
    assert [path.name for path in tmp_path.iterdir()] == ["port"]


def test_files_are_closed_to_others_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        create_private(tmp_path / "key", "text")
        replace_private(tmp_path / "port", "text")
        os.close(open_private(tmp_path / "lock"))
    finally:
        os.umask(before)

    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert modes == {"key": 0o600, "port": 0o600, "lock": 0o600}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_what_root_makes_in_a_users_directory_belongs_to_that_user(tmp_path: Path) -> None:
    os.chown(tmp_path, USER, USER)

    create_private(tmp_path / "key", "text")
    replace_private(tmp_path / "port", "text")
    os.close(open_private(tmp_path / "lock"))

    assert {path.stat().st_uid for path in tmp_path.iterdir()} == {USER}
    assert {path.stat().st_gid for path in tmp_path.iterdir()} == {USER}


def test_a_link_in_place_of_a_file_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "lock").symlink_to(tmp_path / "elsewhere")

    with pytest.raises(OSError, match="lock"):
        open_private(tmp_path / "lock")

    assert not (tmp_path / "elsewhere").exists()
