"""Checks of a launch: remembered for like tensors, and made again for any that differ."""

import pytest
import torch

from model.ops.launching import FLOATS, INDICES, check_arguments

ROWS = torch.zeros(4, 6)


def check(x: torch.Tensor = ROWS, weight: torch.Tensor = ROWS[0], rows=None) -> dict[str, int]:
    arguments = [("x", x, "T C", FLOATS), ("weight", weight, "C", FLOATS)]
    if rows is not None:
        arguments.append(("rows", rows, "R", INDICES))
    return dict(check_arguments("op", *arguments))


def test_sizes_are_those_of_the_tensors_at_hand():
    assert check() == check() == {"T": 4, "C": 6}
    assert check(torch.zeros(9, 6)) == {"T": 9, "C": 6}
    assert check(rows=torch.arange(2)) == {"T": 4, "C": 6, "R": 2}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"x": torch.zeros(4, 7)}, r"op: weight has shape \[6\]; the other tensors imply \[7\]"),
        ({"x": torch.zeros(4)}, r"op: x has shape \[4\]"),
        ({"x": ROWS.long()}, "op: x has type torch.int64"),
        ({"x": torch.zeros(6, 4).t()}, r"op: x has strides \[1, 4\]"),
        ({"weight": torch.zeros(6, device="meta")}, "op: weight is on meta, but x is on cpu"),
        ({"weight": torch.zeros(6, requires_grad=True)}, "op: weight requires a gradient"),
        ({"rows": torch.zeros(2)}, "op: rows has type torch.float32"),
    ],
    ids=["size", "axes", "type", "strides", "device", "gradient", "index"],
)
def test_tensor_that_differs_is_checked_again_and_each_time(wrong, message):
    check()
    for _ in range(2):
        with pytest.raises(ValueError, match=message):
            check(**wrong)
    assert check() == {"T": 4, "C": 6}


def test_gradient_matters_only_where_it_would_be_computed():
    weight = torch.zeros(6, requires_grad=True)
    with torch.no_grad():
        check(weight=weight)
    with pytest.raises(ValueError, match="requires a gradient"):
        check(weight=weight)
