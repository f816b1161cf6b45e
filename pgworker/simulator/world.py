"""The state of a simulator, and a request as its operations see it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from pgworker.simulator.databases import Databases
from pgworker.simulator.faults import Faults
from pgworker.simulator.ledger import Ledger
from pgworker.simulator.limits import RateLimits
from pgworker.simulator.replies import Refused
from pgworker.simulator.settings import Organization, SimulatorSettings
from pgworker.simulator.state import Project, Projects


@dataclass(slots=True)
class World:
    """The state that the routes share.

    Attributes:
        abort_connection: resets the connection of an ASGI scope; the server sets it.
        pooler_address: host and port that the session pooler listens on; the server sets them.
    """

    settings: SimulatorSettings
    projects: Projects
    databases: Databases
    faults: Faults
    limits: RateLimits
    ledger: Ledger = field(default_factory=Ledger)
    abort_connection: Callable[[Any], None] = lambda scope: None  # noqa: ARG005
    pooler_address: tuple[str, int] = ("127.0.0.1", 0)

    @classmethod
    def create(cls, settings: SimulatorSettings) -> World:
        """Create a world without projects."""
        return cls(
            settings=settings,
            projects=Projects(settings),
            databases=Databases(settings.admin_dsn, query_seconds=settings.query_seconds),
            faults=Faults(settings.clock),
            limits=RateLimits(settings.rate_limit, settings.rate_window_seconds, settings.clock),
        )

    def get_organization(self, slug: str) -> Organization:
        """Return the organization.

        Raises:
            Refused: 404.
        """
        for organization in self.settings.organizations:
            if organization.slug == slug:
                return organization
        raise Refused(404, "Organization not found")


@dataclass(frozen=True, slots=True)
class Call:
    """One request.

    Attributes:
        path: the parameters in the path: `ref`, `slug`, `table`.
        query: the query parameters in order; a name may be repeated.
        headers: by lower-case name.
    """

    world: World
    path: dict[str, str]
    query: list[tuple[str, str]]
    headers: dict[str, str] = field(repr=False)
    body: bytes = field(repr=False)

    def parse_json(self) -> Any:
        """Return the body.

        Raises:
            Refused: 415 when it isn't declared as JSON, 400 when it isn't JSON.
        """
        declared = self.headers.get("content-type", "").partition(";")[0].strip()
        if declared != "application/json":
            raise Refused(415, "Unsupported Media Type")
        try:
            return json.loads(self.body)
        except ValueError:
            raise Refused(400, "Body is not valid JSON") from None

    def get_parameters(self, *, repeated: tuple[str, ...] = ()) -> dict[str, Any]:
        """Return the query parameters; those that may be repeated are lists."""
        single: dict[str, Any] = dict(self.query)
        for name in repeated:
            single[name] = [value for key, value in self.query if key == name]
        return single

    def get_project(self) -> Project:
        """Return the project in the path.

        Raises:
            Refused: 404.
        """
        return self.world.projects.get(self.path["ref"])
