"""The embedded PostgreSQL: one server for each data directory, shared by all who use it.

The first user starts the server and the last one out stops it. Two locks of the data directory
keep them apart: `start.lock`, held exclusively by whoever comes or goes, and `users.lock`, held
shared by everybody inside. The kernel drops both with the process, so a killed user leaves no
trace but a running server; the next one uses it, and stops it at the end.
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
        started: whether we started it; False when it ran already.
        port: on 127.0.0.1.
    """

    dsn: str = field(repr=False)
    started: bool
    port: int
    data_dir: Path


def default_data_dir() -> Path:
    """Return where the data lies when no setting says so (XDG Base Directory 0.8)."""
    if os.geteuid() == 0:
        return Path("/var/lib/pgworker")
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "pgworker"


@asynccontextmanager
async def embedded_server(
    data_dir: Path, *, settings: Mapping[str, str] | None = None
) -> AsyncIterator[EmbeddedServer]:
    """Use the server of this data directory: start it or attach; stop it when we leave last.

    Args:
        data_dir: made (mode 0700) when it isn't there.
        settings: of PostgreSQL, for the one who starts it; who attaches finds what there is.

    Raises:
        BadConfiguration: the wheel or setpriv is missing, or the data is of another major version.
        DatabaseUnreachable: the server doesn't start.
    """
    visit = _Visit(data_dir, settings or {})
    try:
        server = await _to_the_end(visit.enter)
        yield server
    finally:
        await _to_the_end(visit.leave)


@contextmanager
def embedded_server_blocking(
    data_dir: Path, *, settings: Mapping[str, str] | None = None
) -> Iterator[EmbeddedServer]:
    """Do what `embedded_server` does, for callers without an event loop."""
    visit = _Visit(data_dir, settings or {})
    try:
        yield visit.enter()
    finally:
        visit.leave()


class _Visit:
    """One stay of one user in a data directory."""

    def __init__(self, data_dir: Path, settings: Mapping[str, str]) -> None:
        self._dir = data_dir.expanduser().resolve()
        self._settings = settings
        self._cluster = Cluster(self._dir / "postgres", self._dir / "postgres.log")
        self._users: int | None = None

    def enter(self) -> EmbeddedServer:
        """Come in, and start the server if it doesn't run."""
        with _one_line_errors(self._dir):
            return self._enter()

    def _enter(self) -> EmbeddedServer:
        self._dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self._start_lock():
            self._users = _open_private(self._dir / "users.lock")
            fcntl.flock(self._users, fcntl.LOCK_SH)
            password = self._password()
            running = self._cluster.running()
            port = running.port if running is not None else None
            started = port is None
            if port is None:
                port = self._start()
        dsn = f"postgresql://{SUPERUSER}:{password}@127.0.0.1:{port}/postgres"
        return EmbeddedServer(dsn=dsn, started=started, port=port, data_dir=self._dir)

    def leave(self) -> None:
        """Go, and stop the server if nobody else is there. Safe to repeat."""
        if self._users is None:
            return
        # Nobody comes or goes while we hold the start lock: what the upgrade says stays true.
        with self._start_lock():
            users, self._users = self._users, None
            try:
                fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                pass  # others are there: the last of them stops it
            else:
                self._cluster.stop()
            finally:
                os.close(users)

    @contextmanager
    def _start_lock(self) -> Iterator[None]:
        lock = _open_private(self._dir / "start.lock")
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
            _write_private(path, secrets.token_urlsafe(24))
        return path.read_text().strip()

    def _start(self) -> int:
        if not self._cluster.exists():
            self._cluster.initialise(
                self._dir / "postgres.password", durable=self._settings.get("fsync") != "off"
            )
        self._cluster.check_version()
        for _ in range(START_TRIES - 1):
            port = self._free_port()
            try:
                self._cluster.start(port, self._settings)
            except DatabaseUnreachable:
                if _is_free(port):
                    raise
                # Somebody took the port between our look and the server's bind.
            else:
                return port
        port = self._free_port()
        self._cluster.start(port, self._settings)
        return port

    def _free_port(self) -> int:
        """Return the port of last time, so that addresses stay good; another one if it is taken."""
        path = self._dir / "postgres.port"
        kept = path.read_text().strip() if path.exists() else ""
        if kept.isdigit() and _is_free(int(kept)):
            return int(kept)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
        _write_private(path, str(port))
        return port


@contextmanager
def _one_line_errors(data_dir: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise BadConfiguration(
            f"the data directory {data_dir} can't be used: {error.strerror} ({error.filename}): "
            "set PGWORKER_DATA_DIR to a directory of your own, or set DATABASE_URL"
        ) from error


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        # As PostgreSQL does: connections of the server before us may still be in TIME_WAIT.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _open_private(path: Path, flags: int = os.O_RDWR) -> int:
    """Open a file that only its owner may touch, from its first moment; make it if need be.

    What root makes in another user's data directory is that user's, who wants to go on with it.
    """
    descriptor = os.open(path, flags | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, mode=0o600)
    if os.geteuid() == 0:
        owner = path.parent.stat()
        os.fchown(descriptor, owner.st_uid, owner.st_gid)
    return descriptor


def _write_private(path: Path, text: str) -> None:
    """Write the whole file or nothing."""
    unfinished = path.with_name(f"{path.name}.new")
    with os.fdopen(_open_private(unfinished, os.O_WRONLY | os.O_TRUNC), "w") as file:
        file.write(f"{text}\n")
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)


async def _to_the_end(work: Callable[[], T]) -> T:
    """Run blocking work in a thread; when cancelled, let it end first.

    A thread can't be cancelled: one left behind would start a server that nobody stops.
    """
    thread = asyncio.ensure_future(asyncio.to_thread(work))
    cancelled: asyncio.CancelledError | None = None
    while not thread.done():
        try:
            await asyncio.wait([thread])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        thread.exception()  # nobody will ask for it: marks it as seen
        raise cancelled
    return thread.result()
