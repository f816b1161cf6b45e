"""The harness: it reports only what pgworker did, and loses nothing of it."""

from __future__ import annotations

import itertools
import shlex
from typing import TYPE_CHECKING

import pytest

from chaos import time_scaling
from chaos.__main__ import build_command, parse_options
from chaos.campaign import Outcome, expect
from chaos.checker import Violation, check
from chaos.plan import plan_round
from chaos.report import Report
from chaos.snapshot import PlatformSnapshot, Snapshot

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    "arguments",
    [[], ["--acts=die,lose", "--no-recovery"], ["--acts=", "--every-passage"], ["--round=3"]],
)
def test_a_report_names_the_command_that_repeats_its_campaign(arguments: list[str]) -> None:
    options = parse_options(["--minutes=0.5", "--seed=7", *arguments])

    words = shlex.split(build_command(options, 7))

    given = dict(word.split("=", 1) for word in words[2:])
    assert words[:2] == ["make", "chaos"]
    assert options == parse_options(
        [f"--minutes={given['MINUTES']}", "--seed=7", *given.get("CHAOS_ARGS", "").split()]
    )


@pytest.mark.parametrize(
    ("share", "slowdown"),
    [(1.0, 1.0), (0.5, 1.0), (0.4, 1.5), (0.25, 2.0), (0.05, 10.0)],
)
def test_durations_grow_as_the_share_of_a_processor_shrinks(
    monkeypatch: pytest.MonkeyPatch, share: float, slowdown: float
) -> None:
    ticks = itertools.count()
    now = 0.0

    def process_time() -> float:
        nonlocal now
        now = next(ticks) / 1024
        return now

    monkeypatch.setattr(time_scaling, "process_time", process_time)
    monkeypatch.setattr(time_scaling, "monotonic", lambda: now / share)

    assert time_scaling.measure_slowdown() == pytest.approx(slowdown, abs=0.5)
    assert (
        time_scaling.scale_settings(slowdown)["PGWORKER_LEASE_SECONDS"]
        == time_scaling.LEASE * slowdown
    )


def test_live_jobs_of_a_round_that_did_not_settle_are_no_violations() -> None:
    client = {
        "id": "a client", "auto_provision": True, "provisioning_status": "creating_project",
        "provisioning_error": None, "project_ref": None,
    }  # fmt: skip
    job = {
        "id": 1, "client_id": "a client", "workflow": "provision", "status": "running",
        "job_type": "create_project", "claim_token": 0, "attempts": 0, "crashes": 0,
        "error_kind": None,
    }  # fmt: skip
    enqueued = {
        "id": 1, "job_id": 1, "event": "enqueued", "actor": "sql:x", "claim_token": 0,
        "from_status": None, "to_status": "running", "from_phase": None,
        "to_phase": "create_project", "detail": None,
    }  # fmt: skip
    intent = {"client_id": "a client", "name": "pgworker-1", "ref": None, "provider": "supabase"}
    platform = PlatformSnapshot(
        name="platform", clients=[client], jobs=[job], events=[enqueued], intents=[intent],
        steps=[], breakers=[{"credential": "x"}], writes=[], secrets={}, decryption_errors=[],
        texts={},
    )  # fmt: skip
    ledger = {"created": [{"name": "pgworker-1", "ref": "abc"}], "entries": []}
    snapshot = Snapshot([platform], tenants={}, databases=[], roles=[], ledger=ledger)

    assert {violation.invariant for violation in check(snapshot, expect())} == {
        "no_orphan",
        "no_lost_client",
        "every_breaker_is_closed",
    }
    assert check(snapshot, expect(is_settled=False, all_ready=False)) == []


def test_a_report_has_violations_before_its_campaign_has_ended(tmp_path: Path) -> None:
    report = Report("make chaos", seed=7)
    outcome = Outcome(plan_round(7, 0))
    outcome.violations.append(Violation("no_orphan", "project x", "paid for"))
    report.add_round(outcome)

    markdown, _ = report.write(tmp_path)

    assert "It has not ended" in markdown.read_text()
    assert "no_orphan: project x: paid for" in markdown.read_text()
