"""A platform's own application, with pgworker inside.

    pip install 'pgworker[all]'
    uvicorn examples.platform_app:app

Three lines are pgworker's: the import, the lifespan and the router. The settings are those of
`pgworker run`, from the environment and from .env.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from fastapi import FastAPI, Request

import pgworker

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@asynccontextmanager
async def own_lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Open what the application needs itself; the worker runs already, and ends later."""
    app.state.greeting = "Welcome"
    yield


app = FastAPI(title="A platform", lifespan=pgworker.lifespan(own_lifespan, migrate=True))
app.include_router(pgworker.router())


@app.get("/")
async def welcome(request: Request) -> str:
    """Greet."""
    return f"{request.app.state.greeting}!"
