"""Without the extra `http` the simulator says which extra is missing."""

from __future__ import annotations

import subprocess
import sys

import pytest

SCRIPT = """
import sys
sys.modules[{missing!r}] = None
from pgworker.errors import PgworkerError
try:
    import pgworker.simulator
except PgworkerError as error:
    print(error)
"""


@pytest.mark.parametrize("missing", ["starlette", "uvicorn"])
def test_importing_it_without_the_extra_names_the_extra(missing: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(missing=missing)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout == (
        "the simulator needs starlette and uvicorn: pip install 'pgworker[http]'\n"
    )
