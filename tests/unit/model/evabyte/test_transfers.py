"""Tensors that cross between host and device in one copy: the same values, types and shapes."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor

from model.evabyte.transfers import ALIGNMENT, Fetch, pack, to_device, unpack


def some_tensors() -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randint(-9, 9, (7,), generator=generator),
        torch.rand(3, 5, generator=generator),
        torch.empty(0, 5, dtype=torch.int64),
        torch.rand(1, generator=generator) > 0.5,
        torch.randint(0, 320, (5, 3), generator=generator).t(),
        torch.rand(2, 1, 2, generator=generator).double(),
        torch.arange(2).as_strided((1,), (0,)),
        torch.rand(1, generator=generator).expand(3),
    ]


@pytest.mark.parametrize("count", range(9))
def test_packed_tensors_come_out_as_they_went_in(count):
    tensors = some_tensors()[:count]
    found = unpack(pack(tensors), tensors)
    assert len(found) == count
    for tensor, copy in zip(tensors, found, strict=True):
        assert copy.dtype == tensor.dtype
        assert torch.equal(copy, tensor)


def test_every_tensor_starts_where_kernels_expect_it():
    tensors = some_tensors()
    packed = pack(tensors)
    for copy in unpack(packed, tensors):
        if copy.numel():
            assert (copy.data_ptr() - packed.data_ptr()) % ALIGNMENT == 0


@dataclass(frozen=True, slots=True)
class Inner:
    rows: Tensor
    count: int


@dataclass(frozen=True, slots=True)
class Outer:
    inner: Inner
    pair: tuple[Tensor, Tensor]
    name: str


def test_tensors_are_found_at_any_depth():
    rows, first, second = torch.arange(3), torch.ones(2, 2), torch.zeros(0)
    value = Outer(Inner(rows, 3), (first, second), "plan"), rows

    moved, again = to_device(value, torch.device("meta"))

    assert moved.inner.rows.device.type == moved.pair[0].device.type == "meta"
    assert [moved.inner.rows.shape, moved.pair[0].shape, moved.pair[1].shape] == [
        (3,),
        (2, 2),
        (0,),
    ]
    assert (moved.inner.count, moved.name) == (3, "plan")
    assert again.shape == (3,)


def test_nothing_is_copied_on_a_cpu_or_twice():
    rows = torch.arange(5)
    value = Inner(rows, 5)
    assert to_device(value, torch.device("cpu")) is value
    on_device = Inner(rows.to("meta"), 5)
    assert to_device(on_device, torch.device("meta")) is on_device
    [found] = Fetch([rows]).wait()
    assert found.ctypes.data == rows.data_ptr()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_tensors_cross_to_a_gpu_and_back():
    tensors = tuple(some_tensors())
    on_gpu = to_device(tensors, torch.device("cuda"))
    assert all(tensor.device.type == "cuda" for tensor in on_gpu)
    for tensor, found in zip(tensors, Fetch(on_gpu).wait(), strict=True):
        assert np.array_equal(tensor.numpy(), found)
