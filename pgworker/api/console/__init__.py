"""The console: pages for a browser at /admin/provisioning. Mounted by `pgworker.api.app.router`.

`overview` is the page at /admin/provisioning itself, where the route lets the Accept header decide.
`router` has the pages that need somebody signed in, `open_router` those that don't (signing in,
static files).
"""

from fastapi import APIRouter

from pgworker.api.console import actions, assets, client, clients, sign_in, stream
from pgworker.api.console.overview import overview

router = APIRouter()
for each in (clients, client, actions, stream, sign_in):
    router.include_router(each.router)

open_router = APIRouter()
open_router.include_router(sign_in.open_router)
open_router.include_router(assets.router)

__all__ = ["open_router", "overview", "router"]
