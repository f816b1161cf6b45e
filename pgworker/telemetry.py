"""Logs, spans and metrics. Every span and metric name is a constant here."""

from __future__ import annotations

import logging
import os
import sys
from contextlib import nullcontext
from contextvars import ContextVar
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TextIO

import structlog
from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricReader, PeriodicExportingMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
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


# The job of the present task: each of its lines and spans names it.
_job: ContextVar[Job | None] = ContextVar("pgworker.job", default=None)
NO_SPAN = nullcontext(trace.INVALID_SPAN)


def get_logger() -> structlog.stdlib.BoundLogger:
    """Return the logger; `bind_job` and `structlog.contextvars` add fields to its lines."""
    logger: structlog.stdlib.BoundLogger = structlog.get_logger("pgworker")
    return logger


def extract_parent_context(traceparent: str | None) -> Context | None:
    """Return the trace context in which the job was enqueued (W3C trace context, level 1)."""
    if traceparent is None:
        return None
    return TraceContextTextMapPropagator().extract({"traceparent": traceparent})


def bind_job(job: Job) -> None:
    """Let each line that the present task logs from now on name this job.

    It only sets a variable, which is read when a line is written: it costs next to nothing.
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
    """Return whether spans are recorded; if not, `NO_SPAN` stands in for any."""
    return not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)


def start_phase_span(job: Job) -> AbstractContextManager[trace.Span]:
    """Return the span of one run of the job's phase, a child of the one that enqueued the job."""
    return tracer.start_as_current_span(
        SPAN_PHASE,
        context=extract_parent_context(job.trace_context),
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


class _Signal(NamedTuple):
    """What OpenTelemetry calls a signal, with the names by which its exporters are found.

    Attributes:
        variable: names the exporters.
        otlp_protocol: names the protocol of `otlp` for this signal alone.
        group: entry points of installed exporters; a public contract of opentelemetry-sdk.
    """

    variable: str
    otlp_protocol: str
    group: str


_TRACES = _Signal(
    "OTEL_TRACES_EXPORTER", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "opentelemetry_traces_exporter"
)
_METRICS = _Signal(
    "OTEL_METRICS_EXPORTER", "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", "opentelemetry_metrics_exporter"
)
# The SDK would take grpc when no variable names a protocol; the specification, and we, http.
_OTLP_PROTOCOL = "OTEL_EXPORTER_OTLP_PROTOCOL"
_DEFAULT_OTLP_PROTOCOL = "http/protobuf"
_OTLP_EXPORTERS = {"http/protobuf": "otlp_proto_http", "grpc": "otlp_proto_grpc"}


def configure_opentelemetry(*, scraped: bool = False) -> None:
    """Start exporting spans and metrics as OpenTelemetry's own `OTEL_*` variables say.

    `OTEL_TRACES_EXPORTER` and `OTEL_METRICS_EXPORTER` name exporters, separated by commas: `none`
    (the default), `console`, `otlp`, or any other one whose package is installed.

    Args:
        scraped: keep metrics for Prometheus to fetch as well (`GET /metrics`; extra `http`).

    Raises:
        BadConfiguration: an exporter isn't installed, or the protocol of `otlp` isn't known.
    """
    span_exporters = _load_exporters(_TRACES)
    readers = [_as_reader(each) for each in _load_exporters(_METRICS)]
    if scraped:
        from opentelemetry.exporter.prometheus import PrometheusMetricReader  # the extra `http`

        # Two of them would report each metric twice.
        if not any(isinstance(each, PrometheusMetricReader) for each in readers):
            readers.append(PrometheusMetricReader())
    # Without an exporter the API's own providers stay, which record nothing.
    if span_exporters:
        provider = TracerProvider()
        for exporter in span_exporters:
            provider.add_span_processor(BatchSpanProcessor(exporter))
        trace.set_tracer_provider(provider)
    if readers:
        metrics.set_meter_provider(MeterProvider(readers))


def _load_exporters(signal: _Signal) -> list[Any]:
    names = (name.strip() for name in os.environ.get(signal.variable, "").split(","))
    return [_load_exporter(signal, name) for name in names if name not in {"", "none"}]


def _load_exporter(signal: _Signal, name: str) -> Any:
    entry_point = _choose_otlp_exporter(signal) if name == "otlp" else name
    found = next(iter(entry_points(group=signal.group, name=entry_point)), None)
    if found is None:
        raise BadConfiguration(f"{signal.variable}: {_explain_missing(signal, name, entry_point)}")
    try:
        exporter = found.load()
    except ImportError as error:
        raise BadConfiguration(f"{signal.variable}: {name} can't be loaded: {error}") from error
    # Standard output belongs to the results of the commands.
    return exporter(out=sys.stderr) if name == "console" else exporter()


def _explain_missing(signal: _Signal, name: str, entry_point: str) -> str:
    if entry_point in _OTLP_EXPORTERS.values():
        package = f"opentelemetry-exporter-{entry_point.replace('_', '-')}"
        return f"{name} needs a package: pip install {package}"
    installed = sorted({each.name for each in entry_points(group=signal.group)})
    return (
        f"{name!r} is not one of none, otlp, {', '.join(installed)}; "
        "for another exporter install its package"
    )


def _choose_otlp_exporter(signal: _Signal) -> str:
    for variable in (signal.otlp_protocol, _OTLP_PROTOCOL):
        protocol = os.environ.get(variable)
        if protocol and protocol not in _OTLP_EXPORTERS:
            raise BadConfiguration(
                f"{variable}: {protocol!r} is not one of {', '.join(_OTLP_EXPORTERS)}"
            )
        if protocol:
            return _OTLP_EXPORTERS[protocol]
    return _OTLP_EXPORTERS[_DEFAULT_OTLP_PROTOCOL]


def _as_reader(exporter: Any) -> MetricReader:
    """Return an exporter that is asked (a reader) as it is; send to any other one periodically."""
    if isinstance(exporter, MetricReader):
        return exporter
    return PeriodicExportingMetricReader(exporter)
