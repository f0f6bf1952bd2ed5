"""A random EvaByte with windows of 16 and chunks of 4 tokens, so that short texts cross many."""

from pathlib import Path

import pytest
import torch

from model import EvaByteConfig, EvaByteForCausalLM, Scorer

WINDOW, CHUNK = 16, 4


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Products this small take longer to share than to compute."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_config() -> EvaByteConfig:
    return EvaByteConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_pred_heads=3,
        window_size=WINDOW,
        chunk_size=CHUNK,
        max_position_embeddings=512,
        initializer_range=0.3,  # far from uniform predictions
    )


@pytest.fixture(scope="session")
def tiny_model(tiny_config: EvaByteConfig) -> EvaByteForCausalLM:
    torch.manual_seed(0)
    return EvaByteForCausalLM(tiny_config).eval()


@pytest.fixture(scope="session")
def tiny_checkpoint(tiny_model: EvaByteForCausalLM, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    tiny_model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def scorer(tiny_checkpoint: Path) -> Scorer:
    return Scorer.load(str(tiny_checkpoint), pass_bytes=200)
