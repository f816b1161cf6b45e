"""The SQL that makes a database look like a new Supabase project's."""

from __future__ import annotations

from typing import Final, NamedTuple

from pgworker.db.queries import load


class SimulatorQueries(NamedTuple):
    """The statements of `sql/queries/simulator.sql`."""

    lock_api_roles: str
    create_api_roles: str
    hash_passwords_quickly: str
    is_superuser: str
    quote_statements: str
    create_platform_schemas: str
    own_platform_schemas: str
    literals: str
    find_exposed_relation: str
    exposed_relations: str


QUERIES: Final = load(SimulatorQueries, "queries/simulator.sql")
