"""The providers by name: the two of pgworker, and those of installed packages.

A package adds a provider with an entry point of the group `pgworker.providers`: its name is the
provider's, its value a function that takes a `ProviderContext` (docs/providers.md).
"""

from __future__ import annotations

from contextlib import AsyncExitStack
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Final

from pgworker.errors import BadConfiguration, Permanent
from pgworker.providers.postgres.provider import create_postgres_provider
from pgworker.providers.supabase.provider import create_supabase_provider

if TYPE_CHECKING:
    from pgworker.providers.base import Provider, ProviderContext, ProviderFactory

ENTRY_POINTS: Final = "pgworker.providers"

# Not entry points: those of a checkout would be as old as its last installation.
BUILT_IN: Final[dict[str, ProviderFactory]] = {
    "postgres": create_postgres_provider,
    "supabase": create_supabase_provider,
}


def list_provider_names() -> tuple[str, ...]:
    """Return the names of all providers of this installation; imports none of them."""
    return tuple(sorted({*BUILT_IN, *(point.name for point in entry_points(group=ENTRY_POINTS))}))


def check_provider_setting(name: str) -> None:
    """Refuse a default provider that isn't installed.

    Raises:
        BadConfiguration: it isn't.
    """
    if name not in BUILT_IN and name not in (names := list_provider_names()):
        raise BadConfiguration(
            f"PGWORKER_PROVIDER: there is no provider of that name: choose one of {_join(names)}"
        )


class Providers:
    """Creates providers when a client first needs them; one of each for the life of a process."""

    def __init__(self, context: ProviderContext) -> None:
        """Take what the providers' factories are given."""
        self._context = context
        self._providers: dict[str, Provider] = {}

    @property
    def default(self) -> Provider:
        """The provider of clients that ask for none.

        Raises:
            BadConfiguration: it isn't installed, can't be imported or lacks a setting.
        """
        return self._get(self._context.settings.provider)

    def named(self, name: str | None) -> Provider:
        """Return the provider that a client asks for; the default one for None.

        Raises:
            Permanent: there is none of that name, or it can't be used.
        """
        try:
            return self._get(self._context.settings.provider if name is None else name)
        except BadConfiguration as error:
            raise Permanent(str(error)) from error

    async def aclose(self) -> None:
        """Close the providers' connections."""
        async with AsyncExitStack() as stack:
            for provider in self._providers.values():
                stack.push_async_callback(provider.aclose)

    def _get(self, name: str) -> Provider:
        if name not in self._providers:
            self._providers[name] = self._create(name)
        return self._providers[name]

    def _create(self, name: str) -> Provider:
        if name in BUILT_IN:
            return BUILT_IN[name](self._context)
        points = tuple(entry_points(group=ENTRY_POINTS, name=name))
        if not points:
            names = _join(list_provider_names())
            raise BadConfiguration(f"there is no provider {name!r}: choose one of {names}")
        if len(points) > 1:
            raise BadConfiguration(f"{len(points)} packages have a provider {name!r}: keep one")
        provider = _load(points[0])(self._context)
        if provider.name != name:
            raise BadConfiguration(
                f"the entry point {name} of {ENTRY_POINTS} makes a provider called "
                f"{provider.name!r}: the two names must be the same"
            )
        return provider


def _load(point: EntryPoint) -> ProviderFactory:
    """Import the factory of an entry point.

    Raises:
        BadConfiguration: it can't be imported, or isn't a function.
    """
    where = f"the entry point {point.name} of {ENTRY_POINTS} ({point.value})"
    try:
        factory: ProviderFactory = point.load()
    except (ImportError, AttributeError) as error:
        raise BadConfiguration(f"{where} can't be imported: {error}") from error
    if not callable(factory):
        raise BadConfiguration(f"{where} is not a function")
    return factory


def _join(names: tuple[str, ...]) -> str:
    return ", ".join(names)
