"""Which phases a job goes through, and where users add their own."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING

from pgworker.errors import BadConfiguration, Permanent
from pgworker.provisioning.phases.await_project import AwaitProject
from pgworker.provisioning.phases.create_project import CreateProject
from pgworker.provisioning.phases.schema_sync import SchemaSync
from pgworker.provisioning.phases.smoke_checks import SmokeChecks

if TYPE_CHECKING:
    from pgworker.provisioning.phases.base import Phase

ENTRY_POINTS = "pgworker.workflows"


@dataclass(frozen=True, slots=True)
class Workflow:
    """Phases in their order. Their names are unique: a job's `job_type` says where it is.

    Attributes:
        name: what `client_provisioning_jobs.workflow` says; `provision` is what sign-ups get.

    Raises:
        BadConfiguration: there is no phase, or two have the same name.
    """

    name: str
    phases: tuple[Phase, ...]

    def __post_init__(self) -> None:
        """Refuse phases that a job's `job_type` couldn't tell apart."""
        names = [phase.name for phase in self.phases]
        if not names or len(set(names)) != len(names):
            raise BadConfiguration(f"workflow {self.name}: phases need names of their own: {names}")

    def find_position(self, job_type: str) -> int:
        """Return the index of a phase.

        Raises:
            Permanent: there is none of that name.
        """
        for index, phase in enumerate(self.phases):
            if phase.name == job_type:
                return index
        names = ", ".join(phase.name for phase in self.phases)
        raise Permanent(f"workflow {self.name} has no phase {job_type} (it has {names})")


PROVISION = Workflow("provision", (CreateProject(), AwaitProject(), SchemaSync(), SmokeChecks()))


def find_workflows(setting: str | None) -> dict[str, Workflow]:
    """Return the workflows: ours, those of installed packages, that of PGWORKER_WORKFLOW.

    A later one of the same name replaces an earlier one.

    Raises:
        BadConfiguration: one can't be imported, or isn't a `Workflow`.
    """
    found = [
        PROVISION,
        *(
            _import_workflow(point, f"entry point {point.name} of {ENTRY_POINTS}")
            for point in entry_points(group=ENTRY_POINTS)
        ),
    ]
    if setting is not None:
        # Last, so that it wins: an operator must be able to replace what a package brings.
        point = EntryPoint("workflow", setting, ENTRY_POINTS)
        found.append(_import_workflow(point, f"PGWORKER_WORKFLOW: {setting}"))
    return {workflow.name: workflow for workflow in found}


def _import_workflow(point: EntryPoint, where: str) -> Workflow:
    try:
        value = point.load()
    except (ImportError, AttributeError) as error:
        raise BadConfiguration(f"{where}: {error}") from error
    if not isinstance(value, Workflow):
        raise BadConfiguration(f"{where} is not a pgworker Workflow")
    return value
