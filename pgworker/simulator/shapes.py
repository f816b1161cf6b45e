"""Request bodies and query parameters, as the published OpenAPI document defines them.

Fields that the document forbids are refused where it says `additionalProperties: false`, and
ignored elsewhere.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from pgworker.simulator.replies import Refused

Shape = TypeVar("Shape", bound=BaseModel)

Region = Literal[
    "us-east-1",
    "us-east-2",
    "us-west-1",
    "us-west-2",
    "ap-east-1",
    "ap-southeast-1",
    "ap-northeast-1",
    "ap-northeast-2",
    "ap-southeast-2",
    "eu-west-1",
    "eu-west-2",
    "eu-west-3",
    "eu-north-1",
    "eu-central-1",
    "eu-central-2",
    "ca-central-1",
    "ap-south-1",
    "sa-east-1",
]
InstanceSize = Literal[
    "nano",
    "micro",
    "small",
    "medium",
    "large",
    "xlarge",
    "2xlarge",
    "4xlarge",
    "8xlarge",
    "12xlarge",
    "16xlarge",
    "24xlarge",
    "24xlarge_optimized_memory",
    "24xlarge_optimized_cpu",
    "24xlarge_high_memory",
    "48xlarge",
    "48xlarge_optimized_memory",
    "48xlarge_optimized_cpu",
    "48xlarge_high_memory",
]
Service = Literal[
    "auth", "db", "db_postgres_user", "pooler", "realtime", "rest", "storage", "pg_bouncer"
]
SMART_GROUP_REGION: dict[str, Region] = {
    "americas": "us-east-1",
    "emea": "eu-central-1",
    "apac": "ap-southeast-1",
}


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _Lenient(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True)


class SpecificRegion(_Lenient):
    """A region by its code."""

    type: Literal["specific"]
    code: Region


class SmartGroup(_Lenient):
    """A group of regions, of which the API chooses one."""

    type: Literal["smartGroup"]
    code: Literal["americas", "emea", "apac"]


class CreateProjectBody(_Strict):
    """`V1CreateProjectBody`, with the rules that only the documentation has."""

    db_pass: str = Field(min_length=4)
    name: str = Field(min_length=1, max_length=256)
    organization_slug: str = Field(pattern=r"^[\w-]+$")
    organization_id: str | None = None
    plan: Literal["free", "pro"] | None = None
    region: Region | None = None
    region_selection: Annotated[SpecificRegion | SmartGroup, Field(discriminator="type")] | None = (
        None
    )
    kps_enabled: bool | None = None
    desired_instance_size: InstanceSize | None = None
    template_url: str | None = None

    @field_validator("name")
    @classmethod
    def _has_no_dots(cls, name: str) -> str:
        if "." in name:
            raise ValueError("must not contain dots")
        return name

    @field_validator("template_url")
    @classmethod
    def _is_a_uri(cls, url: str | None) -> str | None:
        if url is not None and not re.match(r"^[a-z][a-z0-9+.-]*://\S+$", url):
            raise ValueError("must be a URL address")
        return url

    @model_validator(mode="before")
    @classmethod
    def _has_no_null(cls, body: Any) -> Any:
        # No field of the document is nullable: null is not the same as absent.
        if isinstance(body, dict):
            for name, value in body.items():
                if value is None:
                    raise ValueError(f"{name} must not be null")
        return body

    @model_validator(mode="after")
    def _names_one_region(self) -> CreateProjectBody:
        if self.region is not None and self.region_selection is not None:
            raise ValueError("only one of region or region_selection can be specified")
        return self

    @property
    def chosen_region(self) -> Region:
        """Return the requested region; without one the simulator chooses."""
        match self.region_selection:
            case SpecificRegion(code=code):
                return code
            case SmartGroup(code=group):
                return SMART_GROUP_REGION[group]
            case None:
                return self.region or "us-east-1"


class CreateApiKeyBody(_Lenient):
    """`CreateApiKeyBody`."""

    type: Literal["publishable", "secret"]
    name: str = Field(min_length=4, max_length=64, pattern=r"^[a-z_][a-z0-9_]+$")
    description: str | None = None
    secret_jwt_template: dict[str, Any] | None = None


class RunQueryBody(_Lenient):
    """`V1RunQueryBody`; `V1ReadOnlyQueryBody` is the same without `read_only`."""

    query: str = Field(min_length=1)
    parameters: list[Any] = Field(default_factory=list)
    read_only: bool = False


class UpdatePasswordBody(_Lenient):
    """`V1UpdatePasswordBody`."""

    password: str = Field(min_length=4)


class PageQuery(BaseModel):
    """Query parameters of an organization's projects; they arrive as text."""

    offset: int = Field(default=0, ge=0)
    limit: int = Field(default=100, ge=1, le=100)
    search: str = ""
    sort: Literal["name_asc", "name_desc", "created_asc", "created_desc"] = "name_asc"
    statuses: str = ""

    @field_validator("statuses")
    @classmethod
    def _are_supported(cls, statuses: str) -> str:
        if set(filter(None, statuses.split(","))) - {"ACTIVE_HEALTHY", "INACTIVE"}:
            raise ValueError("supported values are ACTIVE_HEALTHY and INACTIVE")
        return statuses


class HealthQuery(BaseModel):
    """Query parameters of a project's health; `services` is repeated, not comma-separated."""

    services: list[Service] = Field(min_length=1)
    timeout_ms: int = Field(default=2000, ge=0, le=10_000)


class RevealQuery(BaseModel):
    """Query parameters of the keys endpoints: a boolean string."""

    reveal: Literal["true", "false"] = "false"


class RegionsQuery(BaseModel):
    """Query parameters of the available regions."""

    organization_slug: str
    continent: Literal["NA", "SA", "EU", "AF", "AS", "OC", "AN"] | None = None
    desired_instance_size: InstanceSize | None = None


def read(shape: type[Shape], value: Any) -> Shape:
    """Return the value as an object of this shape.

    Raises:
        Refused: 400, naming the fields that are wrong and never their values.
    """
    try:
        return shape.model_validate(value)
    except ValidationError as error:
        mistakes = [
            f"{'.'.join(str(part) for part in mistake['loc']) or 'body'}: {mistake['msg']}"
            for mistake in error.errors(include_input=False, include_url=False)
        ]
        raise Refused(400, "; ".join(mistakes)) from None
