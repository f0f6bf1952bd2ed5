"""Measures the CPU time that one pass costs the host besides the model's own operations.

On a GPU the host lays out a pass, launches it and builds the results. Here the layers and the head
are replaced by operations that compute nothing, so that what is left is the host's work. It runs
on a CPU. Copies to a GPU and the launches of kernels are not part of it.

* `<output>_ms`: a pass of the service or of `python -m model score`, until its results are there;
* `<output>_stored_ms`: to encode these results, each as the end of a job of its own;
* `<output>_lists_ms`: a pass of `Scorer.score`, whose callers read lists.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from bench.results import Results
from contract.stored_results import encode_success
from model import EvaByteConfig, EvaByteForCausalLM, ModelInfo, Scorer, ScoreRequest
from model.evabyte.kv_rows import KeysValues
from model.evabyte.pass_plan import plan_pass
from model.ops.head_log_likelihood import HeadScores
from model.packing import PackedLayout
from model.scoring import log_likelihood
from model.weights.loading import Setup
from model.weights.quantization import Quantization

NUM_TEXTS, TEXT_BYTES, PASS_BYTES = 40, 200, 8192
TOP_K = 5
ROUNDS = 41
OUTPUTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "bytes": {"outputs": frozenset({"bytes"})},
    "bytes_and_top_k": {"outputs": frozenset({"bytes", "top_k"}), "top_k": TOP_K},
}
# Layers without width: their operations cost next to nothing.
CONFIG = EvaByteConfig(
    hidden_size=2, intermediate_size=2, num_hidden_layers=1, num_attention_heads=1
)


def main() -> None:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    options = parser.parse_args()
    setup = {
        "pass": f"{NUM_TEXTS} texts of {TEXT_BYTES} bytes",
        "top_k": TOP_K,
        "rounds": options.rounds,
    }
    with Results("host_time", setup) as results:
        for name, fields in OUTPUTS.items():
            results.step(name)
            measured = measure(fields, options.rounds)
            results.put({f"{name}{what}_ms": value for what, value in measured.items()})


def measure(fields: dict[str, Any], num_rounds: int) -> dict[str, float]:
    """Return median CPU times in ms by the ends of their names; `fields` are of the requests."""
    scorer = _scorer()
    requests = [
        ScoreRequest(text=bytes([65 + number % 26]) * TEXT_BYTES, **fields)
        for number in range(NUM_TEXTS)
    ]
    num_threads = torch.get_num_threads()
    # A lane per core would cut the pass; one lane is what a GPU has.
    torch.set_num_threads(1)
    with (
        mock.patch.object(type(scorer._model.model), "read", _read),
        mock.patch.object(log_likelihood, "head_log_likelihood", _FixedHead(fields)),
    ):
        results = _score(scorer, requests)
        works: dict[str, Callable[[], object]] = {
            "": lambda: _score(scorer, requests),
            "_stored": lambda: _encode(results),
            "_lists": lambda: _score(scorer, requests, for_json=False),
        }
        found = {name: _median_cpu_ms(work, num_rounds) for name, work in works.items()}
    torch.set_num_threads(num_threads)
    return found


def _median_cpu_ms(work: Callable[[], object], num_rounds: int) -> float:
    times_s = []
    for _ in range(num_rounds + 1):  # the first round warms up
        began_s = time.process_time()
        done = work()
        times_s.append(time.process_time() - began_s)
        del done  # freeing the results is not measured
    return round(median(times_s[1:]) * 1e3, 2)


def _score(
    scorer: Scorer, requests: Sequence[ScoreRequest], *, for_json: bool = True
) -> list[dict[str, Any]]:
    passes: list[int] = []
    results = scorer.score(requests, on_pass=passes.append, for_json=for_json)
    assert len(results) == NUM_TEXTS
    assert len(passes) == 1
    return results


def _encode(results: Sequence[dict[str, Any]]) -> list[tuple[bytes, bytes]]:
    """Encode each of `results` as a worker stores it, as the end of a job of its own."""
    return [encode_success(str(number), each, {}, 0.0) for number, each in enumerate(results)]


def _scorer() -> Scorer:
    model = EvaByteForCausalLM(CONFIG).eval()
    setup = Setup.choose("cpu", "float32", "auto", Quantization("none", None))
    info = ModelInfo.of("none", "", CONFIG, setup, model.num_parameters())
    return Scorer(model, info, folder=Path(), pass_bytes=PASS_BYTES)


def _read(
    self: Any,
    input_ids: Tensor,
    layout: PackedLayout,
    carried: Sequence[KeysValues] | None = None,
) -> tuple[Tensor, list[KeysValues]]:
    """Stand in for `EvaByteModel.read`: plan the pass as for kernels, and compute no layer."""
    on_cpu = torch.float32, torch.device("cpu")
    plan_pass(layout, self.config, input_ids, embedded=on_cpu, backend="triton")
    return torch.zeros(len(input_ids), CONFIG.hidden_size), []


class _FixedHead:
    """Stands in for `head_log_likelihood`: answers with scores that were drawn before."""

    def __init__(self, fields: dict[str, Any]) -> None:
        num_bytes = NUM_TEXTS * TEXT_BYTES
        generator = torch.Generator().manual_seed(0)

        def draw(*shape: int) -> Tensor:
            return torch.rand(shape, generator=generator)

        def draw_ids(*shape: int) -> Tensor:
            return torch.randint(1, CONFIG.vocab_size, shape, generator=generator)

        top_k, has_moments = fields.get("top_k", 0), "bytes" in fields.get("outputs", ())
        self._scores = HeadScores(
            log_prob=-draw(num_bytes),
            rank=draw_ids(num_bytes),
            entropy=draw(num_bytes) if has_moments else None,
            variance=draw(num_bytes) if has_moments else None,
            top_ids=draw_ids(num_bytes, top_k) if top_k else None,
            top_log_probs=-draw(num_bytes, top_k) if top_k else None,
        )

    def __call__(self, *arguments: Any, **options: Any) -> HeadScores:
        return self._scores


if __name__ == "__main__":
    main()
