"""Lines of the log, and the exporters of spans and metrics."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextvars import copy_context
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import structlog

from pgworker import telemetry
from pgworker.errors import BadConfiguration
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
def test_a_line_is_json_in_ascii_whatever_values_it_holds(
    lines: io.StringIO, value: object, shown: object
) -> None:
    telemetry.get_logger().warning("phase_failed", error=value)

    assert lines.getvalue().isascii()
    assert the_line(lines)["error"] == shown


def test_a_traceback_is_logged_without_local_variables(lines: io.StringIO) -> None:
    password = "s3cr3t"  # looked for below
    try:
        raise ZeroDivisionError(len(password))
    except ZeroDivisionError:
        telemetry.get_logger().exception("phase_crashed")

    assert the_line(lines)["exception"][0]["exc_type"] == "ZeroDivisionError"
    assert "s3cr3t" not in lines.getvalue()


# -- exporters --------------------------------------------------------------------------------

OTLP_HTTP = "opentelemetry-exporter-otlp-proto-http"
OTLP_GRPC = "opentelemetry-exporter-otlp-proto-grpc"

# A process of its own: OpenTelemetry takes a provider once.
EXPORT = """
from opentelemetry import metrics, trace
from pgworker import telemetry

telemetry.configure_opentelemetry({arguments})
print("tracing", telemetry.is_tracing())
print("measuring", type(metrics.get_meter_provider()).__name__)
with telemetry.tracer.start_as_current_span("a span"):
    telemetry.phase_seconds.record(0.5, {{"phase": "a phase"}})
for provider in (trace.get_tracer_provider(), metrics.get_meter_provider()):
    if hasattr(provider, "force_flush"):
        provider.force_flush()
{more}
"""
# A package of another author: its exporters are found by their entry points.
PACKAGE = """
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace.export import SpanExporter

class Spans(SpanExporter):
    def export(self, spans):
        print("exported", *[span.name for span in spans])

class Reader(InMemoryMetricReader):
    def force_flush(self, timeout_millis=0):
        data = self.get_metrics_data()
        print("read", data.resource_metrics[0].scope_metrics[0].metrics[0].name)
"""
ENTRY_POINTS = """
[opentelemetry_traces_exporter]
mine = my_exporters:Spans
[opentelemetry_metrics_exporter]
mine = my_exporters:Reader
"""


def export(
    *, arguments: str = "", more: str = "", packages: Path | None = None, **variables: str
) -> tuple[list[str], str]:
    """Configure OpenTelemetry in a new process and use it; return what it prints and logs."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    if packages is not None:
        env["PYTHONPATH"] = str(packages)
    done = subprocess.run(
        [sys.executable, "-c", EXPORT.format(arguments=arguments, more=more)],
        env=env | variables,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines(), done.stderr


def test_without_an_exporter_nothing_is_recorded() -> None:
    printed, logged = export(OTEL_TRACES_EXPORTER="none")

    assert printed == ["tracing False", "measuring _ProxyMeterProvider"]
    assert logged == ""


def test_the_console_exporters_leave_standard_output_to_the_commands() -> None:
    printed, logged = export(OTEL_TRACES_EXPORTER="console", OTEL_METRICS_EXPORTER="console")

    assert printed == ["tracing True", "measuring MeterProvider"]
    assert '"name": "a span"' in logged
    assert telemetry.METRIC_PHASE_SECONDS in logged


def test_an_exporter_of_any_installed_package_is_found_and_several_may_be_named(
    tmp_path: Path,
) -> None:
    (tmp_path / "my_exporters.py").write_text(PACKAGE)
    metadata = tmp_path / "my_exporters-1.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: my-exporters\nVersion: 1\n")
    (metadata / "entry_points.txt").write_text(ENTRY_POINTS)

    printed, logged = export(
        packages=tmp_path, OTEL_TRACES_EXPORTER="console, mine", OTEL_METRICS_EXPORTER="mine"
    )

    assert printed[2:] == ["exported a span", f"read {telemetry.METRIC_PHASE_SECONDS}"]
    assert '"name": "a span"' in logged


def test_metrics_are_kept_for_prometheus_when_they_are_scraped() -> None:
    pytest.importorskip("opentelemetry.exporter.prometheus")

    printed, _ = export(
        arguments="scraped=True",
        more="import prometheus_client; print(prometheus_client.generate_latest().decode())",
    )

    assert printed[:2] == ["tracing False", "measuring MeterProvider"]
    # The flush before has put it there as well.
    (count,) = {line for line in printed if "pgworker_phase_duration_seconds_count" in line}
    assert count.endswith(" 1.0")


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        (
            {"OTEL_TRACES_EXPORTER": "otlp"},
            "OTEL_TRACES_EXPORTER: otlp needs a package: pip install " + OTLP_HTTP,
        ),
        (
            {"OTEL_METRICS_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
            "OTEL_METRICS_EXPORTER: otlp needs a package: pip install " + OTLP_GRPC,
        ),
        (
            {
                "OTEL_TRACES_EXPORTER": "otlp",
                "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf",
                "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
            },
            "OTEL_TRACES_EXPORTER: otlp needs a package: pip install " + OTLP_HTTP,
        ),
        (
            {"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"},
            "OTEL_EXPORTER_OTLP_PROTOCOL: 'http/json' is not one of http/protobuf, grpc",
        ),
        (
            {"OTEL_TRACES_EXPORTER": "zipkin"},
            (
                "OTEL_TRACES_EXPORTER: 'zipkin' is not one of none, otlp, console;"
                " for another exporter install its package"
            ),
        ),
    ],
)
def test_an_exporter_that_is_not_installed_is_one_line_that_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], message: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    with pytest.raises(BadConfiguration) as refusal:
        telemetry.configure_opentelemetry()

    assert str(refusal.value) == message
