"""What the name, the status and the services of a project mean. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from uuid import UUID

from pgworker.errors import Transient
from pgworker.providers.base import Observation, RemoteState, RemoteTenant, TenantState
from pgworker.providers.supabase.models import REF_PATTERN, read_time

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pgworker.providers.supabase.models import ListedProject, ServiceHealth

# What our smoke checks and our SQL need; the others may come up later.
SERVICES: Final = ("db", "auth", "rest", "pooler")

_PREFIX: Final = "pgworker-"
_UP = frozenset({"ACTIVE_HEALTHY", "ACTIVE_UNHEALTHY"})
_WAIT = frozenset({"UNKNOWN", "COMING_UP", "RESTORING", "UPGRADING", "RESTARTING", "RESIZING"})
_PAUSED = frozenset({"PAUSING", "INACTIVE"})
_GONE = frozenset({"GOING_DOWN", "REMOVED"})
_FAILED = frozenset({"INIT_FAILED", "RESTORE_FAILED", "PAUSE_FAILED"})
KNOWN_STATUSES: Final = _UP | _WAIT | _PAUSED | _GONE | _FAILED


def project_name(client_id: UUID) -> str:
    """Return the name of the client's project: without dots, and nothing that a person chooses."""
    return f"{_PREFIX}{client_id}"


def judge_project(status: str) -> Observation | None:
    """Return what a project's status means, or None when its services decide.

    An unknown status means waiting: it is more likely new than final.
    """
    answer = f"project {status[:40]}"
    if status in _UP:
        return None
    if status in _PAUSED:
        return Observation(TenantState.BROKEN, f"{answer}: it is paused; restore it, then retry")
    if status in _GONE:
        return Observation(TenantState.GONE, f"{answer}: it is being deleted or was")
    if status in _FAILED:
        return Observation(TenantState.BROKEN, f"{answer}: it won't come up by itself")
    return Observation(TenantState.COMING_UP, answer)


def judge_services(services: Iterable[ServiceHealth]) -> Observation:
    """Return `READY` when each service that we asked for is listed and healthy."""
    status_of = {service.name: service.status[:40] for service in services}
    statuses = {name: status_of.get(name, "not listed") for name in SERVICES}
    is_ready = all(status == "ACTIVE_HEALTHY" for status in statuses.values())
    answer = "services: " + ", ".join(f"{name} {status}" for name, status in statuses.items())
    return Observation(TenantState.READY if is_ready else TenantState.COMING_UP, answer)


def has_name(project: ListedProject, name: str) -> bool:
    """Return whether it is a project of exactly that name, not a branch or a removed one."""
    # `search` is a substring match at best, and a branch carries a name like a project's.
    return project.name == name and not project.is_branch and project.status != "REMOVED"


def is_being_deleted(project: ListedProject) -> bool:
    """Return whether it is being deleted."""
    return project.status == "GOING_DOWN"


def read_ref(project: ListedProject) -> str:
    """Return the project's ref.

    Raises:
        Transient: it is malformed.
    """
    if REF_PATTERN.fullmatch(project.ref) is None:
        raise Transient(
            f"the listing gives project {project.name!r} the malformed ref {project.ref[:40]!r}"
        )
    return project.ref


def read_remote_tenant(project: ListedProject) -> RemoteTenant | None:
    """Return the project as a tenant, or None when its name isn't one of ours.

    Raises:
        Transient: it is one, and its ref can't be used.
    """
    try:
        client_id = UUID(project.name.removeprefix(_PREFIX))
    except ValueError:
        return None
    # A UUID can be written in several ways; our names use one of them.
    if not has_name(project, project_name(client_id)):
        return None
    return RemoteTenant(
        ref=read_ref(project),
        name=project.name,
        client_id=client_id,
        state=RemoteState.DELETING if is_being_deleted(project) else RemoteState.COMPLETE,
        detail=f"project {project.ref} ({project.status[:40]})",
        created_at=read_time(project.inserted_at),
    )
