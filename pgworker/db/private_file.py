"""Files of the data directory that only their owner may read: passwords, keys, locks."""

from __future__ import annotations

import os
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from pgworker.errors import BadConfiguration

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def open_private(path: Path, flags: int = os.O_RDWR) -> int:
    """Open a file with mode 0600, and create it when it is missing; return the descriptor.

    What root creates in another user's data directory belongs to that user, who may want to go on
    without root.
    """
    # The mode is given with the creation: after a later chmod another user might have it open.
    descriptor = os.open(path, flags | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, mode=0o600)
    if os.geteuid() == 0:
        owner = path.parent.stat()
        os.fchown(descriptor, owner.st_uid, owner.st_gid)
    return descriptor


def create_private(path: Path, text: str) -> None:
    """Write a file that doesn't exist yet; leave one that does as it is.

    Safe when two processes do so at the same time: the first one wins, and no reader finds a part
    of the text.
    """
    draft = _write_draft(path, text)
    try:
        # Unlike a rename, a link doesn't replace what is there.
        with suppress(FileExistsError):
            os.link(draft, path)
    finally:
        draft.unlink()


def replace_private(path: Path, text: str) -> None:
    """Write a file in place of the one that is there; no reader finds a part of the text."""
    _write_draft(path, text).replace(path)


@contextmanager
def data_dir_errors_translated(data_dir: Path) -> Iterator[None]:
    """Raise what the operating system refuses in the block as one line for a person.

    Raises:
        BadConfiguration: names the file and the setting.
    """
    try:
        yield
    except OSError as error:
        raise BadConfiguration(
            f"the data directory {data_dir} can't be used: {error.strerror} ({error.filename}): "
            "set PGWORKER_DATA_DIR to a directory of your own, or set DATABASE_URL"
        ) from error


def _write_draft(path: Path, text: str) -> Path:
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    with os.fdopen(open_private(draft, os.O_WRONLY | os.O_TRUNC), "w", encoding="utf-8") as file:
        file.write(f"{text}\n")
        file.flush()
        # Before it gets its name: after a power failure the name could stand for an empty file.
        os.fsync(file.fileno())
    return draft
