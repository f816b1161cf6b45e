"""Providers by name, made from the settings when a client first needs one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pgworker.errors import BadConfiguration, Permanent
from pgworker.providers.postgres.provider import PostgresProvider
from pgworker.providers.supabase.provider import SupabaseProvider, SupabaseSettings

if TYPE_CHECKING:
    from pgworker.providers.base import Provider
    from pgworker.providers.rate_limits import Limiter
    from pgworker.settings import Settings


class Providers:
    """Hands out providers; one of each for the life of the process."""

    def __init__(self, settings: Settings, *, platform_dsn: str, limits: Limiter) -> None:
        """Take the settings; tenants live on the platform's own server unless told otherwise.

        Args:
            settings: of the process.
            platform_dsn: of the platform's database.
            limits: who may send the next request to a provider that counts them.
        """
        self._settings = settings
        self._platform_dsn = platform_dsn
        self._limits = limits
        self._made: dict[str, Provider] = {}

    @property
    def default(self) -> Provider:
        """The provider of clients that ask for none.

        Raises:
            BadConfiguration: it lacks a setting.
        """
        return self._get(self._settings.provider)

    def named(self, name: str | None) -> Provider:
        """Return the provider that a client asks for; the default one for None.

        Raises:
            Permanent: there is none of that name, or it isn't configured.
        """
        if name not in {None, "supabase", "postgres"}:
            raise Permanent(f"there is no provider {name!r}: choose supabase or postgres")
        try:
            return self._get(name or self._settings.provider)
        except BadConfiguration as error:
            raise Permanent(str(error)) from error

    async def aclose(self) -> None:
        """Close what providers hold open."""
        for provider in self._made.values():
            await provider.aclose()

    def _get(self, name: str) -> Provider:
        if name not in self._made:
            self._made[name] = self._supabase() if name == "supabase" else self._postgres()
        return self._made[name]

    def _postgres(self) -> Provider:
        url = self._settings.tenants_url
        return PostgresProvider(
            self._platform_dsn if url is None else url.get_secret_value(),
            migrations_dir=self._settings.migrations_dir,
        )

    def _supabase(self) -> Provider:
        settings = self._settings
        if settings.supabase_access_token is None:
            raise BadConfiguration("SUPABASE_ACCESS_TOKEN is not set; provider supabase needs it")
        if settings.supabase_org_id is None:
            raise BadConfiguration(
                "SUPABASE_ORG_ID is not set; provider supabase needs the organisation's slug"
            )
        return SupabaseProvider(
            SupabaseSettings(
                access_token=settings.supabase_access_token.get_secret_value(),
                organization=settings.supabase_org_id,
                api_url=settings.supabase_api_url,
                default_region=settings.supabase_default_region,
                default_plan=settings.supabase_default_plan,
                project_url_template=settings.supabase_project_url,
                sql=settings.supabase_sql,
                pooler_hosts=settings.supabase_pooler_hosts,
                pooler_port=settings.supabase_pooler_port,
            ),
            limits=self._limits,
        )
