"""Names a worker's step boundaries after what it does; no list of them is kept anywhere.

A statement of ours is named after its block in `sql/queries/`, so that a new statement becomes a
boundary without an edit here. A tenant's statement is named after its purpose, a request after its
method and path.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pgworker.db.queries import find_sql_directory, parse

if TYPE_CHECKING:
    from collections.abc import Sequence

PLACEHOLDER = re.compile(r"\\\{\w+\\\}")
# A row of a tenant's migration history, as `pgworker.schema.scripts` writes it.
HISTORY_ROW = re.compile(
    r"schema_migrations \(version, name, statements\)\s+values \(\$\w+\$(\d+)\$"
)
COMMENT = re.compile(r"--.*$", re.MULTILINE)
WORD = re.compile(r"[a-z_]+")
# Refs of projects, and the organisation's slug.
REF = re.compile(r"(?<=/)[a-z]{20}(?=/|$)")
CONTROL = {"BEGIN;": "begin", "COMMIT;": "commit", "ROLLBACK;": "rollback"}
SQL_PATH = "/database/query"


@dataclass(frozen=True, slots=True)
class BoundaryNames:
    """The names of our statements.

    Attributes:
        by_text: of statements without placeholders.
        by_pattern: of statements with placeholders.
    """

    by_text: dict[str, str]
    by_pattern: Sequence[tuple[re.Pattern[str], str]]

    @classmethod
    def load(cls) -> BoundaryNames:
        """Read the names from the files in `sql/queries/`."""
        by_text: dict[str, str] = {}
        by_pattern: list[tuple[re.Pattern[str], str]] = []
        for file in sorted((find_sql_directory() / "queries").glob("*.sql")):
            for block, text in parse(file.read_text(encoding="utf-8")).items():
                pattern = PLACEHOLDER.sub("[^;]+?", re.escape(text))
                name = f"{file.stem}.{block}"
                if pattern == re.escape(text):
                    by_text[text] = name
                else:
                    by_pattern.append((re.compile(pattern), name))
        return cls(by_text, by_pattern)

    def name_statement(self, sql: str) -> str:
        """Return the name of a statement on the platform, or of a script on a tenant."""
        text = sql.strip()
        if (name := CONTROL.get(text) or self.by_text.get(text)) is not None:
            return name
        for pattern, name in self.by_pattern:
            if pattern.fullmatch(text):
                return name
        if (row := HISTORY_ROW.search(text)) is not None:
            return f"{_classify_script(text)} {row[1]}"
        # The longest block that is part of the script, if any.
        parts = [(len(part), name) for part, name in self.by_text.items() if part in text]
        if parts:
            return max(parts)[1]
        return " ".join(WORD.findall(COMMENT.sub("", text).lower())[:3])

    def name_request(self, method: str, path: str, body: bytes) -> str:
        """Return the name of a request; one that carries SQL is named after the SQL as well."""
        name = f"{method} {REF.sub('{ref}', path)}"
        if path.endswith(SQL_PATH):
            return f"{name}: {self.name_statement(json.loads(body)['query'])}"
        return name


def _classify_script(script: str) -> str:
    """Return what a script that writes a row of the history does with its file."""
    if not COMMENT.sub("", script).lstrip().startswith("begin;"):
        return "record"
    return "apply" if script.endswith("commit;") else "try"


def name_commit(statements: Sequence[str]) -> str:
    """Return the name of the commit of a transaction with these statements."""
    return f"commit {'+'.join(dict.fromkeys(statements))}"
