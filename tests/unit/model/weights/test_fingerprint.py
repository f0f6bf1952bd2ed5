"""Fingerprints differ where scores can differ, and are equal on every machine."""

import re
from pathlib import Path

import pytest
import torch

from model import EvaByteConfig, EvaByteForCausalLM, Scorer
from model.evabyte.configuration import SCORING_KEYS
from model.weights.fingerprint import fingerprint_of

DEMO = Path(__file__).parents[4] / "model" / "checkpoints" / "demo"


def fingerprint(checkpoint: Path, **choice) -> str:
    return Scorer.load(str(checkpoint), **choice).info.fingerprint


def saved(model: EvaByteForCausalLM, folder: Path) -> Path:
    model.save_pretrained(folder)
    return folder


def test_a_fingerprint_has_twelve_hexadecimal_digits(tiny_checkpoint):
    assert re.fullmatch("[0-9a-f]{12}", fingerprint(tiny_checkpoint))


def test_the_demo_has_the_same_fingerprint_on_every_machine():
    # Results of different machines and releases are compared by it: a change is a change of scores.
    assert fingerprint(DEMO, dtype="float32") == "88b2e1475b32"


@pytest.mark.parametrize(
    "choice",
    [
        {"name": "another name"},
        {"dtype": "float32"},
        {"device": "cpu", "kernels": "torch"},
        {"pass_bytes": 64},
        {"is_reproducible": True},
    ],
    ids=str,
)
def test_what_changes_scores_by_rounding_alone_does_not_change_it(tiny_checkpoint, choice):
    assert fingerprint(tiny_checkpoint, **choice) == fingerprint(tiny_checkpoint)


def test_it_does_not_depend_on_the_folder_or_the_cache(tiny_model, tiny_checkpoint, tmp_path):
    copy = saved(tiny_model, tmp_path / "copy")
    cached = {"quantization": "int8", "cache_dir": tmp_path / "cache"}

    assert fingerprint(copy) == fingerprint(tiny_checkpoint)
    first, second = fingerprint(copy, **cached), fingerprint(tiny_checkpoint, **cached)
    assert first == second == fingerprint(copy, quantization="int8")


def test_quantization_and_dtype_change_it(tiny_checkpoint):
    choices = [
        {},
        {"dtype": "bfloat16"},
        {"quantization": "int8"},
        {"quantization": "nf4"},
        {"quantization": "fp8"},
        {"quantization": "int8", "dtype": "bfloat16"},
    ]

    assert len({fingerprint(tiny_checkpoint, **choice) for choice in choices}) == len(choices)


def test_other_weights_change_it(tiny_config, tiny_checkpoint, tmp_path):
    torch.manual_seed(1)
    other = saved(EvaByteForCausalLM(tiny_config), tmp_path / "other")

    assert fingerprint(other) != fingerprint(tiny_checkpoint)


@pytest.mark.parametrize(
    ("key", "value"), [("rms_norm_eps", 1e-3), ("rope_theta", 5000.0), ("window_size", 32)]
)
def test_the_same_weights_computed_in_another_way_change_it(tiny_config, key, value):
    def of(config: EvaByteConfig) -> str:
        return fingerprint_of("0123", config, dtype="float32", quantization="none")

    other = EvaByteConfig.from_dict({**tiny_config.to_dict(), "rope_parameters": None, key: value})

    assert getattr(other, key) == value
    assert of(other) != of(tiny_config)


def test_a_number_may_be_written_as_an_integer():
    def of(rope_theta: float) -> str:
        config = EvaByteConfig(rope_theta=rope_theta)
        return fingerprint_of("0123", config, dtype="float32", quantization="none")

    assert of(100_000) == of(100_000.0)


def test_every_key_of_the_configuration_is_in_it_or_known_to_change_no_score():
    changes_no_score = {
        "model_type",
        "num_key_value_heads",  # must be num_attention_heads
        "rope_parameters",  # only rope_theta is read
        "initializer_range",
        *("pad_token_id", "bos_token_id", "eos_token_id"),
        "is_demo",
    }

    assert set(EvaByteConfig.__annotations__) - changes_no_score == set(SCORING_KEYS)
