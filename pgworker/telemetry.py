"""Logs, spans and metrics. Every span and metric name is a constant here."""

from __future__ import annotations

import logging
import os
import sys
from contextlib import nullcontext
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Literal, TextIO

import structlog
from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import (
    ConsoleMetricExporter,
    MetricReader,
    PeriodicExportingMetricReader,
)
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from pgworker.errors import BadConfiguration

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from opentelemetry.context import Context

    from pgworker.models import Job

SPAN_PHASE = "pgworker.phase"

METRIC_PHASE_SECONDS = "pgworker.phase.duration"
METRIC_PROVISIONING_SECONDS = "pgworker.provisioning.duration"
METRIC_ATTEMPTS_FAILED = "pgworker.attempts.failed"

# Seconds: from a phase that only looks to one that waits for a project.
_BOUNDARIES = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1200)

tracer = trace.get_tracer("pgworker")
_meter = metrics.get_meter("pgworker")
phase_seconds = _meter.create_histogram(
    METRIC_PHASE_SECONDS,
    unit="s",
    description="one run of a phase, from claim or advance to end",
    explicit_bucket_boundaries_advisory=_BOUNDARIES,
)
provisioning_seconds = _meter.create_histogram(
    METRIC_PROVISIONING_SECONDS,
    unit="s",
    description="from the job's creation to ready",
    explicit_bucket_boundaries_advisory=_BOUNDARIES,
)
attempts_failed = _meter.create_counter(
    METRIC_ATTEMPTS_FAILED, description="phases that ended with an error, by error_kind"
)


# The job that the present task is about, and every line and span with it.
_job: ContextVar[Job | None] = ContextVar("pgworker.job", default=None)
NO_SPAN = nullcontext(trace.INVALID_SPAN)


def get_logger() -> structlog.stdlib.BoundLogger:
    """Return the logger; `bind_job` and `structlog.contextvars` add fields to its lines."""
    logger: structlog.stdlib.BoundLogger = structlog.get_logger("pgworker")
    return logger


def parent_context(traceparent: str | None) -> Context | None:
    """Return the trace context of whoever enqueued the job (W3C trace context, level 1)."""
    if traceparent is None:
        return None
    return TraceContextTextMapPropagator().extract({"traceparent": traceparent})


def bind_job(job: Job) -> None:
    """Let each line that the present task logs from now on name this job.

    One variable, which nobody looks at before a line is written: it costs next to nothing.
    """
    _job.set(job)


def get_job_fields(job: Job) -> dict[str, Any]:
    """Return the fields by which lines name a job."""
    return {"job_id": job.id, "client_id": str(job.client_id), "phase": job.job_type}


def merge_job(_: Any, __: str, event: structlog.types.EventDict) -> structlog.types.EventDict:
    """Add the fields of the present task's job; a processor of structlog."""
    job = _job.get()
    return event if job is None else {**get_job_fields(job), **event}


def is_tracing() -> bool:
    """Return whether somebody records spans; if not, `NO_SPAN` stands in for any."""
    return not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)


def phase_span(job: Job) -> AbstractContextManager[trace.Span]:
    """Return the span of one run of the job's phase, below whoever enqueued it."""
    return tracer.start_as_current_span(
        SPAN_PHASE,
        context=parent_context(job.trace_context),
        attributes={
            "pgworker.job_id": job.id,
            "pgworker.client_id": str(job.client_id),
            "pgworker.workflow": job.workflow,
            "pgworker.phase": job.job_type,
            "pgworker.attempts": job.attempts,
        },
    )


def configure_logging(
    log_format: Literal["json", "console"] | None,
    *,
    level: int = logging.INFO,
    file: TextIO | None = None,
) -> None:
    """Send logs to stderr: as JSON, or readable when stderr is a terminal (the default).

    Args:
        log_format: None chooses.
        level: below it nothing is logged.
        file: instead of stderr.
    """
    sink = file or sys.stderr
    readable = log_format == "console" or (log_format is None and sink.isatty())
    renderer: Any = (
        structlog.dev.ConsoleRenderer(colors=sink.isatty() and "NO_COLOR" not in os.environ)
        if readable
        else structlog.processors.JSONRenderer()
    )
    processors: list[Any] = [
        structlog.contextvars.merge_contextvars,
        merge_job,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if not readable:
        # Without local variables: a password may be among them.
        frames = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
        processors.append(structlog.processors.ExceptionRenderer(frames))
    structlog.configure(
        processors=[*processors, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(file=sink),
        cache_logger_on_first_use=False,
    )


def configure_opentelemetry(*, scraped: bool = False) -> None:
    """Start exporting spans and metrics as OpenTelemetry's own `OTEL_*` variables say.

    With `scraped`, metrics are also kept for Prometheus to fetch (`GET /metrics`; extra `http`).

    `OTEL_TRACES_EXPORTER` and `OTEL_METRICS_EXPORTER` may be `none` (the default), `console`
    or, with the package opentelemetry-exporter-otlp-proto-http installed, `otlp`.

    Raises:
        BadConfiguration: an exporter that isn't known or isn't installed.
    """
    traces = os.environ.get("OTEL_TRACES_EXPORTER", "none")
    measures = os.environ.get("OTEL_METRICS_EXPORTER", "none")
    if traces != "none":
        provider = TracerProvider()
        provider.add_span_processor(BatchSpanProcessor(_span_exporter(traces)))
        trace.set_tracer_provider(provider)
    readers: list[MetricReader] = []
    if measures != "none":
        readers.append(PeriodicExportingMetricReader(_metric_exporter(measures)))
    if scraped:
        from opentelemetry.exporter.prometheus import PrometheusMetricReader  # the extra `http`

        readers.append(PrometheusMetricReader())
    if readers:
        metrics.set_meter_provider(MeterProvider(readers))


def _span_exporter(name: str) -> Any:
    if name == "console":
        return ConsoleSpanExporter(out=sys.stderr)
    if name == "otlp":
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import (  # optional
                OTLPSpanExporter,
            )
        except ImportError:
            raise _otlp_is_missing("OTEL_TRACES_EXPORTER") from None
        return OTLPSpanExporter()
    raise _unknown_exporter("OTEL_TRACES_EXPORTER", name)


def _metric_exporter(name: str) -> Any:
    if name == "console":
        return ConsoleMetricExporter(out=sys.stderr)
    if name == "otlp":
        try:
            from opentelemetry.exporter.otlp.proto.http.metric_exporter import (  # optional
                OTLPMetricExporter,
            )
        except ImportError:
            raise _otlp_is_missing("OTEL_METRICS_EXPORTER") from None
        return OTLPMetricExporter()
    raise _unknown_exporter("OTEL_METRICS_EXPORTER", name)


def _otlp_is_missing(setting: str) -> BadConfiguration:
    return BadConfiguration(
        f"{setting}: otlp needs a package: pip install opentelemetry-exporter-otlp-proto-http"
    )


def _unknown_exporter(setting: str, name: str) -> BadConfiguration:
    return BadConfiguration(f"{setting}: {name!r} is not one of none, console, otlp")
