"""A short pass uses one thread, a long one all; afterwards the caller has its number again."""

import pytest
import torch

from model.machine.pass_threads import MIN_MULTIPLICATIONS, threads_for


@pytest.fixture
def four_threads():
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(1)


@pytest.mark.parametrize(
    ("num_rows", "num_threads"), [(1, 1), (199, 1), (200, 2), (399, 3), (400, 4), (10_000, 4)]
)
def test_threads_are_as_many_as_the_products_are_worth(four_threads, num_rows, num_threads):
    with threads_for(num_rows, MIN_MULTIPLICATIONS // 100):
        assert torch.get_num_threads() == num_threads
    assert torch.get_num_threads() == 4


def test_threads_are_given_back_after_an_error(four_threads):
    with pytest.raises(MemoryError), threads_for(1, 1):
        raise MemoryError
    assert torch.get_num_threads() == 4
