"""What a project can be asked for: its name, region and size. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from pgworker.errors import Permanent

if TYPE_CHECKING:
    from pgworker.providers.base import TenantRequest
    from pgworker.providers.supabase.settings import SupabaseSettings

_LONGEST_NAME: Final = 256

# V1CreateProjectBody: the API refuses a body with any other code or size.
REGIONS: Final = (
    *("us-east-1", "us-east-2", "us-west-1", "us-west-2", "ca-central-1", "sa-east-1"),
    *("eu-west-1", "eu-west-2", "eu-west-3", "eu-north-1", "eu-central-1", "eu-central-2"),
    *("ap-east-1", "ap-south-1", "ap-southeast-1", "ap-southeast-2"),
    *("ap-northeast-1", "ap-northeast-2"),
)
REGION_GROUPS: Final = ("americas", "emea", "apac")
INSTANCE_SIZES: Final = (
    *("nano", "micro", "small", "medium", "large", "xlarge", "2xlarge", "4xlarge", "8xlarge"),
    *("12xlarge", "16xlarge", "24xlarge", "24xlarge_optimized_memory", "24xlarge_optimized_cpu"),
    *("24xlarge_high_memory", "48xlarge", "48xlarge_optimized_memory"),
    *("48xlarge_optimized_cpu", "48xlarge_high_memory"),
)
# A plan belongs to the organisation: nothing is sent for it.
ORGANIZATION_PLANS: Final = ("free", "pro", "team", "enterprise", "platform")


def build_create_body(request: TenantRequest, settings: SupabaseSettings) -> dict[str, Any]:
    """Return the `V1CreateProjectBody` of a request.

    Raises:
        Permanent: the API would refuse its name, region or plan.
    """
    if len(request.name) > _LONGEST_NAME or "." in request.name or not request.name:
        raise Permanent(f"{request.name[:40]!r} can't name a project: 1 to 256 characters, no dots")
    body: dict[str, Any] = {
        "name": request.name,
        "organization_slug": settings.organization,
        "db_pass": request.database_password,
        "region_selection": select_region(request.region or settings.default_region),
    }
    size = instance_size(request.plan or settings.default_plan)
    if size is not None:
        body["desired_instance_size"] = size
    return body


def select_region(code: str) -> dict[str, str]:
    """Return `region_selection` for a region or a group of regions.

    Raises:
        Permanent: the API has no such region; names all.
    """
    if code in REGION_GROUPS:
        return {"type": "smartGroup", "code": code}
    if code in REGIONS:
        return {"type": "specific", "code": code}
    known = ", ".join((*REGIONS, *REGION_GROUPS))
    raise Permanent(f"unknown region {code[:40]!r}: choose one of {known}")


def instance_size(plan: str | None) -> str | None:
    """Return the instance size that a plan asks for, or None when the organisation decides.

    Raises:
        Permanent: it is neither.
    """
    if plan is None or plan in ORGANIZATION_PLANS:
        return None
    if plan in INSTANCE_SIZES:
        return plan
    known = ", ".join((*INSTANCE_SIZES, *ORGANIZATION_PLANS))
    raise Permanent(f"unknown plan {plan[:40]!r}: choose one of {known}")
