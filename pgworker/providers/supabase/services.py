"""Smoke checks of a Supabase project from outside: its Data API and its auth service.

Contract: `GET {project_url}/rest/v1/{table}` and `GET {project_url}/auth/v1/health` with the key in
the header `apikey`. New-style keys are no JWTs and never go into `Authorization`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self
from urllib.parse import quote

import httpx

from pgworker.db.queries import load
from pgworker.errors import SmokeCheckFailed, Throttled, Transient
from pgworker.providers.supabase.errors import read_message, retry_after
from pgworker.providers.supabase.keys import is_legacy

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


class SupabaseQueries(NamedTuple):
    """The statements of `sql/queries/supabase.sql`, which run in a tenant."""

    readable_tables: str


SUPABASE_QUERIES: Final = load(SupabaseQueries, "queries/supabase.sql")

# Of a project's own services.
ANSWER_TIMEOUT: Final = timedelta(seconds=30)

_BAD_KEY = re.compile(r"api ?key|jwt", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Read:
    """One read through the Data API, and the expected result.

    Attributes:
        table: a table of schema public; None reads the root.
        is_elevated: with the key of `service_role`; otherwise with that of `anon`.
        is_allowed: by the GRANTs.
    """

    table: str | None
    is_elevated: bool
    is_allowed: bool


def plan_reads(tables: Iterable[dict[str, Any]]) -> tuple[Read, ...]:
    """Choose an elevated read, and for the low-privilege key an allowed and a forbidden one.

    Args:
        tables: rows of `readable_tables`.
    """
    rows = list(tables)
    elevated = next((row["name"] for row in rows if row["service_role_may_read"]), None)
    reads = [Read(elevated, is_elevated=True, is_allowed=True)]
    for is_allowed in (True, False):
        name = next((row["name"] for row in rows if row["anon_may_read"] is is_allowed), None)
        if name is not None:
            reads.append(Read(name, is_elevated=False, is_allowed=is_allowed))
    return tuple(reads)


class ProjectServices:
    """Asks one project's services, as a customer's application would."""

    def __init__(
        self, url: str, *, low_key: str, elevated_key: str, client: httpx.AsyncClient
    ) -> None:
        self._url = url.rstrip("/")
        self._keys = {False: low_key, True: elevated_key}
        self._client = client

    @classmethod
    def from_credentials(
        cls, url: str, credentials: dict[str, str], client: httpx.AsyncClient
    ) -> Self:
        """Take the keys from the fields of `Credentials`; new keys before legacy ones.

        Raises:
            SmokeCheckFailed: none is stored.
        """
        low = credentials.get("publishable_key") or credentials.get("anon_key")
        elevated = credentials.get("secret_key") or credentials.get("service_role_key")
        if low is None or elevated is None:
            raise SmokeCheckFailed(
                "data api: no low-privilege or no elevated key is stored for the tenant: "
                "retry the phase await_project"
            )
        return cls(url, low_key=low, elevated_key=elevated, client=client)

    async def check(self, reads: Sequence[Read]) -> None:
        """Do the reads, then ask the auth service.

        Raises:
            SmokeCheckFailed: an answer is wrong and waiting won't change it.
            Transient: no answer yet, or PostgREST's schema cache lags.
            Throttled: the project's gateway answered 429.
        """
        for read in reads:
            await self._check_read(read)
        await self._check_auth()

    async def _check_read(self, read: Read) -> None:
        target = "the data api's root" if read.table is None else f"table public.{read.table}"
        path = "/rest/v1/" if read.table is None else f"/rest/v1/{quote(read.table, safe='')}"
        params = {} if read.table is None else {"select": "*", "limit": "1"}
        answer = await self._get(path, params, is_elevated=read.is_elevated)
        role = "service_role" if read.is_elevated else "anon"
        message = read_message(answer.content, secrets=self._keys.values())
        text = f"data api: {target} answered {answer.status_code} to {role}: {message}"

        if answer.status_code in {401, 403}:
            if _BAD_KEY.search(message):
                raise Transient(f"{text} (the gateway may not know a new key yet)")
            if read.is_allowed:
                raise SmokeCheckFailed(f"{text}; is `grant select … to {role}` missing?")
        elif not answer.is_success:
            raise Transient(f"{text} (PostgREST's schema cache may lag)")
        elif not read.is_allowed:
            raise SmokeCheckFailed(f"{text}; no GRANT lets {role} read it, and yet it does")

    async def _check_auth(self) -> None:
        answer = await self._get("/auth/v1/health", {}, is_elevated=False)
        if answer.is_success:
            return
        message = read_message(answer.content, secrets=self._keys.values())
        raise Transient(f"auth: health answered {answer.status_code}: {message}")

    async def _get(self, path: str, params: dict[str, str], *, is_elevated: bool) -> httpx.Response:
        key = self._keys[is_elevated]
        headers = {"apikey": key}
        if is_legacy(key):
            # Without it a legacy gateway treats every request as anon's.
            headers["Authorization"] = f"Bearer {key}"
        try:
            answer = await self._client.get(self._url + path, params=params, headers=headers)
        except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
            raise SmokeCheckFailed(
                f"the project's URL {self._url!r} can't be used: "
                "check PGWORKER_SUPABASE_PROJECT_URL"
            ) from error
        except httpx.RequestError as error:
            raise Transient(
                f"no answer from {self._url}{path}: {type(error).__name__} {error}".strip()
            ) from error
        if answer.status_code == 429:
            raise Throttled(f"{self._url}{path} answered 429", retry_after(answer.headers))
        return answer
