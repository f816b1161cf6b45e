"""The console: pages for a browser at /admin/provisioning. Mounted by `pgworker.api.app.router`.

`overview` is the page at /admin/provisioning itself, where the route lets the Accept header decide.
`router` has the pages that need somebody signed in, `open_router` those that don't (signing in,
static files).
"""

from pgworker.api.console.pages import open_router, overview, router

__all__ = ["open_router", "overview", "router"]
