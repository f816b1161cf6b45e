"""The count of instructions: what goes into the server, and what is read of callgrind's words."""

from __future__ import annotations

import pytest

from bench.instructions import ALL_WORK, Work, executed


def test_the_count_is_read_from_what_callgrind_says() -> None:
    said = "==7== Events    : Ir\n==7== Collected : 336170687\n==7==\n"

    assert executed(said) == 336_170_687


def test_a_run_without_a_count_is_no_count_of_nothing() -> None:
    with pytest.raises(ValueError, match="no count: valgrind: Killed"):
        executed("valgrind: Killed")


@pytest.mark.parametrize("work", ALL_WORK, ids=lambda work: work.label)
def test_single_user_mode_gets_a_statement_on_each_line(work: Work) -> None:
    """It ends a statement at the end of the line, and would run half of one."""
    statements = work.round(0)

    assert statements
    assert all("\n" not in statement and "$" not in statement for statement in statements)
