"""The disk of the tenants' server is full: a small file system that a test really fills."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.faults.checks import (
    add_clients,
    assert_nothing_duplicated_or_lost,
    prepare,
    wait_until_all_are_ready,
)
from tests.support.clusters import Server, running_server
from tests.support.worker_process import DEFAULT_LEASE, running_worker

# A fresh cluster's databases take about 25 MB, each tenant's 8 MB: there is room for a few.
DISK_BYTES = 128 * 2**20
FIRST, LATE = 3, 4


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """Mount a small file system; without the right to do so the test is skipped."""
    folder.mkdir()
    if os.geteuid() != 0:
        pytest.skip("a full disk: mounting a small file system needs root")
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(folder)]
    mounted = subprocess.run(mount, capture_output=True, text=True, check=False)
    if mounted.returncode != 0:
        pytest.skip("a full disk: mounting a small file system is refused here")
    try:
        yield folder
    finally:
        # The server has stopped. If it hasn't, the file system is unmounted when it does.
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


async def move_databases(server: Server, disk: Path) -> None:
    """Move the server's databases to this disk; its write-ahead log stays where it is.

    Without space for its log PostgreSQL stops, which is another fault: a restart.
    """
    await server.stop()
    base = server.cluster.path / "base"
    owner = base.stat()
    shutil.copytree(base, disk / "base")
    for path in (disk / "base", *(disk / "base").rglob("*")):
        os.chown(path, owner.st_uid, owner.st_gid)
    (disk / "base").chmod(0o700)
    os.chown(disk, owner.st_uid, owner.st_gid)
    shutil.rmtree(base)
    # Relative: the server has no right to enter the parent folder.
    base.symlink_to(Path(disk.name, "base"))
    await server.start()


def fill(disk: Path) -> Path:
    """Fill the disk; return the file to delete."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        for size in (2**20, 4096):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                continue
    return ballast


async def test_a_worker_waits_out_a_full_disk_of_the_tenants_and_reports_it(tmp_path: Path) -> None:
    async with running_server() as platform, running_server() as tenants:
        await prepare(platform)
        with small_disk(tenants.cluster.path / "disk") as disk:
            await move_databases(tenants, disk)
            await add_clients(platform, FIRST)
            async with running_worker(
                tmp_path,
                DATABASE_URL=platform.dsn,
                PGWORKER_TENANTS_URL=tenants.dsn,
                **DEFAULT_LEASE,
            ) as worker:
                await wait_until_all_are_ready(platform, worker)
                ballast = fill(disk)
                await add_clients(platform, LATE, name="late")
                failed = await worker.wait_for("phase_failed")
                ballast.unlink()

                await wait_until_all_are_ready(platform, worker)

                await assert_nothing_duplicated_or_lost(platform, tenants=tenants)
                assert "No space left on device" in failed[0]["error"], worker.output
                assert {line["error_kind"] for line in worker.events("phase_failed")} == {
                    "transient"
                }
                assert worker.events("database_unreachable") == []
                assert "Traceback" not in worker.output
            await tenants.crash()
