"""Finds `sql/` and loads its named blocks into typed tuples."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import NamedTuple, TypeVar, get_type_hints

_NAME = re.compile(r"^-- name: (\w+)$", re.MULTILINE)
_INCLUDE = re.compile(r"\binclude\.(\w+)")

T = TypeVar("T", bound=NamedTuple)


@cache
def find_sql_directory() -> Path:
    """Return the folder of our SQL: inside the package when installed, beside it in a checkout."""
    package = Path(__file__).parents[1]
    for candidate in (package / "sql", package.parent / "sql"):
        # A folder of another project may be called sql, too.
        if (candidate / "migrations").is_dir():
            return candidate
    msg = f"the SQL of pgworker is missing beside {package}"
    raise FileNotFoundError(msg)


def parse(text: str) -> dict[str, str]:
    """Return the statements of a file by the names of their blocks."""
    parts = _NAME.split(text)
    blocks = dict(zip(parts[1::2], (part.strip() for part in parts[2::2]), strict=True))
    if len(blocks) != len(parts) // 2:
        msg = "two blocks have one name"
        raise ValueError(msg)
    return blocks


@cache
def _included() -> dict[str, str]:
    """Return the statements of `queries/rows.sql` as subqueries."""
    blocks = parse((find_sql_directory() / "queries/rows.sql").read_text(encoding="utf-8"))
    return {name: f"(\n{block.removesuffix(';')}\n)" for name, block in blocks.items()}


def load(shape: type[T], file: str) -> T:
    """Return the blocks of `sql/<file>` as the fields of `shape`.

    `from include.NAME as alias` selects from the block NAME of `queries/rows.sql`: a row that
    several statements return has its columns listed once. PostgreSQL plans such a subquery as if
    its tables stood in the statement itself. The schema `include` exists in these files only.

    Raises:
        TypeError: a block without a field, or a field without a block.
        KeyError: no block of `rows.sql` has the included name.
    """
    blocks = parse((find_sql_directory() / file).read_text(encoding="utf-8"))
    # At import, so that a misspelt name is found by any test and not by the first call.
    fields = get_type_hints(shape).keys()
    if fields != blocks.keys():
        msg = f"{file} and {shape.__name__} differ: {sorted(fields ^ blocks.keys())}"
        raise TypeError(msg)
    included = _included()
    return shape._make(
        _INCLUDE.sub(lambda found: included[found[1]], blocks[field]) for field in shape._fields
    )
