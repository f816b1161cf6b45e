"""The HTTP API and the console, for `pgworker run --http` or an application's own server.

What is public of it is `pgworker.lifespan` and `pgworker.router`.
"""

from pgworker.errors import PgworkerError

try:
    from pgworker.api.app import create_app, lifespan, router
    from pgworker.api.sessions import Principal
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] == "pgworker":
        raise
    raise PgworkerError(f"the HTTP API needs {error.name}: pip install 'pgworker[http]'") from error

__all__ = ["Principal", "create_app", "lifespan", "router"]
