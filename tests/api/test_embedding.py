"""pgworker inside an application that isn't ours."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sysconfig
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import httpx
import pytest
from fastapi import FastAPI, Header, HTTPException, Request
from fastapi.responses import PlainTextResponse

import pgworker
from pgworker.errors import BadConfiguration
from pgworker.models import Scope
from pgworker.settings import load_settings
from tests.support.api import KEY
from tests.support.jobs import jobs_in
from tests.support.sse import open_events

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from pgworker.settings import Settings

ROOT = Path(__file__).parents[2]


def settings_for(dsn: str, **more: str) -> Settings:
    return load_settings(
        DATABASE_URL=dsn,
        PGWORKER_ENCRYPTION_KEYS=KEY,
        PGWORKER_MIGRATIONS_DIR=str(ROOT / "supabase" / "migrations"),
        **more,
    )


@asynccontextmanager
async def running(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """Run an application's lifespan, and ask it from this machine."""
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client,
    ):
        yield client


# -- the lifespan -----------------------------------------------------------------------------


async def test_the_worker_runs_as_long_as_the_application(database: str) -> None:
    app = FastAPI(lifespan=pgworker.lifespan(settings=settings_for(database)))
    app.include_router(pgworker.router())
    async with jobs_in(database) as jobs:
        async with running(app) as client:
            assert [row.alive for row in await jobs.status.list_workers()] == [True]
            ready = await client.get("/readyz")
            # A worker may still be about to listen.
            assert ready.json().get("missing", [{"name": "listener"}])[0]["name"] == "listener"
        assert [row.state for row in await jobs.status.list_workers()] == ["stopped"]


async def test_the_applications_own_lifespan_begins_after_and_ends_before(database: str) -> None:
    seen: list[str] = []

    @asynccontextmanager
    async def own(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
        seen.append(f"began, worker runs: {app.state.pgworker.daemon.is_running}")
        yield {"mine": 7}
        seen.append(f"ended, worker runs: {app.state.pgworker.daemon.is_running}")

    lifespan = pgworker.lifespan(own, settings=settings_for(database))
    app = FastAPI(lifespan=lifespan)
    async with lifespan(app) as state:
        assert state == {"mine": 7}
    assert seen == ["began, worker runs: True", "ended, worker runs: True"]


async def test_an_error_of_the_applications_own_lifespan_is_raised_as_it_is(database: str) -> None:
    @asynccontextmanager
    async def own(app: FastAPI) -> AsyncIterator[None]:
        raise ZeroDivisionError
        yield

    lifespan = pgworker.lifespan(own, settings=settings_for(database))
    with pytest.raises(ZeroDivisionError):
        async with lifespan(FastAPI()):
            pass
    async with jobs_in(database) as jobs:
        assert [row.state for row in await jobs.status.list_workers()] == ["stopped"]


async def test_an_application_whose_worker_cannot_start_does_not_start(
    database: str, tmp_path: Path
) -> None:
    bad = settings_for(database).model_copy(update={"migrations_dir": tmp_path / "none"})
    with pytest.raises(BadConfiguration, match="PGWORKER_MIGRATIONS_DIR"):
        async with pgworker.lifespan(settings=bad)(FastAPI()):
            pass


async def test_routes_without_the_lifespan_say_what_is_missing() -> None:
    app = FastAPI()
    app.include_router(pgworker.router())
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        with pytest.raises(RuntimeError, match=r"FastAPI\(lifespan=pgworker.lifespan\(\)\)"):
            await client.get("/clients")


# -- the router -------------------------------------------------------------------------------


async def test_the_applications_own_handlers_leave_our_problems_alone(database: str) -> None:
    app = FastAPI(lifespan=pgworker.lifespan(settings=settings_for(database)))
    app.include_router(pgworker.router(), prefix="/backend")

    @app.exception_handler(HTTPException)
    async def own(request: Request, error: HTTPException) -> PlainTextResponse:
        return PlainTextResponse("own", error.status_code)

    async with running(app) as client:
        ours = await client.get(f"/backend/clients/{uuid4()}")
        assert (ours.status_code, ours.headers["Content-Type"]) == (404, "application/problem+json")
        wrong = await client.get("/backend/clients?limit=0")
        assert (wrong.status_code, wrong.json()["status"]) == (422, 422)
        ordered = await client.post("/backend/clients", json={"name": "Acme"})
        assert ordered.headers["Location"].startswith("/backend/clients/")


async def test_the_application_may_identify_callers_itself(database: str) -> None:
    def principal_from_header(x_user: str = Header()) -> pgworker.Principal:
        if x_user == "mallory":
            raise HTTPException(403, "not you")
        return pgworker.Principal(x_user, Scope.ADMIN if x_user == "alice" else Scope.READ)

    app = FastAPI(lifespan=pgworker.lifespan(settings=settings_for(database)))
    app.include_router(pgworker.router(access=principal_from_header))

    async with running(app) as client:

        async def order(user: str) -> int:
            headers = {"X-User": user}
            answer = await client.post("/clients", json={"name": "Acme"}, headers=headers)
            return answer.status_code

        assert [await order(user) for user in ("mallory", "bob", "alice")] == [403, 403, 201]
    async with jobs_in(database) as jobs:
        actors = await jobs.pool.fetch("select actor from pgworker.events where event = 'enqueued'")
    assert [row["actor"].partition(" for ")[2] for row in actors] == ["alice"]


def test_the_probes_can_be_left_to_the_application() -> None:
    app = FastAPI()
    app.include_router(pgworker.router(probes_too=False))
    assert not {"/healthz", "/readyz", "/metrics"} & set(app.openapi()["paths"])
    assert "/clients" in app.openapi()["paths"]


# -- the example ------------------------------------------------------------------------------


@pytest.fixture
def example(database: str, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """The example, run by uvicorn as its users would."""
    uvicorn = Path(sysconfig.get_path("scripts"), "uvicorn")
    process = subprocess.Popen(
        [uvicorn, "--app-dir", ROOT, "examples.platform_app:app", "--port", "0"],
        cwd=tmp_path,
        env={
            "PATH": os.environ["PATH"],
            "DATABASE_URL": database,
            "PGWORKER_ENCRYPTION_KEYS": KEY,
            "PGWORKER_MIGRATIONS_DIR": str(ROOT / "supabase" / "migrations"),
        },
        stderr=subprocess.PIPE,
        text=True,
    )
    yield process
    if process.poll() is None:
        process.kill()
    process.communicate(timeout=60)


async def url_of(process: subprocess.Popen[str]) -> str:
    """Read what uvicorn logs until it says where it listens."""
    assert process.stderr is not None
    async with asyncio.timeout(60):
        while line := await asyncio.to_thread(process.stderr.readline):
            if found := re.search(r"running on (http://\S+)", line):
                return found[1]
    raise AssertionError(process.returncode)


async def test_the_example_provisions_and_ends_although_a_stream_is_open(
    example: subprocess.Popen[str], database: str
) -> None:
    async with (
        httpx.AsyncClient(base_url=await url_of(example), timeout=60) as client,
        jobs_in(database) as jobs,
    ):
        assert (await client.get("/")).json() == "Welcome!"
        ordered = (await client.post("/clients", json={"name": "Acme"})).json()
        async with open_events(client, ordered["events_url"] + "?follow=true") as events:
            try:
                status = None
                while status not in {"ready", "failed"}:
                    status = (await events.next("progress")).data["provisioning_status"]
                assert status == "ready"

                example.send_signal(signal.SIGTERM)
                assert await events.read_rest() == []
                await asyncio.to_thread(example.wait, 60)
                assert [row.state for row in await jobs.status.list_workers()] == ["stopped"]
            finally:
                name = f"pgw_{ordered['id'].replace('-', '')}"
                await jobs.pool.execute(f'drop database if exists "{name}" with (force)')
                await jobs.pool.execute(f'drop role if exists "{name}"')
