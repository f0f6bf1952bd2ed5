"""The measurement of the model's speed: fair contenders, and every figure that it promises."""

import pytest
import torch

from bench import model as bench_model
from bench.model import ALONE, CONTENDERS, PADDED, Bench
from bench.results import Results
from model import EvaByteConfig, EvaByteForCausalLM

TEXTS = [b"a", b"several texts", b"\xff" * 40, b"of unequal length"]


@pytest.fixture
def bench(tmp_path, monkeypatch) -> Bench:
    """A tiny model and few texts in place of those that are measured."""
    config = EvaByteConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        window_size=16,
        chunk_size=4,
        max_position_embeddings=512,
        initializer_range=0.3,
    )
    mixes = {"100_to_400": (3, 20, 40), "10_to_60": (4, 1, 6), "1000_to_3000": (2, 90, 100)}
    monkeypatch.setattr(bench_model, "CONFIG", config)
    monkeypatch.setattr(bench_model, "MIXES", mixes)
    monkeypatch.setattr(bench_model, "CEILING_ROWS", (8,))
    torch.manual_seed(0)
    EvaByteForCausalLM(config).save_pretrained(tmp_path)
    return Bench(tmp_path)


def test_contenders_score_the_same_texts_alike(bench):
    alone = torch.cat(bench.contender(ALONE)(TEXTS))
    padded = torch.cat(bench.contender(PADDED)(TEXTS))
    ours = bench.contender("float32")(TEXTS)

    exact = torch.tensor([result["log_likelihood_nats"] for result in ours])
    # bfloat16 rounds to 3 digits.
    torch.testing.assert_close(alone, exact, rtol=0.05, atol=0.5)
    torch.testing.assert_close(padded, exact, rtol=0.05, atol=0.5)


@pytest.fixture
def results(tmp_path) -> Results:
    return Results("model", folder=tmp_path / "results")


def test_every_contender_is_measured_and_the_ceilings_too(bench, results):
    bench_model.measure_contenders(bench, 1, results)

    figures = results.figures

    for kind in ("float32", "bfloat16", "int8"):
        assert figures[f"ceiling_{kind}_gflop_per_s"] >= 0
    for name in CONTENDERS:
        assert figures[f"{name}_bytes_per_s"] > 0
    assert figures[f"{ALONE}_times_alone"] == 1


def test_mixes_and_budgets_are_measured(bench, results):
    bench_model.measure_mixes(bench, 1, results)

    figures = results.figures
    assert len(figures) == 2 * 4 + 2 * len(bench_model.BUDGETS)
    assert min(figures.values()) > 0


def test_arithmetic_is_that_of_the_products_and_of_half_the_square(bench):
    products = 2 * (2 * (4 * 32 * 32 + 3 * 32 * 64) + 320 * 32)
    attention = 2 * sum(2 * 2 * 32 * position for position in range(1, 41))
    assert bench_model.flop_of([b"x" * 40]) == 40 * products + attention
