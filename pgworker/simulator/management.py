"""The operations of the Management API that pgworker uses, one function each.

Contract: Supabase Management API v1, its published OpenAPI document; what the document
doesn't define (error bodies, answers of `database/query`) follows recorded answers of the API.
"""

from __future__ import annotations

from typing import Any, get_args

from pgworker.simulator.databases import SqlFailed, StillRunning, database_name, role_name
from pgworker.simulator.keys import make_key
from pgworker.simulator.replies import Refused, Reply
from pgworker.simulator.shapes import (
    SMART_GROUP_REGION,
    CreateApiKeyBody,
    CreateProjectBody,
    HealthQuery,
    PageQuery,
    Region,
    RegionsQuery,
    RevealQuery,
    RunQueryBody,
    UpdatePasswordBody,
    read,
)
from pgworker.simulator.state import Project, Status
from pgworker.simulator.world import Call

QUERY_TIMED_OUT = 544
PARTNERS_ONLY = "This endpoint is only available to selected partner OAuth apps"
GOTRUE = {
    "name": "GoTrue",
    "version": "v2.180.0",
    "description": "GoTrue is a user registration and authentication API",
}
SORTS: dict[str, tuple[str, bool]] = {
    "name_asc": ("name", False),
    "name_desc": ("name", True),
    "created_asc": ("number", False),
    "created_desc": ("number", True),
}

# -- organizations ----------------------------------------------------------------------------


async def list_organizations(call: Call) -> Reply:
    """`GET /v1/organizations`."""
    return Reply(
        200,
        [
            {"id": organization.slug, "slug": organization.slug, "name": organization.name}
            for organization in call.world.settings.organizations
        ],
    )


async def get_organization(call: Call) -> Reply:
    """`GET /v1/organizations/{slug}`: the single form has no slug."""
    organization = call.world.get_organization(call.path["slug"])
    return Reply(
        200,
        {
            "id": organization.slug,
            "name": organization.name,
            "plan": organization.plan,
            "opt_in_tags": [],
            "allowed_release_channels": ["ga", "preview"],
        },
    )


async def list_organization_projects(call: Call) -> Reply:
    """`GET /v1/organizations/{slug}/projects`: a page of the listing, which may lag."""
    organization = call.world.get_organization(call.path["slug"])
    page = read(PageQuery, call.get_parameters())
    statuses = set(filter(None, page.statuses.split(",")))
    attribute, reverse = SORTS[page.sort]
    found = sorted(
        (
            (project, status)
            for project, status in call.world.projects.listed(organization.slug)
            if page.search.lower() in project.name.lower() and (not statuses or status in statuses)
        ),
        key=lambda item: (getattr(item[0], attribute), item[0].number),
        reverse=reverse,
    )
    shown = found[page.offset : page.offset + page.limit]
    return Reply(
        200,
        {
            "projects": [_as_listed(project, status) for project, status in shown],
            "pagination": {"count": len(found), "limit": page.limit, "offset": page.offset},
        },
    )


# -- projects ---------------------------------------------------------------------------------


async def list_projects(call: Call) -> Reply:
    """`GET /v1/projects`: across organizations, not paged."""
    return Reply(
        200,
        [
            _as_project(project, status) | _database_block(call, project)
            for project, status in call.world.projects.listed()
        ],
    )


async def create_project(call: Call) -> Reply:
    """`POST /v1/projects`: 201 with the status UNKNOWN, as the API does."""
    body = read(CreateProjectBody, call.parse_json())
    organization = call.world.get_organization(body.organization_slug)
    project = call.world.projects.create(
        name=body.name,
        organization=organization.slug,
        region=body.chosen_region,
        database_password=body.db_pass,
    )
    return Reply(201, _as_project(project, Status.UNKNOWN))


async def get_project(call: Call) -> Reply:
    """`GET /v1/projects/{ref}`."""
    project = call.get_project()
    status = call.world.projects.status(project)
    return Reply(200, _as_project(project, status) | _database_block(call, project))


async def delete_project(call: Call) -> Reply:
    """`DELETE /v1/projects/{ref}`: answers with the undocumented `slug`, as the API does."""
    project = call.get_project()
    call.world.projects.delete(project)
    await call.world.databases.drop(project.ref)
    return Reply(
        200,
        {
            "id": project.number,
            "ref": project.ref,
            "name": project.name,
            "slug": project.organization,
        },
    )


async def pause_project(call: Call) -> Reply:
    """`POST /v1/projects/{ref}/pause`: an empty body; the project is INACTIVE later."""
    call.world.projects.pause(call.get_project())
    return Reply(200)


async def restore_project(call: Call) -> Reply:
    """`POST /v1/projects/{ref}/restore`: an empty body; the project is up later."""
    call.world.projects.restore(call.get_project())
    return Reply(200)


async def get_health(call: Call) -> Reply:
    """`GET /v1/projects/{ref}/health`."""
    wanted = read(HealthQuery, call.get_parameters(repeated=("services",)))
    project = call.get_project()
    return Reply(200, [_as_health(call, project, service) for service in wanted.services])


async def available_regions(call: Call) -> Reply:
    """`GET /v1/projects/available-regions`."""
    wanted = read(RegionsQuery, call.get_parameters())
    call.world.get_organization(wanted.organization_slug)
    groups = [
        {"name": code.capitalize(), "code": code, "type": "smartGroup"}
        for code in SMART_GROUP_REGION
    ]
    regions = [
        {"name": code, "code": code, "type": "specific", "provider": "AWS"}
        for code in get_args(Region)
    ]
    return Reply(
        200,
        {
            "recommendations": {"smartGroup": groups[0], "specific": regions[:1]},
            "all": {"smartGroup": groups, "specific": regions},
        },
    )


# -- keys -------------------------------------------------------------------------------------


async def list_api_keys(call: Call) -> Reply:
    """`GET /v1/projects/{ref}/api-keys`: secrets are masked unless `reveal=true`."""
    reveal = read(RevealQuery, call.get_parameters()).reveal == "true"
    project = _project_with_keys(call)
    return Reply(200, [key.as_json(reveal=reveal) for key in project.keys])


async def create_api_key(call: Call) -> Reply:
    """`POST /v1/projects/{ref}/api-keys`: every call creates one more key."""
    reveal = read(RevealQuery, call.get_parameters()).reveal == "true"
    body = read(CreateApiKeyBody, call.parse_json())
    project = _project_with_keys(call)
    template = body.secret_jwt_template or {"role": "service_role"}
    key = make_key(
        call.world.projects.random,
        type=body.type,
        name=body.name,
        role="anon" if body.type == "publishable" else str(template.get("role", "service_role")),
        inserted_at=project.inserted_at.isoformat(),
        description=body.description,
    )
    project.keys.append(key)
    return Reply(201, key.as_json(reveal=reveal))


async def get_legacy_api_keys(call: Call) -> Reply:
    """`GET /v1/projects/{ref}/api-keys/legacy`."""
    project = call.get_project()
    return Reply(200, {"enabled": any(key.type == "legacy" for key in project.keys)})


# -- databases --------------------------------------------------------------------------------


async def run_query(call: Call) -> Reply:
    """`POST /v1/projects/{ref}/database/query`: 201 with the rows of the last statement."""
    body = read(RunQueryBody, call.parse_json())
    return await _query(call, body, read_only=body.read_only, bare_search_path=False)


async def run_read_only_query(call: Call) -> Reply:
    """`POST /v1/projects/{ref}/database/query/read-only`: names must be schema-qualified."""
    return await _query(
        call, read(RunQueryBody, call.parse_json()), read_only=True, bare_search_path=True
    )


async def update_password(call: Call) -> Reply:
    """`PATCH /v1/projects/{ref}/database/password`: safe to repeat with the same value."""
    body = read(UpdatePasswordBody, call.parse_json())
    project = call.get_project()
    call.world.projects.require_up(project)
    await call.world.databases.set_password(project, body.password)
    return Reply(200, {"message": "Successfully updated password"})


async def get_pooler(call: Call) -> Reply:
    """`GET /v1/projects/{ref}/config/database/pooler`: one entry, with a placeholder password.

    As recorded, it names the transaction port; session mode is on another port of the same host
    (`Simulator.pooler_port`, or the real server's own).
    """
    project = call.get_project()
    call.world.projects.require_up(project)
    await call.world.databases.ensure(project)
    host, _ = call.world.pooler_address
    user, database = role_name(project.ref), database_name(project.ref)
    address = f"postgresql://{user}:[YOUR-PASSWORD]@{host}:6543/{database}"
    return Reply(
        200,
        [
            {
                "identifier": project.ref,
                "database_type": "PRIMARY",
                "is_using_scram_auth": True,
                "db_user": user,
                "db_host": host,
                "db_port": 6543,
                "db_name": database,
                "connection_string": address,
                "connectionString": address,
                "default_pool_size": 15,
                "max_client_conn": 200,
                "pool_mode": "transaction",
            }
        ],
    )


async def partners_only(call: Call) -> Reply:
    """Every method of `/v1/projects/{ref}/database/migrations`."""
    call.get_project()
    return Reply(403, {"message": PARTNERS_ONLY})


# -- helpers ----------------------------------------------------------------------------------


async def _query(
    call: Call, body: RunQueryBody, *, read_only: bool, bare_search_path: bool
) -> Reply:
    project = call.get_project()
    call.world.projects.require_up(project)
    try:
        rows = await call.world.databases.run(
            project,
            body.query,
            body.parameters,
            read_only=read_only,
            bare_search_path=bare_search_path,
        )
    except SqlFailed as error:
        raise Refused(400, f"Failed to run sql query: {error}") from None
    except StillRunning as error:
        raise Refused(QUERY_TIMED_OUT, str(error)) from None
    return Reply(201, rows)


def _project_with_keys(call: Call) -> Project:
    project = call.get_project()
    lag_seconds = call.world.settings.keys_lag_seconds
    call.world.projects.require_up(project, lag_seconds=lag_seconds)
    return project


def _as_project(project: Project, status: str) -> dict[str, Any]:
    return {
        "id": project.ref,
        "ref": project.ref,
        "organization_id": project.organization,
        "organization_slug": project.organization,
        "name": project.name,
        "region": project.region,
        "created_at": project.inserted_at.isoformat(),
        "status": str(status),
    }


def _database_block(call: Call, project: Project) -> dict[str, Any]:
    host, _ = call.world.pooler_address
    return {
        "database": {
            "host": f"db.{project.ref}.{host}",
            "version": "17.4.1.054",
            "postgres_engine": "17",
            "release_channel": "ga",
        }
    }


def _as_listed(project: Project, status: str) -> dict[str, Any]:
    return {
        "ref": project.ref,
        "name": project.name,
        "cloud_provider": "AWS",
        "region": project.region,
        "is_branch": project.is_branch,
        "status": str(status),
        "inserted_at": project.inserted_at.isoformat(),
        "databases": [
            {
                "region": project.region,
                "status": "ACTIVE_HEALTHY" if status == Status.ACTIVE_HEALTHY else "UNKNOWN",
                "cloud_provider": "AWS",
                "identifier": project.ref,
                "type": "PRIMARY",
                "infra_compute_size": "micro",
            }
        ],
    }


def _as_health(call: Call, project: Project, service: str) -> dict[str, Any]:
    status = call.world.projects.service_status(project, service)
    healthy = status == "ACTIVE_HEALTHY"
    health: dict[str, Any] = {"name": service, "healthy": healthy, "status": status}
    if healthy and service == "auth":
        health["info"] = GOTRUE
    if healthy and service == "rest":
        health["info"] = {"db_schema": "public"}
    if status == "UNHEALTHY":
        health["error"] = f"{service} does not answer"
    return health
