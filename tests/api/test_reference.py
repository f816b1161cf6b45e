"""The API is what its reference says, and does what its OpenAPI document says."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pgworker.api.server import serving
from pgworker.context import open_platform
from pgworker.models import Scope
from pgworker.settings import load_settings
from tests.support.api import KEY, SETTING, TOKENS
from tests.support.api_scopes import REQUIRED_SCOPES

if TYPE_CHECKING:
    from tests.support.api import ApiInTest

REFERENCE = Path(__file__).parents[2] / "docs" / "api.md"
STREAMS = "events$"


async def schemathesis(database: str, folder: Path, *options: str) -> None:
    """Let Schemathesis ask whatever the document allows, and whatever it doesn't."""
    settings = load_settings(
        DATABASE_URL=database,
        PGWORKER_ENCRYPTION_KEYS=KEY,
        PGWORKER_API_TOKENS=SETTING,
        PGWORKER_HTTP="127.0.0.1:0",
    )
    program = Path(sysconfig.get_path("scripts"), "schemathesis")
    async with open_platform(settings) as platform, serving(platform, None) as url:
        process = await asyncio.create_subprocess_exec(
            *(program, "run", f"{url}/openapi.json", "--no-color", "--max-examples", "10"),
            *("--header", f"Authorization: Bearer {TOKENS[Scope.ADMIN]}", "--seed", "1"),
            # Every check but one: a cursor is opaque, no schema says which one we gave.
            *("--checks", "all", "--exclude-checks", "positive_data_acceptance"),
            *("--request-timeout", "60", "--suppress-health-check", "too_slow"),
            *options,
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()


@pytest.mark.timeout(600)
async def test_no_request_gets_an_answer_that_the_document_does_not_describe(
    database: str, tmp_path: Path
) -> None:
    await schemathesis(database, tmp_path, "--exclude-path-regex", STREAMS)


@pytest.mark.timeout(600)
async def test_nor_does_one_for_the_stream_of_a_client(database: str, tmp_path: Path) -> None:
    # Of clients that don't exist: the stream of one that does would go on.
    await schemathesis(
        database,
        tmp_path,
        *("--include-path", "/clients/{client_id}/events"),
        *("--phases", "examples,coverage,fuzzing"),
    )


def test_the_reference_lists_every_route_with_its_scope(api: ApiInTest) -> None:
    listed = re.findall(
        r"^\| `(GET|POST) (/\S*)` \| (\S+) \| \S.* \|$", REFERENCE.read_text(), re.MULTILINE
    )
    routes = {
        (method.upper(), path)
        for path, methods in api.app.openapi()["paths"].items()
        for method in methods
    }
    assert {(method, path): scope for method, path, scope in listed} == {
        route: str(needed or "–") for route, needed in REQUIRED_SCOPES.items()
    }
    assert set(REQUIRED_SCOPES) == routes
