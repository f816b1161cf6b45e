"""`pgworker demo`: works at once, works again, and mixes with nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from subprocess import CompletedProcess

Pgworker = Callable[..., "CompletedProcess[str]"]


def test_a_demo_makes_every_client_ready_and_a_second_one_begins_anew(
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
