"""The campaign's own machinery: it must blame pgworker for what pgworker did, and lose nothing."""

from __future__ import annotations

import itertools
import shlex
from typing import TYPE_CHECKING

import pytest

from chaos import time_scaling as timelapse
from chaos.__main__ import options_of, what_repeats
from chaos.campaign import Outcome, expected
from chaos.checker import Violation, check
from chaos.plan import plan_round
from chaos.report import Report
from chaos.snapshot import Evidence, Platform

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    "arguments",
    [[], ["--acts=die,lose", "--no-recovery"], ["--acts=", "--every-passage"], ["--round=3"]],
)
def test_a_report_names_the_command_that_repeats_its_campaign(arguments: list[str]) -> None:
    options = options_of(["--minutes=0.5", "--seed=7", *arguments])

    told = shlex.split(what_repeats(options, 7))

    given = dict(word.split("=", 1) for word in told[2:])
    assert told[:2] == ["make", "chaos"]
    assert options == options_of(
        [f"--minutes={given['MINUTES']}", "--seed=7", *given.get("CHAOS_ARGS", "").split()]
    )


@pytest.mark.parametrize(
    ("share", "pace"),
    [(1.0, 1.0), (0.5, 1.0), (0.4, 1.5), (0.25, 2.0), (0.05, 10.0)],
)
def test_the_less_of_a_processor_there_is_the_longer_everything_lasts(
    monkeypatch: pytest.MonkeyPatch, share: float, pace: float
) -> None:
    ticks = itertools.count()
    now = 0.0

    def process_time() -> float:
        nonlocal now
        now = next(ticks) / 1024
        return now

    monkeypatch.setattr(timelapse, "process_time", process_time)
    monkeypatch.setattr(timelapse, "monotonic", lambda: now / share)

    assert timelapse.measure_pace() == pytest.approx(pace, abs=0.5)
    assert timelapse.settings(pace)["PGWORKER_LEASE_SECONDS"] == timelapse.LEASE * pace


def test_a_round_that_was_given_up_is_not_blamed_for_what_was_still_in_hand() -> None:
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
    platform = Platform(
        name="platform", clients=[client], jobs=[job], events=[enqueued], intents=[intent],
        steps=[], breakers=[{"credential": "x"}], writes=[], secrets={}, unsealable=[], texts={},
    )  # fmt: skip
    ledger = {"created": [{"name": "pgworker-1", "ref": "abc"}], "entries": []}
    evidence = Evidence([platform], tenants={}, databases=[], roles=[], ledger=ledger)

    assert {found.invariant for found in check(evidence, expected())} == {
        "no_orphan",
        "no_lost_client",
        "every_breaker_is_closed",
    }
    assert check(evidence, expected(is_over=False, all_ready=False)) == []


def test_a_report_tells_of_a_violation_before_its_campaign_has_ended(tmp_path: Path) -> None:
    report = Report("make chaos", seed=7)
    outcome = Outcome(plan_round(7, 0))
    outcome.violations.append(Violation("no_orphan", "project x", "paid for"))
    report.take_round(outcome)

    markdown, _ = report.write(tmp_path)

    assert "It did not end" in markdown.read_text()
    assert "no_orphan: project x: paid for" in markdown.read_text()
