"""The exported checkpoint has the published layout."""

import json

import torch
from safetensors import safe_open

from model import Scorer
from model.canary import check_canary
from model.training.export import add_canary, config_of, write_checkpoint
from model.training.network import Shape, TrainingEvaByte
from model.weights.quantization import QUANTIZATIONS

SHAPE = Shape(hidden_size=32, num_layers=2, num_heads=2, intermediate_size=48)


def test_tensors_have_published_names_and_shapes_in_bfloat16(tmp_path):
    write_checkpoint(TrainingEvaByte(SHAPE).state_dict(), SHAPE, tmp_path)

    with safe_open(tmp_path / "model.safetensors", framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    expected = {
        "model.embed_tokens.weight": (320, 32),
        "model.norm.weight": (32,),
        "lm_head.weight": (2560, 32),
    }
    for n in range(2):
        layer = f"model.layers.{n}"
        expected |= {f"{layer}.self_attn.{x}_proj.weight": (32, 32) for x in "qkvo"}
        expected |= {f"{layer}.mlp.{x}_proj.weight": (48, 32) for x in ("gate", "up")}
        expected |= {
            f"{layer}.mlp.down_proj.weight": (32, 48),
            f"{layer}.input_layernorm.weight": (32,),
            f"{layer}.post_attention_layernorm.weight": (32,),
            f"{layer}.self_attn.adaptive_phi": (1, 2, 1, 1, 16),
            f"{layer}.self_attn.adaptive_mu_k": (1, 2, 1, 1, 16),
        }
    assert shapes == expected
    assert {tensor.dtype for tensor in tensors.values()} == {torch.bfloat16}


def test_config_describes_the_shape_and_says_that_it_is_a_demo(tmp_path):
    write_checkpoint(TrainingEvaByte(SHAPE).state_dict(), SHAPE, tmp_path)

    config = json.loads((tmp_path / "config.json").read_text())

    assert config == config_of(SHAPE)
    assert config["is_demo"] is True
    assert config["norm_add_unit_offset"] is True
    assert (config["hidden_size"], config["num_hidden_layers"]) == (32, 2)


def test_canary_names_the_score_of_every_mode(tmp_path):
    write_checkpoint(TrainingEvaByte(SHAPE).state_dict(), SHAPE, tmp_path)

    add_canary(tmp_path)

    scores = json.loads((tmp_path / "canary.json").read_text())["log_likelihood_nats"]
    assert {name: set(by_mode) for name, by_mode in scores.items()} == {
        "float32": set(QUANTIZATIONS),
        "bfloat16": set(QUANTIZATIONS),
    }
    check_canary(Scorer.load(str(tmp_path)), cache_dir=tmp_path / "cache")
    assert not (tmp_path / "cache").exists()
