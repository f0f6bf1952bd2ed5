"""Runs the scoring path of a GPU without one: every shape, type, device and launch is checked.

Tensors are fake: they have no memory and no numbers. Kernels are counted and not launched; their
launchers check all arguments as on a GPU. The model has the width of EvaByte 6.5B and two layers.
"""

from __future__ import annotations

import contextlib
import traceback
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - the name by which everyone knows it
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from triton.runtime.jit import JITFunction

from bench.first_gpu import project
from bench.first_gpu.modes import INVARIANT, PLAIN, maker, put_layers
from bench.first_gpu.sizes import REAL
from bench.first_gpu.steps.tiles import LONE_TEXT_TILES, TILES, Product
from bench.gpu import Shape, cases
from model import Scorer, ScoreRequest
from model.ops.backend import Backend
from model.scoring.sliding_window import SlidingWindow

NUM_LAYERS = 2
DEVICE = "cuda:0"
WINDOW = REAL.window
PASS_BYTES = 2 * WINDOW
BYTES, TOP_K = frozenset({"bytes"}), frozenset({"bytes", "top_k"})
NF4_BLOCK = 64
# What Triton takes besides the arguments of a kernel.
LAUNCH_OPTIONS = {"grid", "warmup", "num_warps", "num_stages", "enable_fp_fusion"}

REQUESTS: dict[str, list[ScoreRequest]] = {
    "a batch": [ScoreRequest(text=bytes(length)) for length in (1, 200, 333, WINDOW)],
    "bytes and top_k": [ScoreRequest(text=bytes(300), outputs=TOP_K, top_k=5)] * 3,
    "two windows": [ScoreRequest(text=bytes(2 * WINDOW))],
    "three windows": [ScoreRequest(text=bytes(2 * WINDOW + 1), outputs=BYTES)],
    "several passes": [ScoreRequest(text=bytes(3 * PASS_BYTES + 5))],
    "continuations": [
        ScoreRequest(context=bytes(WINDOW + 77), continuations=(bytes(3), bytes(500), bytes(1)))
    ],
    "one continuation": [ScoreRequest(context=bytes(100), continuations=(bytes(20),))],
    "sliding window": [
        ScoreRequest(text=bytes(4 * WINDOW), window=SlidingWindow(2 * WINDOW, WINDOW))
    ],
    "next characters": [ScoreRequest(text=bytes(length), next_chars=3) for length in (0, 9, 2100)],
}
MODES = (PLAIN, "int8", "nf4", "fp8")


@pytest.fixture
def current_devices(monkeypatch: pytest.MonkeyPatch) -> list[torch.device]:
    """The current GPU, last in a list: at first not the one that the models are on."""
    devices = [torch.device("cuda", 1)]

    @contextlib.contextmanager
    def make_current(device: torch.device) -> Iterator[None]:
        devices.append(device)
        yield
        devices.pop()

    monkeypatch.setattr(torch.cuda, "device", make_current)
    return devices


@pytest.fixture
def launched(
    monkeypatch: pytest.MonkeyPatch, current_devices: list[torch.device]
) -> Iterator[Counter[str]]:
    """Have tensors be fake and launches be counted by the names of their kernels."""
    counts: Counter[str] = Counter()

    def count(self: JITFunction, *arguments: Any, **options: Any) -> None:
        named = {name: options[name] for name in options.keys() - LAUNCH_OPTIONS}
        self.signature.bind(*arguments, **named)  # Triton too refuses other arguments
        counts[self.fn.__name__] += 1

    def zeros(self: Tensor, *, force: bool = False) -> np.ndarray:
        """What a fake tensor on the host has for numbers."""
        assert self.device.type == "cpu", "only the host's memory is read"
        return np.zeros(tuple(self.shape), dtype=str(self.dtype).removeprefix("torch."))

    monkeypatch.setattr(JITFunction, "run", count)
    monkeypatch.setattr(Tensor, "numpy", zeros)
    # Pinned memory and events ask for a driver.
    monkeypatch.setattr(Tensor, "pin_memory", lambda self: self)
    monkeypatch.setattr(torch.cuda, "Event", FinishedEvent)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: torch.device(device))
    from_numpy = torch.from_numpy
    with FakeTensorMode(allow_non_fake_inputs=True) as mode, IndexingWithoutDriver():
        monkeypatch.setattr(torch, "from_numpy", lambda array: mode.from_tensor(from_numpy(array)))
        yield counts


class FinishedEvent:
    """An event of a device that has always computed everything."""

    def __init__(self, *, blocking: bool = False) -> None:
        """Take the options of `torch.cuda.Event`."""

    def record(self, stream: torch.device) -> None:
        """Mark this moment on the stream that the models use, on their device."""
        assert stream == torch.device(DEVICE)

    def synchronize(self) -> None:
        """Wait for nothing."""


class IndexingWithoutDriver(TorchFunctionMode):
    """Indexes tensors by PyTorch's operations: its own short cut asks for a CUDA driver first."""

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if function is Tensor.__getitem__:
            return index(*args)
        if function is Tensor.__setitem__:
            tensor, places, values = args
            assert values.device == tensor.device
            index(tensor, places).add(values)  # the shapes fit; there are no numbers to keep
            return None
        return function(*args, **(kwargs or {}))


class WaitsForDevice(TorchDispatchMode):
    """Notes the copies between host and device for which the host waits.

    An operation whose result's shape or value the host must know cannot run on fake tensors at all.
    """

    def __init__(self) -> None:
        """Begin without any."""
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(
        self, operation: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        result = operation(*args, **kwargs)
        named = dict(zip((each.name for each in operation._schema.arguments), args, strict=False))
        source = named.get("src", named.get("self"))
        if isinstance(source, Tensor) and isinstance(result, Tensor):
            is_async = {**named, **kwargs}.get("non_blocking", False)
            if source.device != result.device and not is_async:
                self.found.append(f"{operation} in {traceback.extract_stack()[-2].name}")
        return result


class OfDevice(TorchDispatchMode):
    """Notes the operations that read or write a tensor of the host."""

    def __init__(self) -> None:
        """Begin without any."""
        super().__init__()
        self.on_host: list[str] = []

    def __torch_dispatch__(
        self, operation: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        result = operation(*args, **(kwargs or {}))
        tensors = (*args, *(kwargs or {}).values(), result)
        if any(isinstance(each, Tensor) and each.device.type == "cpu" for each in tensors):
            self.on_host.append(str(operation))
        return result


class DeviceOperations(TorchDispatchMode):
    """Counts the operations that launch something on the device, besides Triton's kernels.

    A product of bitsandbytes is one operation, which may launch two kernels.
    """

    # They only reserve memory.
    ALLOCATIONS = ("empty", "empty_like", "new_empty", "empty_strided")

    def __init__(self) -> None:
        """Begin without any."""
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(
        self, operation: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        result = operation(*args, **(kwargs or {}))
        name = operation._schema.name.removeprefix("aten::")
        on_device = isinstance(result, Tensor) and result.device.type == "cuda"
        is_view = any(each.alias_info is not None for each in operation._schema.returns)
        if on_device and not is_view and name not in self.ALLOCATIONS:
            self.counts[name] += 1
        return result


def index(tensor: Tensor, places: Any) -> Tensor:
    """Return `tensor[places]`."""
    places = places if isinstance(places, tuple) else (places,)
    axis = 0
    for number, place in enumerate(places):
        if place is None:
            tensor = tensor.unsqueeze(axis)
        elif place is Ellipsis:
            axis = tensor.dim() - sum(each is not None for each in places[number + 1 :])
            continue
        elif isinstance(place, int):
            tensor = tensor.select(axis, place)
            continue
        elif isinstance(place, slice):
            start, stop, step = place.indices(tensor.shape[axis])
            tensor = torch.ops.aten.slice.Tensor(tensor, axis, start, stop, step)
        else:
            tensor = torch.ops.aten.index.Tensor(tensor, [None] * axis + [torch.as_tensor(place)])
        axis += 1
    return tensor


@pytest.mark.parametrize(
    "places",
    [
        *(3, -1, None, slice(1, -1), slice(None, None, 2), torch.tensor([1, 1, 3])),
        *((None, slice(2)), (..., 0), (..., None), (..., slice(1, 3)), (slice(None), None, 1)),
        *((slice(None), torch.tensor([2, 0])), (2, ..., None, slice(2))),
    ],
)
def test_indexing_of_this_file_is_pytorchs(places):
    tensor = torch.arange(120).view(4, 5, 6)
    assert index(tensor, places).equal(tensor[places])


def nf4_layer(weight: Tensor) -> nn.Module:
    """A layer of bitsandbytes around a fake weight: its own parameter class cannot be fake."""
    import bitsandbytes as bnb
    from bitsandbytes.functional import QuantState

    options = {"bias": False, "compute_dtype": weight.dtype, "quant_type": "nf4"}
    with unset_fake_temporarily():
        layer = bnb.nn.Linear4bit(weight.shape[1], weight.shape[0], device="meta", **options)
    packed = torch.empty(weight.numel() // 2, 1, dtype=torch.uint8, device=weight.device)
    layer.weight = nn.Parameter(packed, requires_grad=False)
    layer.weight.quant_state = QuantState(
        absmax=torch.empty(weight.numel() // NF4_BLOCK, device=weight.device),
        shape=weight.shape,
        code=torch.empty(16, device=weight.device),
        blocksize=NF4_BLOCK,
        quant_type="nf4",
        dtype=weight.dtype,
    )
    return layer


def fake_scorer(mode: str, backend: Backend, num_layers: int = NUM_LAYERS) -> Scorer:
    """A scorer of a model on a GPU that is not there."""
    with unset_fake_temporarily():  # random numbers would need a device
        model = project.new_model("meta", REAL, num_hidden_layers=num_layers)
    for module in model.modules():
        for name, value in list(module.named_parameters(recurse=False)):
            empty = torch.empty(value.shape, dtype=value.dtype, device=DEVICE)
            setattr(module, name, nn.Parameter(empty, requires_grad=False))
    project.fuse_products(model)
    if mode != PLAIN:
        make = nf4_layer if mode == "nf4" else maker(mode, backend)
        layers = project.linear_layers(model)
        put_layers(model, {name: make(layer.weight.data) for name, layer in layers.items()})
    project.set_backend(model, backend)
    return project.scorer_of(model, PASS_BYTES, "none" if mode == PLAIN else mode)


@pytest.mark.parametrize("kind", REQUESTS)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("backend", ["triton", "torch"])
def test_request_is_scored(launched, backend, mode, kind):
    requests = REQUESTS[kind]
    results = fake_scorer(mode, backend).score(requests)

    assert len(results) == len(requests)
    if backend == "torch":
        assert not launched
    else:
        assert {"eva_attention_fwd_kernel", "head_log_likelihood_fwd_kernel"} <= launched.keys()
        for name in ("int8", "fp8"):
            assert (f"{name}_linear_fwd_kernel" in launched) == (mode == name)


@pytest.mark.parametrize("kind", [kind for kind in REQUESTS if kind != "next characters"])
@pytest.mark.parametrize("mode", MODES)
def test_no_launch_of_a_pass_waits_for_the_device(launched, mode, kind):
    scorer = fake_scorer(mode, "triton")
    with WaitsForDevice() as waits:
        scorer.score(REQUESTS[kind])
    assert not waits.found


@pytest.mark.parametrize("lengths", [[200], [WINDOW + 33, 7]], ids=str)
@pytest.mark.parametrize("mode", MODES)
def test_layers_of_a_pass_touch_no_memory_of_the_host(launched, mode, lengths):
    """So a CUDA graph could hold them: nothing in it would be left behind on the host."""
    model = fake_scorer(mode, "triton")._model
    layout = model.lay_out(lengths)
    plan = model.model.plan(torch.zeros(sum(lengths), dtype=torch.int64), layout)
    with torch.inference_mode(), OfDevice() as operations:
        hidden, _ = model.model.run(plan)
    assert hidden.shape == (sum(lengths), REAL.hidden)
    assert operations.on_host == []


@pytest.mark.parametrize("kind", ["several passes", "continuations", "next characters"])
def test_kernels_start_on_the_device_of_the_model(launched, current_devices, monkeypatch, kind):
    """Another model, or a thread that did not load this one, has another current device."""
    started_on: set[torch.device] = set()
    count = JITFunction.run

    def note_device(self: JITFunction, *arguments: Any, **options: Any) -> None:
        started_on.add(current_devices[-1])
        count(self, *arguments, **options)

    monkeypatch.setattr(JITFunction, "run", note_device)
    fake_scorer("int8", "triton").score(REQUESTS[kind])
    assert started_on == {torch.device(DEVICE)}
    assert current_devices == [torch.device("cuda", 1)]


def test_invariant_mode_of_the_benchmark_multiplies_with_the_kernel_of_one_tile(launched):
    results = fake_scorer(INVARIANT, "triton").score(REQUESTS["a batch"])

    assert len(results) == len(REQUESTS["a batch"])
    assert launched["float_linear_fwd_kernel"] == 4 * launched["eva_attention_fwd_kernel"]


def test_copy_that_waits_is_found(launched):
    with WaitsForDevice() as waits:
        on_device = torch.empty(3).to(DEVICE, non_blocking=True)
        on_device.to("cpu", non_blocking=True)
        assert not waits.found
        torch.empty(3).to(DEVICE)
        on_device.cpu()
        with torch.inference_mode():
            on_device.cpu()
    assert len(waits.found) == 3


def test_fused_attention_of_pytorch_computes_passes_without_kernels(launched, monkeypatch):
    calls: list[torch.Size] = []
    attend = F.scaled_dot_product_attention

    def note_call(q: Tensor, *arguments: Any, **options: Any) -> Tensor:
        calls.append(q.shape)
        return attend(q, *arguments, **options)

    monkeypatch.setattr(F, "scaled_dot_product_attention", note_call)
    fake_scorer(PLAIN, "torch").score(REQUESTS["three windows"])

    assert len(calls) >= NUM_LAYERS


@pytest.mark.parametrize(
    ("dtype", "tile"),
    sorted(
        {
            (dtype, tile)
            for tiles_by_type in (TILES, LONE_TEXT_TILES)
            for dtype, tiles in tiles_by_type.items()
            for tile in tiles
        },
        key=str,
    ),
    ids=lambda value: str(value).removeprefix("torch."),
)
def test_tile_of_the_benchmark_is_launched(launched, dtype, tile):
    with torch.device(DEVICE):
        x, weight = (torch.empty(size, 4096, dtype=dtype) for size in (300, 11_008))
        scales = torch.empty(300), torch.empty(11_008)
    product = Product(x, weight, scales).multiply(tile)

    assert (product.shape, product.dtype) == ((300, 11_008), torch.bfloat16)
    kernel = "int8_linear_fwd_kernel" if dtype == torch.int8 else "fp8_linear_fwd_kernel"
    assert launched == {kernel: 1}


@pytest.mark.parametrize(("kind", "num_summaries"), [("a batch", 0), ("two windows", 1)])
@pytest.mark.parametrize(
    ("mode", "num_launches"), [(PLAIN, 9), ("int8", 10), ("fp8", 10), ("nf4", 9)]
)
def test_layer_takes_few_launches(launched, mode, num_launches, kind, num_summaries):
    counts = []
    for num_layers in (1, 2):
        launched.clear()
        scorer = fake_scorer(mode, "triton", num_layers)
        with DeviceOperations() as operations:
            scorer.score(REQUESTS[kind])
        num_passes = launched["head_log_likelihood_fwd_kernel"]
        counts.append((launched.total() + operations.counts.total()) / num_passes)
    assert counts[1] - counts[0] == num_launches + num_summaries
    # Around the layers: embedding, tables, last norm, head, copies.
    assert counts[0] - (counts[1] - counts[0]) <= 25


@pytest.mark.parametrize("mode", ["int8", "fp8"])
def test_norms_and_gates_quantize_rows_for_the_products(launched, mode):
    fake_scorer(mode, "triton").score(REQUESTS["a batch"])

    assert launched[f"{mode}_linear_fwd_kernel"] == 4 * launched["eva_attention_fwd_kernel"]
    # The rows of attention alone have a kernel of their own.
    kernel = {"int8": "quantize_rows_fwd_kernel", "fp8": "quantize_rows_fp8_fwd_kernel"}[mode]
    assert launched[kernel] == launched["eva_attention_fwd_kernel"]


@pytest.mark.parametrize("mode", ["int8", "fp8"])
def test_benchmark_takes_products_of_pytorch_between_the_kernels(launched, mode):
    scorer = fake_scorer(mode, "triton")
    project.set_backend_of_products(scorer._model, "torch")
    scorer.score(REQUESTS["a batch"])

    assert launched["eva_attention_fwd_kernel"]
    assert not launched[f"{mode}_linear_fwd_kernel"]


def test_every_case_of_the_benchmark_launches_its_kernel(launched, monkeypatch):
    def empty(size, *, generator, device):
        return torch.empty(size, device=device)

    # Random numbers would need a driver.
    monkeypatch.setattr(torch, "randn", empty)
    monkeypatch.setattr(torch, "Generator", lambda device: torch.default_generator)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    shape = Shape(lengths=(200, 200, 2 * WINDOW + 1))
    for name, case in cases(shape, torch.device(DEVICE)):
        launched.clear()
        case("triton")()
        assert launched, name
