"""`pgworker demo`: works at once, works again, and leaves a real platform alone."""

from __future__ import annotations

import json
import subprocess
import sysconfig
from pathlib import Path

import pytest

from tests.cli.conftest import Pgworker


def test_a_demo_makes_every_client_ready_and_a_second_one_starts_over(
    pgworker: Pgworker, tmp_path: Path
) -> None:
    # Whatever the environment says of a real platform is left alone.
    real = {"DATABASE_URL": "postgresql://real@127.0.0.1:1/platform"}
    for _ in range(2):
        result = pgworker("demo", "--clients", "3", **real)
        assert result.returncode == 0, result.stderr
        assert "3 of 3 clients ready" in result.stdout
        for word in ("schema_sync", "Acme Bakery", "20260101000400", "PGWORKER_DATA_DIR"):
            assert word in result.stdout
        assert "Traceback" not in result.stdout + result.stderr
    data_dir = str(tmp_path / "data" / "demo")
    listed = pgworker("clients", "list", "--json", PGWORKER_DATA_DIR=data_dir)
    assert [row["status"] for row in json.loads(listed.stdout)] == ["ready"] * 3
    assert "job_succeeded" in Path(data_dir, "demo.log").read_text()


@pytest.mark.parametrize("on_the_path", [True, False])
def test_the_commands_that_a_demo_suggests_work_as_printed(
    pgworker: Pgworker, environment: dict[str, str], tmp_path: Path, on_the_path: bool
) -> None:
    # `make demo` runs a program that is not on its user's PATH.
    folders = [sysconfig.get_path("scripts")] if on_the_path else []
    path = ":".join([*folders, "/usr/bin", "/bin"])
    shown = pgworker("demo", "--clients", "1", PATH=path).stdout.partition("Explore it")[2]
    lines = [line.strip() for line in shown.splitlines()[1:]]
    assert sum(line.startswith("pgworker ") for line in lines) == (3 if on_the_path else 0)
    script = "\n".join(["set -e", *lines[:-1], f"{lines[-1]} --yes"])
    looked = subprocess.run(
        ["/bin/bash", "-c", script],
        cwd=tmp_path,
        env=environment | {"PATH": path},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert looked.returncode == 0, looked.stderr
    assert "Acme Bakery" in looked.stdout
    assert "db_password" in looked.stdout


def test_a_demo_of_supabase_needs_no_account(pgworker: Pgworker) -> None:
    result = pgworker("demo", "--provider", "supabase", "--clients", "2")
    assert result.returncode == 0, result.stderr
    assert "2 of 2 clients ready" in result.stdout


def test_a_demo_that_fails_says_so_and_exits_1(pgworker: Pgworker, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "20260101000000_broken.sql").write_text("nonsense;")
    result = pgworker("demo", "--clients", "1", PGWORKER_MIGRATIONS_DIR=str(broken))
    assert result.returncode == 1
    assert "20260101000000_broken.sql:1" in result.stdout
