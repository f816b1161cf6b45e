"""The console: pages for a browser at /admin/provisioning. Mounted by `pgworker.api.app.router`.

`show_overview` is the page at /admin/provisioning itself: its route is the API's, which chooses by
the Accept header. `router` has the pages for a person who has signed in, `open_router` those that
need no sign-in (the sign-in page, static files).
"""

from fastapi import APIRouter

from pgworker.api.console import actions, assets, client, clients, sign_in, stream
from pgworker.api.console.overview import show_overview

router = APIRouter()
for each in (clients, client, actions, stream, sign_in):
    router.include_router(each.router)

open_router = APIRouter()
open_router.include_router(sign_in.open_router)
open_router.include_router(assets.router)

__all__ = ["open_router", "router", "show_overview"]
