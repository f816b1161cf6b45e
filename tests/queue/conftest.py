"""Fixtures for tests of the queue."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from opentelemetry import metrics as otel_metrics
from opentelemetry import trace as otel_trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def _span_exporter() -> InMemorySpanExporter:
    # OpenTelemetry takes a provider once in a process.
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    otel_trace.set_tracer_provider(provider)
    return exporter


@pytest.fixture
def spans(_span_exporter: InMemorySpanExporter) -> Iterator[InMemorySpanExporter]:
    """The spans that end in this test."""
    _span_exporter.clear()
    yield _span_exporter
    _span_exporter.clear()


@pytest.fixture(scope="session")
def metrics() -> InMemoryMetricReader:
    """Everything that is measured in this process from now on."""
    reader = InMemoryMetricReader()
    otel_metrics.set_meter_provider(MeterProvider([reader]))
    return reader
