"""Metrics in Prometheus' text format."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from pgworker.api.auth import READ
from pgworker.api.problems import ProblemRoute
from pgworker.api.service import ServiceDep

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgworker.status.rows import HealthRow

router = APIRouter(route_class=ProblemRoute, tags=["probes"])


class QueueHealth(Collector):
    """The row of `queue_health`, a gauge for each column."""

    def __init__(self, health: HealthRow) -> None:
        self._health = health

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Yield the gauges."""
        for name, value in self._health._asdict().items():
            documentation = f"{name} of pgworker.queue_health: the same in every process"
            yield GaugeMetricFamily(f"pgworker_queue_{name}", documentation, value=float(value))


@router.get(
    "/metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
    dependencies=[READ],
)
async def metrics(service: ServiceDep) -> Response:
    """Return the state of the queue (`pgworker_queue_…`), and what this process has done."""
    # A registry for this request: these gauges are the database's, as of now. Those of the process
    # are in the global one, where OpenTelemetry's exporter has registered itself.
    registry = CollectorRegistry()
    registry.register(QueueHealth(await service.status.get_health()))
    return Response(
        generate_latest(registry) + generate_latest(REGISTRY), media_type=CONTENT_TYPE_LATEST
    )
