"""The yardsticks are the programs that they name; the model's figure is its scorer's."""

import gzip
import math

import pytest
import torch

from model import Scorer, ScoreRequest
from model.training import evaluate
from model.training.export import write_checkpoint
from model.training.network import Shape, TrainingEvaByte

TEXT = b"".join(b"line %d of a text, " % (n * n) for n in range(300))
SHAPE = Shape(hidden_size=32, num_layers=1, num_heads=2, intermediate_size=64, window_size=64)


def test_gzip_counts_what_gzip_writes():
    assert evaluate.gzip_bits_per_byte(TEXT) == 8 * len(gzip.compress(TEXT, 9)) / len(TEXT)


def test_model_that_knows_nothing_needs_log2_of_its_vocabulary(tmp_path):
    # The heads of a fresh network are zero, so that all ids are equally likely.
    write_checkpoint(TrainingEvaByte(SHAPE).state_dict(), SHAPE, tmp_path)
    scorer = Scorer.load(str(tmp_path), device="cpu")

    assert evaluate.model_bits_per_byte(scorer, TEXT) == pytest.approx(math.log2(320), abs=1e-5)


def test_pieces_are_scored_apart(tmp_path, monkeypatch):
    network = TrainingEvaByte(SHAPE)
    torch.nn.init.normal_(network.lm_head.weight)
    write_checkpoint(network.state_dict(), SHAPE, tmp_path)
    scorer = Scorer.load(str(tmp_path), device="cpu")
    monkeypatch.setattr(evaluate, "TEXT_BYTES", 1000)

    measured = evaluate.model_bits_per_byte(scorer, TEXT[:1500])

    results = scorer.score([ScoreRequest(text=TEXT[:1000]), ScoreRequest(text=TEXT[1000:1500])])
    nats = -sum(result["log_likelihood_nats"] for result in results)
    assert measured == pytest.approx(nats / math.log(2) / 1500, abs=1e-6)


def test_table_has_one_line_per_group():
    rows = evaluate.evaluate({"en": TEXT}, {"model": lambda text: 1.23456})

    assert evaluate.to_markdown(rows) == (
        f"| group | num_bytes | model |\n| --- | --- | --- |\n| en | {len(TEXT)} | 1.235 |\n"
    )
