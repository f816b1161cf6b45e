"""The settings of the `supabase` provider, which reads no environment itself."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING

from pgworker.errors import BadConfiguration

if TYPE_CHECKING:
    from typing import Literal

    from pgworker.settings import Settings


@dataclass(frozen=True, slots=True)
class SupabaseSettings:
    """The settings of one provider.

    Attributes:
        organization: the organisation's slug.
        default_plan: an instance size, a plan's name (which is the organisation's), or None.
        project_url_template: with `{ref}`.
        sql: how SQL reaches the tenant.
        pooler_hosts: names or addresses that a password may be sent to; `.suffix` allows all below.
        pooler_port: of the session pooler.
        key_grace: how long a project may lack its keys before we create them.

    Raises:
        BadConfiguration: a value can't be used; names its variable.
    """

    access_token: str = field(repr=False)
    organization: str
    api_url: str = "https://api.supabase.com"
    default_region: str = "us-east-1"
    default_plan: str | None = None
    project_url_template: str = "https://{ref}.supabase.co"
    sql: Literal["api", "postgres"] = "api"
    pooler_hosts: tuple[str, ...] = (".supabase.com", ".supabase.co")
    pooler_port: int = 5432
    key_grace: timedelta = timedelta(seconds=30)

    def __post_init__(self) -> None:
        """Refuse what would fail in every job."""
        if re.fullmatch(r"[!-~]+", self.access_token) is None:
            raise BadConfiguration(
                "SUPABASE_ACCESS_TOKEN is empty or holds blanks or strange letters"
            )
        if re.fullmatch(r"[\w-]+", self.organization, re.ASCII) is None:
            raise BadConfiguration("SUPABASE_ORG_ID is not an organisation slug (see its URL)")
        if "{ref}" not in self.project_url_template:
            raise BadConfiguration("PGWORKER_SUPABASE_PROJECT_URL lacks the placeholder {ref}")


def read_supabase_settings(settings: Settings) -> SupabaseSettings:
    """Return the provider's part of the process's settings.

    Raises:
        BadConfiguration: one is missing or can't be used; names its variable.
    """
    if settings.supabase_access_token is None:
        raise BadConfiguration("SUPABASE_ACCESS_TOKEN is not set; provider supabase needs it")
    if settings.supabase_org_id is None:
        raise BadConfiguration(
            "SUPABASE_ORG_ID is not set; provider supabase needs the organisation's slug"
        )
    return SupabaseSettings(
        access_token=settings.supabase_access_token.get_secret_value(),
        organization=settings.supabase_org_id,
        api_url=settings.supabase_api_url,
        default_region=settings.supabase_default_region,
        default_plan=settings.supabase_default_plan,
        project_url_template=settings.supabase_project_url,
        sql=settings.supabase_sql,
        pooler_hosts=settings.supabase_pooler_hosts,
        pooler_port=settings.supabase_pooler_port,
    )
