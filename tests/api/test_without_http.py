"""Without the extra `http` the package works, and the API says which extra is missing."""

from __future__ import annotations

import subprocess
import sys

import pytest

SCRIPT = """
import sys
sys.modules[{missing!r}] = None
import pgworker
import pgworker.cli.main
from pgworker.errors import PgworkerError
for name in ("lifespan", "router"):
    try:
        getattr(pgworker, name)
    except PgworkerError as error:
        print(error)
"""


@pytest.mark.parametrize("missing", ["fastapi", "itsdangerous", "jinja2", "prometheus_client"])
def test_only_the_names_of_the_api_need_the_extra(missing: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(missing=missing)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    line = f"the HTTP API needs {missing}: pip install 'pgworker[http]'\n"
    assert done.stdout in {line * 2, ""}
    # The console's templates are read by the console alone.
    assert done.stdout or missing == "jinja2"
