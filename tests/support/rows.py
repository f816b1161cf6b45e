"""Rows of the status views that never were in a database: what a test doesn't set is null."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pgworker.status.rows import ClientStatusRow, EventRow, HealthRow, PhaseLatencyRow

if TYPE_CHECKING:
    from typing import NamedTuple, TypeVar

    R = TypeVar("R", bound=NamedTuple)


def client_status_row(**columns: Any) -> ClientStatusRow:
    return _make(ClientStatusRow, None, {"may_cost_money": False} | columns)


def event_row(**columns: Any) -> EventRow:
    return _make(EventRow, None, columns)


def health_row(**columns: Any) -> HealthRow:
    return _make(HealthRow, 0, columns)


def phase_latency_row(**columns: Any) -> PhaseLatencyRow:
    return _make(PhaseLatencyRow, None, columns)


def _make(shape: type[R], default: object, columns: dict[str, Any]) -> R:
    return shape._make([default] * len(shape._fields))._replace(**columns)
