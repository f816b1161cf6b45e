"""The doctor's checks that need no platform."""

from __future__ import annotations

from pathlib import Path

import pytest

from pgworker.errors import BadConfiguration
from pgworker.runtime.checks import Verdict, check_migrations, check_settings_error

CLOSED = "create table t (id int primary key);\nalter table t enable row level security;\n"


def test_every_mistake_in_the_settings_is_a_failed_check_of_its_own() -> None:
    checks = check_settings_error(BadConfiguration("A: must be a number\nB: must be a URL"))
    assert [(each.subject, each.verdict, each.detail) for each in checks] == [
        ("settings", Verdict.FAIL, "A: must be a number"),
        ("settings", Verdict.FAIL, "B: must be a URL"),
    ]
    assert all("docs/settings.md" in str(each.advice) for each in checks)


@pytest.mark.parametrize(
    ("name", "sql", "verdict", "detail"),
    [
        ("20260101000000_closed.sql", CLOSED, Verdict.OK, "newest 20260101000000"),
        ("20260101000000_open.sql", "create table t (id int);\n", Verdict.WARN, "_open.sql"),
        ("20260101000000_latin.sql", "select '\xe9';\n", Verdict.FAIL, "is not UTF-8"),
        ("notes.txt", "", Verdict.FAIL, "has no migration"),
    ],
)
def test_migrations_are_judged_by_whether_tenants_can_get_them(
    tmp_path: Path, name: str, sql: str, verdict: Verdict, detail: str
) -> None:
    (tmp_path / name).write_bytes(sql.encode("latin-1"))
    check = check_migrations(tmp_path)
    assert (check.subject, check.verdict) == ("migrations", verdict)
    assert detail in check.detail
    assert (check.advice is None) == (verdict is Verdict.OK)
