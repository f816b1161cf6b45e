"""The API keys of projects: fetched, and created when they don't come by themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pgworker.errors import Permanent, Transient
from pgworker.providers.supabase import endpoints
from pgworker.providers.supabase.keys import CREATED_NAMES, choose_keys
from pgworker.telemetry import get_logger
from pgworker.tenants.steps import Step

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from datetime import timedelta

    from pgworker.providers.supabase.api import ManagementApi
    from pgworker.providers.supabase.models import ApiKey
    from pgworker.tenants.steps import Steps

log = get_logger()


class ProjectKeys:
    """Fetches the keys of any number of projects with one token."""

    def __init__(self, api: ManagementApi, *, grace: timedelta, clock: Callable[[], float]) -> None:
        """Take the API.

        Args:
            api: with the token.
            grace: how long a project may lack its keys before we create them.
            clock: seconds, monotonic.
        """
        self._api = api
        self._grace = grace
        self._clock = clock
        self._missing_since: dict[str, float] = {}

    async def fetch(self, ref: str, steps: Steps) -> dict[str, str]:
        """Return a low-privilege and an elevated key, and others, by the fields of `Credentials`.

        Raises:
            Transient: the keys don't exist yet.
            Permanent: the token may not reveal keys.
        """
        listed = await self._list(ref, steps)
        chosen = choose_keys(listed)
        if chosen.missing:
            # As a rule they come by themselves, soon after the project is up.
            missing_since = self._missing_since.setdefault(ref, self._clock())
            if self._clock() - missing_since < self._grace.total_seconds():
                raise _not_ready(ref, chosen.missing)
            created = [await self._create(ref, kind, listed, steps) for kind in chosen.missing]
            chosen = choose_keys([*listed, *created])
            if chosen.missing:
                raise _not_ready(ref, chosen.missing)
        self._missing_since.pop(ref, None)
        return chosen.fields

    async def _list(self, ref: str, steps: Steps) -> list[ApiKey]:
        """Return the project's keys, without legacy ones when these are needed and disabled."""
        listed = await self._api.list_api_keys(ref)
        await steps.confirm(Step.CREATE_API_KEY, [key.name for key in listed])
        if choose_keys(listed).depends_on_legacy and not await self._api.are_legacy_keys_enabled(
            ref
        ):
            return [key for key in listed if key.type not in {None, "legacy"}]
        return listed

    async def _create(self, ref: str, kind: str, listed: Iterable[ApiKey], steps: Steps) -> ApiKey:
        name = CREATED_NAMES[kind]
        if any(key.name == name for key in listed):
            raise Permanent(
                f"the key {name!r} of project {ref} comes masked or without its role: "
                "the token may lack the permission to reveal keys"
            )
        body: dict[str, Any] = {"type": kind, "name": name}
        if kind == "secret":
            body["secret_jwt_template"] = {"role": "service_role"}
        async with steps.record(
            Step.CREATE_API_KEY, name, time_limit=endpoints.CREATE_API_KEY.time_limit
        ) as must_leave_before:
            key = await self._api.create_api_key(ref, body, must_leave_before=must_leave_before)
        log.info("api_key_created", project_ref=ref, name=name)
        return key


def _not_ready(ref: str, kinds: Iterable[str]) -> Transient:
    return Transient(f"project {ref} has no usable {' and no '.join(kinds)} key yet")
