"""What a project's name, its status and its services tell. Pure."""

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
    """Return what the client's project is called: without dots, and nobody else would choose it."""
    return f"{_PREFIX}{client_id}"


def judge_project(status: str) -> Observation | None:
    """Return what a project's status means, or None when its services decide.

    An unheard-of status means waiting: it is likelier to be new than to be final.
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
    """Return `READY` when each service that we asked for is there and healthy."""
    status_of = {service.name: service.status[:40] for service in services}
    told = {name: status_of.get(name, "not listed") for name in SERVICES}
    is_ready = all(status == "ACTIVE_HEALTHY" for status in told.values())
    answer = "services: " + ", ".join(f"{name} {status}" for name, status in told.items())
    return Observation(TenantState.READY if is_ready else TenantState.COMING_UP, answer)


def is_called(project: ListedProject, name: str) -> bool:
    """Tell whether it is a project, not a branch or a removed one, of exactly that name."""
    # `search` is a substring match at best, and a branch carries a name like a project's.
    return project.name == name and not project.is_branch and project.status != "REMOVED"


def is_leaving(project: ListedProject) -> bool:
    """Tell whether it is being deleted."""
    return project.status == "GOING_DOWN"


def listed_ref(project: ListedProject) -> str:
    """Return the project's ref.

    Raises:
        Transient: it isn't one.
    """
    if REF_PATTERN.fullmatch(project.ref) is None:
        raise Transient(
            f"the listing gives project {project.name!r} the malformed ref {project.ref[:40]!r}"
        )
    return project.ref


def read_remote_tenant(project: ListedProject) -> RemoteTenant | None:
    """Return the project as one of ours, or None when it isn't one.

    Raises:
        Transient: it is, and its ref can't be used.
    """
    try:
        client_id = UUID(project.name.removeprefix(_PREFIX))
    except ValueError:
        return None
    # UUIDs may be written in several ways; we write them in one.
    if not is_called(project, project_name(client_id)):
        return None
    return RemoteTenant(
        ref=listed_ref(project),
        name=project.name,
        client_id=client_id,
        state=RemoteState.DELETING if is_leaving(project) else RemoteState.COMPLETE,
        detail=f"project {project.ref} ({project.status[:40]})",
        created_at=read_time(project.inserted_at),
    )
