"""The answers of the Management API, as far as pgworker reads them.

Contract: Supabase Management API v1. Unknown fields and unknown values of its enumerations are
tolerated; an answer without a field that we need is refused.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

REF_PATTERN: Final = re.compile(r"[a-z]{20}")

Ref = Annotated[str, StringConstraints(pattern=r"^[a-z]{20}$")]


class _Model(BaseModel):
    # hide_input_in_errors: an answer may contain keys, and errors are logged.
    model_config = ConfigDict(extra="ignore", frozen=True, hide_input_in_errors=True)


class Organization(_Model):
    """`GET /v1/organizations/{slug}`; the plan is absent for some tokens."""

    name: str
    plan: str | None = None


class Project(_Model):
    """`POST /v1/projects` and `GET /v1/projects/{ref}`.

    Attributes:
        status: one of the documented words, or a new one.
    """

    ref: Ref
    organization_slug: str
    name: str
    region: str
    status: str
    created_at: str


class ProjectDatabase(_Model):
    """A database of a listed project."""

    type: str | None = None
    infra_compute_size: str | None = None


class ListedProject(_Model):
    """One project of an organisation's listing; the ref is checked where one is picked."""

    ref: str
    name: str
    region: str
    is_branch: bool
    status: str
    inserted_at: str
    databases: tuple[ProjectDatabase, ...] = ()

    @property
    def instance_size(self) -> str | None:
        """The compute size of the primary database, if the listing has it."""
        sizes = (item.infra_compute_size for item in self.databases if item.type == "PRIMARY")
        return next(sizes, None)


class Pagination(_Model):
    """The position of a page in its listing; `count` is the number of all matching projects."""

    count: int


class ProjectPage(_Model):
    """`GET /v1/organizations/{slug}/projects`."""

    projects: tuple[ListedProject, ...]
    pagination: Pagination


class ServiceHealth(_Model):
    """One service of `GET /v1/projects/{ref}/health`; `healthy` is deprecated and not read."""

    name: str
    status: str


class ApiKey(_Model):
    """One key of `GET /v1/projects/{ref}/api-keys`; only its name is always there.

    Attributes:
        api_key: the value; masked or None without the permission to reveal it.
        type: `legacy`, `publishable`, `secret`, or None (which means legacy).
    """

    name: str
    api_key: str | None = Field(default=None, repr=False)
    type: str | None = None
    secret_jwt_template: dict[str, Any] | None = Field(default=None, repr=False)


class LegacyKeys(_Model):
    """`GET /v1/projects/{ref}/api-keys/legacy`."""

    enabled: bool


class PoolerConfig(_Model):
    """One entry of `GET /v1/projects/{ref}/config/database/pooler`.

    Its port is the transaction pooler's and its connection string holds a placeholder: not read.
    """

    database_type: str
    db_user: str
    db_host: str
    db_name: str


def read_time(text: str) -> datetime | None:
    """Return an aware time, or None: the contract says only that it is a string."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
