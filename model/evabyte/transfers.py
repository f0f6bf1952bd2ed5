"""Copies tensors to a device and results back, each in one copy that does not block the host.

A copy from or to pageable memory waits for the device, and each copy costs the host a launch. Here
the tensors of a pass are packed into one pinned buffer, and so are its results. On a CPU nothing is
copied.
"""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeVar

import torch
from numpy.typing import NDArray
from torch import Tensor

Value = TypeVar("Value")

# Triton compiles another form of a kernel for an address that 16 does not divide.
ALIGNMENT = 16


def to_device(value: Value, device: torch.device) -> Value:
    """Return `value` with every tensor of the host in it on `device`.

    Tensors are found in tuples and dataclasses at any depth. One copy takes all of them. Work
    on the device's current stream comes after it, so the host need not wait.
    """
    if device.type == "cpu":
        return value
    on_host = [tensor for tensor in tensors_in(value) if tensor.device.type == "cpu"]
    if not on_host:
        return value
    packed = pack(on_host)
    if device.type == "cuda":
        packed = _pinned(packed)
    moved = unpack(packed.to(device, non_blocking=True), on_host)
    by_id = {id(old): new for old, new in zip(on_host, moved, strict=True)}
    found: Value = _replaced(value, by_id)
    return found


class Fetch:
    """Tensors on their way to the host; a device copies them when it has computed them."""

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        """Begin to copy `tensors`, all of one device."""
        self._tensors = list(tensors)
        self._copied: torch.cuda.Event | None = None
        if not self._tensors or self._tensors[0].device.type == "cpu":
            return
        packed = pack(self._tensors)
        device = packed.device
        # PyTorch takes pinned memory for such a copy.
        self._tensors = unpack(packed.to("cpu", non_blocking=True), self._tensors)
        self._copied = _mark_on_stream(device)

    def wait(self) -> list[NDArray[Any]]:
        """Return the tensors as arrays, once they are on the host."""
        if self._copied is not None:
            self._copied.synchronize()
        return [tensor.numpy() for tensor in self._tensors]


def _pinned(tensor: Tensor) -> Tensor:
    return tensor.pin_memory()


def _mark_on_stream(device: torch.device) -> torch.cuda.Event:
    """Return an event that comes when `device` has done what was launched on it so far."""
    # Blocking: a thread that waits for it leaves its core to others.
    event = torch.cuda.Event(blocking=True)
    # By default it would be the stream of the current device, which may be another one.
    event.record(torch.cuda.current_stream(device))
    return event


def pack(tensors: Sequence[Tensor]) -> Tensor:
    """Return the bytes of `tensors` behind each other, each from a multiple of `ALIGNMENT` on.

    All are on one device, which copies them in one operation.
    """
    pieces = []
    for tensor in tensors:
        flat = tensor.reshape(-1)
        if flat.stride(0) != 1:  # such as 0, of a single number that was broadcast
            flat = flat.clone(memory_format=torch.contiguous_format)
        pieces.append(flat.view(torch.uint8))
        if padding := -tensor.nbytes % ALIGNMENT:
            pieces.append(tensor.new_empty(padding, dtype=torch.uint8))
    return torch.cat(pieces) if pieces else torch.empty(0, dtype=torch.uint8)


def unpack(packed: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    """Return views of a packed buffer with types and shapes of the tensors that were packed."""
    places = _places([tensor.nbytes for tensor in like])
    return [
        packed.narrow(0, place.start, tensor.nbytes).view(tensor.dtype).view(tensor.shape)
        for tensor, place in zip(like, places, strict=True)
    ]


def _places(sizes: Iterable[int]) -> Iterator[slice]:
    start = 0
    for num_bytes in sizes:
        yield slice(start, start + num_bytes)
        start += num_bytes + -num_bytes % ALIGNMENT


def tensors_in(value: Any) -> Iterator[Tensor]:
    """Yield the tensors in tuples and dataclasses at any depth, in the order of their fields."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple):
        for item in value:
            yield from tensors_in(item)
    elif dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            yield from tensors_in(getattr(value, field.name))


def _replaced(value: Any, by_id: dict[int, Tensor]) -> Any:
    if isinstance(value, Tensor):
        return by_id.get(id(value), value)
    if isinstance(value, tuple):
        return tuple(_replaced(item, by_id) for item in value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = dataclasses.fields(value)
        changed = {each.name: _replaced(getattr(value, each.name), by_id) for each in fields}
        return dataclasses.replace(value, **changed)
    return value
