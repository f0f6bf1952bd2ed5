"""The benchmark of the kernels runs, and finds both backends in agreement."""

import pytest
import torch

from bench import gpu
from model import EvaByteConfig, EvaByteForCausalLM

SHAPE = gpu.Shape(
    lengths=(5, 0, 40),
    hidden=64,
    intermediate=96,
    heads=2,
    window=32,
    chunk=8,
    dtype=torch.float16,
)
NAMES = [name for name, _ in gpu.cases(SHAPE, torch.device("cpu"))]


@pytest.mark.parametrize("name", NAMES)
def test_backends_agree(name, device):
    assert gpu.agrees(dict(gpu.cases(SHAPE, device))[name])


def test_disagreement_is_seen():
    assert not gpu.agrees(lambda backend: lambda: torch.tensor(float(backend == "torch")))


def test_pass_that_does_not_fit_leaves_the_figures_of_the_others(monkeypatch):
    def run_out(run):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(gpu, "time_ms", run_out)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda: None)
    assert gpu.measure_pass(lambda: None, 32_768) == {"bytes_per_s": "out of memory"}


@torch.inference_mode()
def test_model_scores_by_both_backends(device):
    config = EvaByteConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=1
    )
    model = EvaByteForCausalLM(config).to(device).eval()
    ids = torch.arange(20, device=device) + 64
    layout = model.lay_out([15, 5])
    log_probs = {}
    for backend in gpu.BACKENDS:
        model.model.backend = backend
        log_probs[backend] = torch.from_numpy(gpu.score(model, ids, layout).log_prob)
    torch.testing.assert_close(log_probs["torch"], log_probs["triton"], rtol=1e-4, atol=1e-4)
