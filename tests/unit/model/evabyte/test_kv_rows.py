"""Rows of the KV cache are copied where they are kept."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from model.evabyte.kv_rows import KeysValues


class Operations(TorchDispatchMode):
    """Collects the names of the operations that PyTorch dispatches."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        self.names.append(operation._schema.name)
        return operation(*args, **(kwargs or {}))


@pytest.mark.parametrize("rows", [[], [2], [3, 0, 3]], ids=str)
def test_taken_rows_are_a_copy(rows):
    keys, values = torch.arange(24.0).view(4, 2, 3), torch.arange(24.0, 48.0).view(4, 2, 3)
    taken = KeysValues(keys, values).take(torch.tensor(rows, dtype=torch.int64))
    assert torch.equal(taken.keys, keys[rows])
    assert torch.equal(taken.values, values[rows])
    assert taken.keys.untyped_storage().data_ptr() != keys.untyped_storage().data_ptr()


def test_no_rows_start_nothing_on_the_device():
    own = KeysValues(torch.ones(4, 2, 3), torch.ones(4, 2, 3))
    with Operations() as operations:
        own.take(torch.empty(0, dtype=torch.int64))
    assert set(operations.names) <= {"aten::empty", "aten::new_empty"}
