"""bfloat16 weights on a CPU that is faster in float32: the weights stay, the products are wide."""

import pytest
import torch

from model import Scorer, ScoreRequest
from model.evabyte.linear_layers import WideLinear
from model.weights import loading

TEXT = ScoreRequest(text=b"windows of 16 bytes, and chunks of four", outputs=frozenset({"bytes"}))


@pytest.fixture(params=[True, False], ids=["slow", "fast"])
def is_slow(request, monkeypatch) -> bool:
    """What the measurement of bfloat16 products finds."""
    monkeypatch.setattr(loading, "is_bfloat16_slow", lambda: request.param)
    return request.param


@pytest.mark.parametrize("quantization", ["none", "int8", "nf4", "fp8"])
def test_products_are_wide_only_where_bfloat16_is_slow(is_slow, quantization, tiny_checkpoint):
    loaded = Scorer.load(str(tiny_checkpoint), dtype="bfloat16", quantization=quantization)
    model = loaded._model

    assert model.lm_head.weight.dtype == torch.bfloat16
    assert model.next_id_weight.dtype == (torch.float32 if is_slow else torch.bfloat16)
    assert isinstance(model.lm_head, WideLinear) == is_slow
    assert loaded.info.dtype == "bfloat16"
    [result] = loaded.score([TEXT])
    [exact] = Scorer.load(str(tiny_checkpoint)).score([TEXT])
    allowed = {"none": 0.05, "int8": 0.3, "nf4": 2.0, "fp8": 1.0}[quantization]
    assert result["bits_per_byte"] == pytest.approx(exact["bits_per_byte"], abs=allowed)


def test_wide_products_are_those_of_the_rounded_weights(tiny_checkpoint, tiny_model, monkeypatch):
    monkeypatch.setattr(loading, "is_bfloat16_slow", lambda: True)
    wide = Scorer.load(str(tiny_checkpoint), dtype="bfloat16")
    [result] = wide.score([TEXT])

    exact = Scorer.load(str(tiny_checkpoint))
    exact._model.load_state_dict(
        {name: value.bfloat16().float() for name, value in tiny_model.state_dict().items()}
    )
    [expected] = exact.score([TEXT])
    assert result["bytes"]["log_prob_nats"] == pytest.approx(
        expected["bytes"]["log_prob_nats"], abs=1e-4
    )
