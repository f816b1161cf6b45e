"""Projects: their state machine and their listing. No I/O; the clock is passed in.

The statuses of a project are a timeline, which requests write and which can be read at any moment.
A listing that lags reads the timelines at an earlier moment.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from random import Random

from pgworker.simulator.keys import ApiKey, make_first_keys
from pgworker.simulator.replies import Refused
from pgworker.simulator.settings import SimulatorSettings

# Not a status of the API: the project answers 404 from then on.
VANISHED = "VANISHED"


class Status(StrEnum):
    """The statuses of the simulator's state machine; a fault may order any other."""

    UNKNOWN = "UNKNOWN"
    COMING_UP = "COMING_UP"
    ACTIVE_HEALTHY = "ACTIVE_HEALTHY"
    PAUSING = "PAUSING"
    INACTIVE = "INACTIVE"
    RESTORING = "RESTORING"
    GOING_DOWN = "GOING_DOWN"


@dataclass(slots=True)
class Project:
    """One project.

    Attributes:
        number: the integer id that only the answer to a delete contains.
        appeared_at: seconds of the clock.
        timeline: (from when, status), in order of time.
    """

    number: int
    ref: str
    name: str
    organization: str
    region: str
    inserted_at: datetime
    appeared_at: float
    timeline: list[tuple[float, str]]
    keys: list[ApiKey]
    database_password: str = field(repr=False)
    is_branch: bool = False

    def status_at(self, moment: float) -> str:
        """Return its status at a moment; `VANISHED` before its creation and after its deletion."""
        status = VANISHED
        for since, entered in self.timeline:
            if since <= moment:
                status = entered
        return status

    def healthy_for(self, moment: float) -> float | None:
        """Return how many seconds it has been ACTIVE_HEALTHY, or None when it isn't."""
        if self.status_at(moment) != Status.ACTIVE_HEALTHY:
            return None
        entered = max(since for since, _ in self.timeline if since <= moment)
        return moment - entered

    def enter(self, status: str, *, at: float) -> None:
        """Enter a status at that moment, for good: later entries of the timeline are removed."""
        self.timeline = [stage for stage in self.timeline if stage[0] < at]
        self.timeline.append((at, status))

    def replace_final_status(self, status: str) -> None:
        """Replace the last status of the timeline."""
        since, _ = self.timeline[-1]
        self.timeline[-1] = (since, status)


class Projects:
    """All projects of the simulated user."""

    def __init__(self, settings: SimulatorSettings) -> None:
        self._settings = settings
        self._clock: Callable[[], float] = settings.clock
        self._random = Random(settings.seed)  # noqa: S311 (names and keys of a simulator)
        self._projects: dict[str, Project] = {}

    def __len__(self) -> int:
        return len(self._projects)

    @property
    def random(self) -> Random:
        """The source of everything random, seeded by the settings."""
        return self._random

    def all(self) -> list[Project]:
        """Return every project that was ever added, in order of creation."""
        return list(self._projects.values())

    def find_by_name(self, name: str) -> list[Project]:
        """Return the existing projects of exactly this name."""
        now = self._clock()
        return [
            project
            for project in self._projects.values()
            if project.name == name and project.status_at(now) != VANISHED
        ]

    def get(self, ref: str) -> Project:
        """Return the project.

        Raises:
            Refused: 404, it doesn't exist or has been deleted.
        """
        project = self._projects.get(ref)
        if project is None or project.status_at(self._clock()) == VANISHED:
            raise Refused(404, "Project not found")
        return project

    def status(self, project: Project) -> str:
        """Return its status now."""
        return project.status_at(self._clock())

    # -- changes ---------------------------------------------------------------------------

    def create(
        self, *, name: str, organization: str, region: str, database_password: str
    ) -> Project:
        """Create a project, which then comes up.

        Raises:
            Refused: 400 for a name in use, the quota's status above the quota.
        """
        if self._settings.duplicate_names == "refused" and any(
            project.organization == organization for project in self.find_by_name(name)
        ):
            raise Refused(400, f"Project with name {name} already exists in your organization")
        self._check_quota(organization)
        now = self._clock()
        up_at = now + self._settings.coming_up_seconds
        return self._add(
            name=name,
            organization=organization,
            region=region,
            database_password=database_password,
            appeared_at=now,
            timeline=[(now, Status.COMING_UP), (up_at, Status.ACTIVE_HEALTHY)],
        )

    def plant(
        self,
        name: str,
        *,
        organization: str | None = None,
        status: str = Status.ACTIVE_HEALTHY,
        is_branch: bool = False,
        region: str = "us-east-1",
        database_password: str = "planted-without-a-request",  # noqa: S107 (of a simulator)
    ) -> Project:
        """Add a project that has always existed: a look-alike, a branch, another user's."""
        return self._add(
            name=name,
            organization=organization or self._settings.organizations[0].slug,
            region=region,
            database_password=database_password,
            appeared_at=-math.inf,
            timeline=[(-math.inf, status)],
            is_branch=is_branch,
        )

    def pause(self, project: Project) -> None:
        """Start to pause an active project.

        Raises:
            Refused: 400 in any other status.
        """
        self._require(project, Status.ACTIVE_HEALTHY, action="pause")
        self._pass_through(project, Status.PAUSING, Status.INACTIVE)

    def restore(self, project: Project) -> None:
        """Start to restore a paused project.

        Raises:
            Refused: 400 in any other status.
        """
        self._require(project, Status.INACTIVE, action="restore")
        self._pass_through(project, Status.RESTORING, Status.ACTIVE_HEALTHY)

    def delete(self, project: Project) -> None:
        """Start to delete a project.

        Raises:
            Refused: 400 while it is starting.
        """
        if self.status(project) in {Status.UNKNOWN, Status.COMING_UP}:
            raise Refused(400, "Project not ready for deletion.")
        self._pass_through(project, Status.GOING_DOWN, VANISHED)

    # -- reads ------------------------------------------------------------------------------

    def listed(self, organization: str | None = None) -> list[tuple[Project, str]]:
        """Return projects with their status, as of `listing_lag_seconds` ago."""
        moment = self._clock() - self._settings.listing_lag_seconds
        seen = [(project, project.status_at(moment)) for project in self._projects.values()]
        return [
            (project, status)
            for project, status in seen
            if status != VANISHED and organization in (None, project.organization)
        ]

    def service_status(self, project: Project, service: str) -> str:
        """Return a service's health; services lag behind their project, the pooler even more."""
        now = self._clock()
        healthy_for = project.healthy_for(now)
        if healthy_for is None:
            starting = self.status(project) in {Status.COMING_UP, Status.RESTORING}
            return "COMING_UP" if starting else "UNHEALTHY"
        lag = self._settings.services_lag_seconds if service != "db" else 0.0
        if service == "pooler":
            lag = max(lag, self._settings.pooler_lag_seconds)
        return "ACTIVE_HEALTHY" if healthy_for >= lag else "UNHEALTHY"

    def require_up(self, project: Project, *, lag_seconds: float = 0.0) -> None:
        """Check that the project has been up for so long.

        Raises:
            Refused: 400, it isn't ready.
        """
        healthy_for = project.healthy_for(self._clock())
        if healthy_for is None or healthy_for < lag_seconds:
            raise Refused(400, "Project is not ready yet, try again later.")

    def is_known_to_pooler(self, ref: str) -> bool:
        """Return whether the pooler knows this tenant by now."""
        project = self._projects.get(ref)
        if project is None:
            return False
        healthy_for = project.healthy_for(self._clock())
        return healthy_for is not None and healthy_for >= self._settings.pooler_lag_seconds

    # -- helpers ----------------------------------------------------------------------------

    def _add(
        self,
        *,
        name: str,
        organization: str,
        region: str,
        database_password: str,
        appeared_at: float,
        timeline: list[tuple[float, str]],
        is_branch: bool = False,
    ) -> Project:
        ref = "".join(self._random.choices("abcdefghijklmnopqrstuvwxyz", k=20))
        inserted_at = datetime.now(UTC)
        project = Project(
            number=len(self._projects) + 1,
            ref=ref,
            name=name,
            organization=organization,
            region=region,
            inserted_at=inserted_at,
            appeared_at=appeared_at,
            timeline=timeline,
            keys=make_first_keys(
                self._random,
                kinds=self._settings.key_kinds,
                ref=ref,
                inserted_at=inserted_at.isoformat(),
                foreign_secret=self._settings.foreign_secret_key,
            ),
            database_password=database_password,
            is_branch=is_branch,
        )
        self._projects[ref] = project
        return project

    def _check_quota(self, organization: str) -> None:
        limit = self._settings.max_projects
        now = self._clock()
        live = [
            project
            for project in self._projects.values()
            if project.organization == organization
            and project.status_at(now) not in {VANISHED, Status.INACTIVE}
        ]
        if limit is not None and len(live) >= limit:
            raise Refused(
                self._settings.quota_status,
                "The following organization members have reached their maximum limits for the "
                "number of active free projects within organizations where they are an "
                f"administrator or owner: simulated-user ({limit} project limit).",
            )

    def _require(self, project: Project, status: Status, *, action: str) -> None:
        now = self.status(project)
        if now != status:
            raise Refused(400, f"Cannot {action} a project in status {now}.")

    def _pass_through(self, project: Project, passing: str, final: str) -> None:
        now = self._clock()
        project.enter(passing, at=now)
        project.timeline.append((now + self._settings.transition_seconds, final))
