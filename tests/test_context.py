"""The key that an embedded platform makes for itself."""

from __future__ import annotations

import os
import stat
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest

from pgworker.context import KEY_FILE, Platform
from pgworker.errors import BadConfiguration
from pgworker.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

PLAIN_USER = 65534
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become another user")


def platform_in(data_dir: Path) -> Platform:
    settings = Settings(_env_file=None, PGWORKER_DATA_DIR=data_dir)
    return Platform(
        settings, "", pool=cast(Any, None), providers=cast(Any, None), data_dir=data_dir
    )


@pytest.fixture
def users_directory() -> Iterator[Path]:
    """A data directory of a plain user, also when root runs the tests."""
    # Not in pytest's directory, which is closed to others.
    with tempfile.TemporaryDirectory(prefix="pgworker-test-") as folder:
        if os.geteuid() == 0:
            os.chown(folder, PLAIN_USER, PLAIN_USER)
        yield Path(folder)


@contextmanager
def as_plain_user() -> Iterator[None]:
    """Be a plain user for the block, whom the modes of directories keep out."""
    uid = os.geteuid()
    if uid == 0:
        os.seteuid(PLAIN_USER)
    try:
        yield
    finally:
        os.seteuid(uid)


def test_a_key_is_made_once_and_found_again(tmp_path: Path) -> None:
    first = platform_in(tmp_path).session_keys()

    assert platform_in(tmp_path).session_keys() == first
    assert stat.S_IMODE((tmp_path / KEY_FILE).stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == [KEY_FILE]


@needs_root
def test_a_key_that_root_makes_in_another_users_directory_is_that_users(
    users_directory: Path,
) -> None:
    made_by_root = platform_in(users_directory).session_keys()

    with as_plain_user():
        assert platform_in(users_directory).session_keys() == made_by_root


def test_a_read_only_directory_is_refused_in_one_line(users_directory: Path) -> None:
    users_directory.chmod(0o500)

    with as_plain_user(), pytest.raises(BadConfiguration, match="can't be used") as refusal:
        platform_in(users_directory).vault()

    assert "\n" not in str(refusal.value)
    assert "PGWORKER_DATA_DIR" in str(refusal.value)


def test_a_key_that_may_not_be_read_is_refused_in_one_line(users_directory: Path) -> None:
    platform_in(users_directory).vault()
    (users_directory / KEY_FILE).chmod(0o000)

    with as_plain_user(), pytest.raises(BadConfiguration, match="Permission denied"):
        platform_in(users_directory).vault()
