"""The count of instructions: the statements for the server, and the output of callgrind."""

from __future__ import annotations

import pytest

from bench.instructions import ALL_WORK, Work, parse_count


def test_the_count_is_read_from_the_output_of_callgrind() -> None:
    output = "==7== Events    : Ir\n==7== Collected : 336170687\n==7==\n"

    assert parse_count(output) == 336_170_687


def test_output_without_a_count_is_an_error() -> None:
    with pytest.raises(ValueError, match="no count: valgrind: Killed"):
        parse_count("valgrind: Killed")


@pytest.mark.parametrize("work", ALL_WORK, ids=lambda work: work.label)
def test_single_user_mode_gets_a_statement_on_each_line(work: Work) -> None:
    """It ends each statement at the end of a line, and would run half of one."""
    statements = work.round(0)

    assert statements
    assert all("\n" not in statement and "$" not in statement for statement in statements)
