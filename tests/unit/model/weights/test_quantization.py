"""Quantized modes: near the exact scores, the same in any company, for every width."""

import subprocess
import sys

import pytest
import torch
from bitsandbytes.functional import int8_vectorwise_quant
from safetensors.torch import load_file, save_file

from contract.grammar.vocabulary import encode
from model import EvaByteConfig, EvaByteForCausalLM
from model.errors import CheckpointInvalid, QuantizationUnavailable
from model.evabyte.linear_layers import Fp8Linear, Int8Linear
from model.ops import fp8_linear
from model.weights.checkpoint import Checkpoint, find_checkpoint, load_model
from model.weights.quantization import (
    Quantization,
    bits_and_bytes_config,
    check_capability,
    load_quantized_model,
)
from tests.conftest import HANG_S

CPU = torch.device("cpu")
TEXT = b"windows of 16 bytes, and chunks of four"
# Hidden and feed-forward widths; bitsandbytes stores NF4 in blocks of 64 values.
WIDTHS = [(64, 128), (32, 96), (24, 44), (40, 36)]
# Mean over the bytes of a random model whose predictions are far from uniform.
MAX_MEAN_SHIFT_NATS = {"int8": 0.05, "nf4": 0.4, "fp8": 0.3}


@pytest.fixture(scope="module", params=WIDTHS, ids=lambda widths: "hidden {} by {}".format(*widths))
def checkpoint(request, tmp_path_factory):
    """A random model of two layers with these widths."""
    hidden, intermediate = request.param
    config = EvaByteConfig(
        hidden_size=hidden,
        intermediate_size=intermediate,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_pred_heads=3,
        window_size=16,
        chunk_size=4,
        max_position_embeddings=512,
        initializer_range=0.3,
    )
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("model")
    EvaByteForCausalLM(config).save_pretrained(folder)
    return find_checkpoint(str(folder))


def load(checkpoint, mode: str, dtype: torch.dtype = torch.float32) -> EvaByteForCausalLM:
    return load_quantized_model(
        checkpoint,
        Quantization(mode, cache_dir=None),
        revision="any",
        device=CPU,
        dtype=dtype,
        backend="torch",
        on_phase=lambda phase: None,
    )


def log_probs(model: EvaByteForCausalLM, text: bytes = TEXT) -> torch.Tensor:
    """Of each byte of `text`: [bytes] float32."""
    ids = torch.tensor([encode(text)])
    with torch.no_grad():
        predicted = model(ids).logits[0, :-1].log_softmax(-1)
    return predicted.gather(1, ids[0, 1:, None])[:, 0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("mode", MAX_MEAN_SHIFT_NATS)
def test_scores_are_near_those_of_the_model_as_it_is(checkpoint, mode, dtype):
    exact = log_probs(load_model(checkpoint, device=CPU, dtype=torch.float32))

    shifts = log_probs(load(checkpoint, mode, dtype)) - exact

    assert shifts.abs().max() > 0
    assert shifts.mean().abs() < MAX_MEAN_SHIFT_NATS[mode]


@pytest.mark.parametrize("mode", MAX_MEAN_SHIFT_NATS)
def test_only_the_layers_linear_weights_are_quantized(checkpoint, mode):
    exact = load_model(checkpoint, device=CPU, dtype=torch.float32).state_dict()

    model = load(checkpoint, mode)

    kept = {name for name, value in model.state_dict().items() if value.dtype == torch.float32}
    quantized = {name for name in exact if name.endswith("proj.weight")}
    assert exact.keys() - quantized <= kept
    assert not quantized & kept
    for name in exact.keys() - quantized:
        assert torch.equal(model.state_dict()[name], exact[name])
    assert model.num_parameters() == sum(value.numel() for value in exact.values())


@pytest.mark.parametrize(("mode", "kind"), [("int8", Int8Linear), ("fp8", Fp8Linear)])
def test_layer_gives_a_row_the_same_result_alone_and_in_any_batch(checkpoint, mode, kind):
    model = load(checkpoint, mode)
    layers = [layer for layer in model.modules() if isinstance(layer, kind)]
    assert len(layers) == 7 * checkpoint.config.num_hidden_layers
    for layer in layers:
        x = torch.randn(21, layer.weight.shape[1], generator=torch.Generator().manual_seed(1))
        x[3] *= 1000  # a batch mate with outliers
        together = layer(x)
        for first, last in [(0, 1), (5, 6), (20, 21), (0, 7), (4, 21)]:
            assert torch.equal(layer(x[first:last]), together[first:last])


def test_int8_weights_are_those_of_bitsandbytes(checkpoint):
    exact = load_model(checkpoint, device=CPU, dtype=torch.float32).model.layers[0].mlp.up_proj
    weight, weight_absmax, _ = int8_vectorwise_quant(exact.weight.detach().half())

    layer = load(checkpoint, "int8").model.layers[0].mlp.up_proj

    assert torch.equal(layer.weight, weight)
    assert torch.equal(layer.weight_absmax, weight_absmax)


def test_fp8_weights_are_the_rows_of_the_checkpoint(checkpoint):
    exact = load_model(checkpoint, device=CPU, dtype=torch.bfloat16).model.layers[0].mlp.up_proj
    rows = fp8_linear.quantize_rows(exact.weight.detach(), backend="torch")

    layer = load(checkpoint, "fp8", torch.bfloat16).model.layers[0].mlp.up_proj

    assert layer.weight.dtype == torch.float8_e4m3fn
    assert torch.equal(layer.weight.float(), rows.values.float())
    assert torch.equal(layer.weight_scales, rows.scales)


def test_checkpoint_without_a_tensor_is_refused(checkpoint, tmp_path):
    [file] = checkpoint.weight_files
    tensors = load_file(file)
    del tensors["model.norm.weight"]
    save_file(tensors, tmp_path / file.name, metadata={"format": "pt"})
    damaged = Checkpoint(tmp_path, checkpoint.config, (tmp_path / file.name,))
    with pytest.raises(CheckpointInvalid, match=r"has no tensor model\.norm\.weight"):
        load(damaged, "fp8")


@pytest.mark.parametrize(
    ("capability", "is_refused"),
    [((8, 0), True), ((8, 6), True), ((8, 9), False), ((9, 0), False), ((10, 0), True)],
    ids=str,
)
def test_gpu_without_fp8_products_is_refused_with_the_remedy(capability, is_refused, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    device = torch.device("cuda", 0)
    for mode in ("none", "int8", "nf4"):
        check_capability(mode, device)
    if not is_refused:
        check_capability("fp8", device)
        return
    with pytest.raises(QuantizationUnavailable) as reply:
        check_capability("fp8", device)
    message = "cuda:0 has compute capability {}.{}, and fp8 needs 8.9 or 9.0".format(*capability)
    assert message in str(reply.value)
    assert str(reply.value).endswith("use quantization int8 or nf4")


@pytest.mark.parametrize("mode", ["int4", "", "none", "INT8"])
def test_unknown_mode_is_refused_with_those_that_exist(mode):
    with pytest.raises(QuantizationUnavailable, match="use one of none, int8, nf4, fp8"):
        bits_and_bytes_config(mode, torch.float32)


def test_missing_bitsandbytes_is_reported_with_its_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(
        QuantizationUnavailable, match="the package bitsandbytes cannot be imported"
    ):
        bits_and_bytes_config("int8", torch.float32)


def test_other_modes_neither_need_nor_import_bitsandbytes(tiny_checkpoint):
    program = (
        "import sys; sys.modules['bitsandbytes'] = None\n"
        "from model import Scorer, ScoreRequest\n"
        "for mode in ('none', 'fp8'):\n"
        f"    scorer = Scorer.load({str(tiny_checkpoint)!r}, quantization=mode)\n"
        "    scorer.score([ScoreRequest(text=b'ab')])\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=HANG_S)
