"""Simulates Supabase's Management API, with real databases and faults that a test orders."""

from pgworker.errors import PgworkerError

try:
    from pgworker.simulator.server import Simulator, running_simulator
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] not in {"starlette", "uvicorn"}:
        raise
    raise PgworkerError(
        "the simulator needs starlette and uvicorn: pip install 'pgworker[http]'"
    ) from error

from pgworker.simulator.faults import (
    Answer,
    Becomes,
    Drop,
    ExtraFields,
    Fault,
    Faults,
    Hang,
    Order,
    Truncated,
)
from pgworker.simulator.ledger import Created, Entry, Ledger
from pgworker.simulator.settings import Organization, SimulatorSettings
from pgworker.simulator.state import Project, Projects

__all__ = [
    "Answer",
    "Becomes",
    "Created",
    "Drop",
    "Entry",
    "ExtraFields",
    "Fault",
    "Faults",
    "Hang",
    "Ledger",
    "Order",
    "Organization",
    "Project",
    "Projects",
    "Simulator",
    "SimulatorSettings",
    "Truncated",
    "running_simulator",
]
