"""The names of a worker's step boundaries, made from what it does and kept nowhere as a list.

A statement of ours is named by its block in `sql/queries/`, so that a new one becomes a boundary by
itself; a tenant's by what it is for, a request by method and path.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pgworker.db.queries import parse, sql_directory

if TYPE_CHECKING:
    from collections.abc import Sequence

PLACEHOLDER = re.compile(r"\\\{\w+\\\}")
# A row of a tenant's migration history, as `tenants.migration_scripts` writes it.
HISTORY_ROW = re.compile(r"schema_migrations \(version, name, statements\) values \(\$\w+\$(\d+)\$")
COMMENT = re.compile(r"--.*$", re.MULTILINE)
WORD = re.compile(r"[a-z_]+")
# Refs of projects, and the organisation's slug.
REF = re.compile(r"(?<=/)[a-z]{20}(?=/|$)")
CONTROL = {"BEGIN;": "begin", "COMMIT;": "commit", "ROLLBACK;": "rollback"}
SQL_PATH = "/database/query"


@dataclass(frozen=True, slots=True)
class Names:
    """What statements are called.

    Attributes:
        whole: by their text.
        shapes: of those with a placeholder.
    """

    whole: dict[str, str]
    shapes: Sequence[tuple[re.Pattern[str], str]]

    @classmethod
    def of_our_files(cls) -> Names:
        whole: dict[str, str] = {}
        shapes: list[tuple[re.Pattern[str], str]] = []
        for file in sorted((sql_directory() / "queries").glob("*.sql")):
            for block, text in parse(file.read_text(encoding="utf-8")).items():
                shape = PLACEHOLDER.sub("[^;]+?", re.escape(text))
                name = f"{file.stem}.{block}"
                if shape == re.escape(text):
                    whole[text] = name
                else:
                    shapes.append((re.compile(shape), name))
        return cls(whole, shapes)

    def of_statement(self, sql: str) -> str:
        """Return the name of a statement on the platform, or of a script on a tenant."""
        text = sql.strip()
        if (name := CONTROL.get(text) or self.whole.get(text)) is not None:
            return name
        for shape, name in self.shapes:
            if shape.fullmatch(text):
                return name
        if (row := HISTORY_ROW.search(text)) is not None:
            return f"{_what_for(text)} {row[1]}"
        # The longest block that is part of the script, if any.
        parts = [(len(part), name) for part, name in self.whole.items() if part in text]
        if parts:
            return max(parts)[1]
        return " ".join(WORD.findall(COMMENT.sub("", text).lower())[:3])

    def of_request(self, method: str, path: str, body: bytes) -> str:
        """Return the name of a request; one that carries SQL is named by the SQL as well."""
        name = f"{method} {REF.sub('{ref}', path)}"
        if path.endswith(SQL_PATH):
            return f"{name}: {self.of_statement(json.loads(body)['query'])}"
        return name


def _what_for(script: str) -> str:
    """Tell what a script with a row of the history does with its file."""
    if not script.startswith("begin;"):
        return "record"
    return "apply" if script.endswith("commit;") else "try"


def of_commit(statements: Sequence[str]) -> str:
    """Return the name of the commit of a transaction with these statements."""
    return f"commit {'+'.join(dict.fromkeys(statements))}"
