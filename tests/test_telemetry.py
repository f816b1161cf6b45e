"""What a line of the log looks like."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from contextvars import copy_context
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
import structlog

from pgworker import telemetry
from pgworker.models import Job

CLIENT_ID = UUID("11111111-2222-4333-8444-555555555555")


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    before = structlog.get_config()
    file = io.StringIO()
    telemetry.configure_logging("json", file=file)
    yield file
    structlog.configure(**before)


def the_line(lines: io.StringIO) -> dict[str, Any]:
    (line,) = lines.getvalue().splitlines()
    found: dict[str, Any] = json.loads(line)
    return found


def test_a_line_of_json_names_event_level_and_time_in_utc(lines: io.StringIO) -> None:
    before = datetime.now(UTC)
    telemetry.get_logger().info("phase_succeeded", seconds=0.5)

    line = the_line(lines)
    at = line.pop("timestamp")
    assert at.endswith("Z")
    assert before <= datetime.fromisoformat(at) <= datetime.now(UTC)
    assert line == {"event": "phase_succeeded", "level": "info", "seconds": 0.5}


def test_a_line_names_the_job_of_the_present_task(lines: io.StringIO) -> None:
    job = Job(
        id=7,
        client_id=CLIENT_ID,
        workflow="provision",
        job_type="schema_sync",
        attempts=0,
        max_attempts=10,
        claim_token=1,
        checkpoint={},
        trace_context=None,
        created_at=datetime.now(UTC),
    )

    def within_its_task() -> None:
        telemetry.bind_job(job)
        telemetry.get_logger().info("phase_started")

    copy_context().run(within_its_task)

    line = the_line(lines)
    assert line["job_id"] == 7
    assert line["client_id"] == str(CLIENT_ID)
    assert line["phase"] == "schema_sync"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("Größe \N{SNOWMAN}", "Größe \N{SNOWMAN}"),
        ("half a pair \ud83d, and\0", "half a pair \ud83d, and\0"),
        (b"\xff", r"b'\xff'"),
        (ValueError("x"), "ValueError('x')"),
        (CLIENT_ID, repr(CLIENT_ID)),
        ({"a": [1, None]}, {"a": [1, None]}),
        (timedelta(seconds=1), repr(timedelta(seconds=1))),
    ],
)
def test_a_line_is_json_in_ascii_whatever_the_other_side_said(
    lines: io.StringIO, value: object, shown: object
) -> None:
    telemetry.get_logger().warning("phase_failed", error=value)

    assert lines.getvalue().isascii()
    assert the_line(lines)["error"] == shown


def test_a_traceback_is_told_without_local_variables(lines: io.StringIO) -> None:
    password = "s3cr3t"  # looked for below
    try:
        raise ZeroDivisionError(len(password))
    except ZeroDivisionError:
        telemetry.get_logger().exception("phase_crashed")

    assert the_line(lines)["exception"][0]["exc_type"] == "ZeroDivisionError"
    assert "s3cr3t" not in lines.getvalue()
