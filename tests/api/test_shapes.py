"""What goes out is made from rows: each shape's fields are columns of its row."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import pytest

from pgworker.api import shapes
from pgworker.status import rows

if TYPE_CHECKING:
    from pydantic import BaseModel

SHAPES: list[tuple[type[BaseModel], type[NamedTuple]]] = [
    (shapes.Job, rows.JobStatusRow),
    (shapes.Transition, rows.TransitionRow),
    (shapes.FailedGroup, rows.FailedGroupRow),
    (shapes.Health, rows.HealthRow),
    (shapes.Pause, rows.PauseRow),
    (shapes.Breaker, rows.BreakerRow),
    (shapes.Worker, rows.WorkerRow),
]


@pytest.mark.parametrize(("shape", "row"), SHAPES)
def test_a_shape_has_the_columns_of_its_row_in_their_order(
    shape: type[BaseModel], row: type[NamedTuple]
) -> None:
    assert list(shape.model_fields) == [name for name in row._fields if name in shape.model_fields]


def test_no_shape_is_left_out_here() -> None:
    assert set(shapes.FromRow.__subclasses__()) == {shape for shape, _ in SHAPES}
