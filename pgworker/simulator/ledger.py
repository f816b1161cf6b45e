"""The requests and answers of a simulator, for tests and checkers of invariants."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pgworker.simulator.state import Project


@dataclass(slots=True)
class Entry:
    """One request, without body, headers and secrets.

    Attributes:
        at: seconds of the simulator's clock when it arrived.
        project: the ref in its path, or of the project that it created.
        status: of the answer; None before it, and when the connection was dropped.
        fault: the kind of the ordered fault that it met.
        took_effect: False when the operation didn't run (refused, throttled, fault).
    """

    number: int
    at: float
    operation: str
    method: str
    path: str
    query: list[tuple[str, str]] = field(default_factory=list)
    project: str | None = None
    status: int | None = None
    fault: str | None = None
    took_effect: bool = False
    ended: bool = False


@dataclass(frozen=True, slots=True)
class Created:
    """A project that a request created; it stays in the ledger when the project is deleted."""

    ref: str
    name: str
    organization: str
    region: str
    entry: int


@dataclass(slots=True)
class Ledger:
    """Every request since the simulator started, and every project that one created."""

    entries: list[Entry] = field(default_factory=list)
    created: list[Created] = field(default_factory=list)

    def open_entry(
        self,
        *,
        at: float,
        operation: str,
        method: str,
        path: str,
        query: list[tuple[str, str]],
        project: str | None,
    ) -> Entry:
        """Add an entry for a request that has arrived."""
        entry = Entry(
            number=len(self.entries) + 1,
            at=at,
            operation=operation,
            method=method,
            path=path,
            query=query,
            project=project,
        )
        self.entries.append(entry)
        return entry

    def find(self, operation: str, *, project: str | None = None) -> list[Entry]:
        """Return the requests for an operation, optionally for one project only."""
        return [
            entry
            for entry in self.entries
            if entry.operation == operation and project in (None, entry.project)
        ]

    def record_created(self, project: Project, entry: Entry) -> None:
        """Record a project that a request created."""
        self.created.append(
            Created(
                ref=project.ref,
                name=project.name,
                organization=project.organization,
                region=project.region,
                entry=entry.number,
            )
        )

    @property
    def creates_by_name(self) -> Counter[str]:
        """Count how many projects were ever created under each name."""
        return Counter(project.name for project in self.created)

    def as_json(self) -> dict[str, Any]:
        """Return it as `GET /__simulator__/ledger` shows it."""
        return {
            "entries": [asdict(entry) for entry in self.entries],
            "created": [asdict(project) for project in self.created],
            "creates_by_name": dict(self.creates_by_name),
        }
