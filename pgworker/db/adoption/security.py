"""Row level security that applies to us: which policies are missing. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pgworker.db.adoption.objection import Objection, quoted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgworker.db.adoption.facts import Policy, SecuredTable, Security

COMMANDS: Final = {"r": "select", "a": "insert", "w": "update"}
EVERY_ROW: Final = frozenset({"", "true"})
CLIENTS: Final = "public.clients"


def find_security_objections(security: Security) -> Iterator[Objection]:
    """Return an objection for each table in which a command would meet no row at all.

    One stands for all of pgworker's own, which have no policies: their owner needs none.
    """
    for table in security.tables:
        lacking = _lacking(table, security)
        if lacking and table.name == CLIENTS:
            what = f"no policy lets it {', '.join(lacking)}"
            policy = f"create policy pgworker on {table.name} to {quoted(security.role)}"
            yield _objection(table, security, what, f"{policy} using (true) with check (true)")
    own = [table for table in security.tables if table.name != CLIENTS]
    if own and any(_lacking(table, security) for table in own):
        what = "no policy lets it see the queue"
        advice = f"grant {quoted(own[0].owner)} to {quoted(security.role)}"
        yield _objection(own[0], security, what, advice)


def find_hidden_rows(security: Security) -> Iterator[Objection]:
    """Return one when policies of `clients` decide row by row what we see and write.

    They may let all rows pass; only their author knows.
    """
    for table in security.tables:
        policies = _policies_of(table, security)
        decide = not all(_allows_all(command, policies) for command in COMMANDS)
        if table.name == CLIENTS and decide and not _lacking(table, security):
            advice = f"alter role {quoted(security.role)} bypassrls"
            yield _objection(table, security, "its policies may hide rows from it", advice)


def _objection(table: SecuredTable, security: Security, what: str, advice: str) -> Objection:
    why = ", though it owns the table (force row level security)" if table.is_owner else ""
    return Objection(
        f"row level security of {table.name}",
        f"applies to role {security.role}{why}, and {what}",
        "all rows",
        advice,
        "security",
    )


def _lacking(table: SecuredTable, security: Security) -> list[str]:
    policies = _policies_of(table, security)
    return [name for command, name in COMMANDS.items() if not _allowing(command, policies)]


def _policies_of(table: SecuredTable, security: Security) -> list[Policy]:
    return [policy for policy in security.policies if policy.table_name == table.name]


def _allowing(command: str, policies: list[Policy]) -> list[Policy]:
    return [each for each in policies if each.is_permissive and each.command in (command, "*")]


def _allows_all(command: str, policies: list[Policy]) -> bool:
    restricting = [
        each for each in policies if not each.is_permissive and each.command in (command, "*")
    ]
    return any(_is_for_every_row(each) for each in _allowing(command, policies)) and all(
        _is_for_every_row(each) for each in restricting
    )


def _is_for_every_row(policy: Policy) -> bool:
    return policy.shown_if in EVERY_ROW and policy.stored_if in EVERY_ROW
