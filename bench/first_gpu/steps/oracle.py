"""Compares scores with the authors' own, the demo's canary, a CPU, and texts scored together."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file

from bench.first_gpu import project
from bench.first_gpu.project import DEMO, ORACLE
from bench.first_gpu.run import Run
from bench.first_gpu.texts import mixed_lengths, random_text
from model import Scorer, ScoreRequest
from model.ops.backend import Backend
from model.scoring.sliding_window import SlidingWindow

BACKENDS: tuple[Backend, ...] = ("triton", "torch")
NUM_TOGETHER, NUM_ALONE = 48, 12
BYTES = frozenset({"bytes"})
LogProbs = NDArray[np.float64]


def compare(run: Run, dtype: str, quantization: str) -> None:
    """Compare one mode with both backends; a rehearsal has PyTorch's alone."""
    for backend in BACKENDS if run.is_on_gpu else BACKENDS[1:]:
        mode = f"{dtype} {quantization} {backend}"
        options = {"dtype": dtype, "quantization": quantization, "kernels": backend}
        with run.part(f"oracle {mode}"):
            scorer = Scorer.load(str(ORACLE / "small"), device=run.device, **options)  # type: ignore[arg-type]
            _compare_with_authors(run, scorer, mode)
        with run.part(f"demo {mode}"):
            scorer = Scorer.load(str(DEMO), device=run.device, **options)  # type: ignore[arg-type]
            _compare_demo(run, scorer, mode)
            if (dtype, quantization) == ("float32", "none"):
                _compare_with_cpu(run, scorer, backend)


def _compare_with_authors(run: Run, scorer: Scorer, mode: str) -> None:
    golden = load_file(ORACLE / "golden.safetensors")
    recorded = json.loads((ORACLE / "golden.json").read_bytes())["cases"]
    cases = [case for case in recorded if case.get("hex")]
    requests = [ScoreRequest(text=bytes.fromhex(case["hex"]), outputs=BYTES) for case in cases]
    together = [log_probs(result) for result in scorer.score(requests)]
    worst = [
        float(np.abs(ours - golden[f"{case['name']}/logp"]).max(initial=0))
        for case, ours in zip(cases, together, strict=True)
    ]
    relative = [
        abs(-ours.sum() - case["nll_nats"]) / max(case["nll_nats"], 1)
        for case, ours in zip(cases, together, strict=True)
    ]
    run.put(
        f"oracle {mode}",
        worst_log_prob_difference=max(worst),
        worst_case=cases[worst.index(max(worst))]["name"],
        worst_relative_difference_of_a_text=float(max(relative)),
        **company(scorer, requests, together),
    )


def _compare_demo(run: Run, scorer: Scorer, mode: str) -> None:
    expected = project.canary_of_demo(scorer.info.dtype, scorer.info.quantization)
    nats = project.score_canary(scorer)
    requests = [
        ScoreRequest(text=random_text(length, number), outputs=BYTES)
        for number, length in enumerate(mixed_lengths(run.sizes, NUM_TOGETHER))
    ]
    together = [log_probs(result) for result in scorer.score(requests)]
    run.put(
        f"demo {mode}",
        canary_nats=nats,
        canary_missed_by=None if expected is None else abs(nats - expected),
        canary_tolerance=project.tolerance_nats(scorer),
        **company(scorer, requests[:NUM_ALONE], together[:NUM_ALONE]),
    )


def company(
    scorer: Scorer, requests: Sequence[ScoreRequest], together: Sequence[LogProbs]
) -> dict[str, Any]:
    """Return how far scores of texts alone differ from those that they had `together`."""
    unlike = []
    for request, there in zip(requests, together, strict=True):
        [alone] = scorer.score([request])
        unlike.append(float(np.abs(log_probs(alone) - there).max(initial=0)))
    return {
        "texts_compared": len(unlike),
        "texts_with_other_bits_in_company": sum(each > 0 for each in unlike),
        "largest_difference_in_company": max(unlike),
    }


def log_probs(result: dict[str, Any]) -> LogProbs:
    """Return the log-probability of each byte in nats; none of the empty text."""
    values = result["bytes"]["log_prob_nats"] if result["num_bytes"] else []
    return np.array(values, dtype=np.float64)


def _compare_with_cpu(run: Run, scorer: Scorer, backend: Backend) -> None:
    """Compare requests of every kind with the same on the CPU."""
    window = scorer.info.window_size
    text = random_text(900, 1)
    every_output = frozenset({"bytes", "top_k", "curvature"})
    requests = {
        "top_k": ScoreRequest(text=text, outputs=every_output, top_k=5),
        "several windows": ScoreRequest(text=random_text(6000, 2)),
        "continuations": ScoreRequest(
            context=text, continuations=(b"one", b"another one", b"x" * 300)
        ),
        "next_chars": ScoreRequest(text=text, next_chars=5),
        "sliding window": ScoreRequest(
            text=random_text(5000, 3), window=SlidingWindow(2 * window, window)
        ),
    }
    on_cpu = Scorer.load(str(DEMO), device="cpu", dtype="float32", kernels="torch")
    for name, request in requests.items():
        what = f"{name} on the device beside the CPU, {backend}"
        with run.part(what):
            ours, theirs = (list(floats(each.score([request])[0])) for each in (scorer, on_cpu))
            differences = [abs(a - b) for a, b in zip(ours, theirs, strict=False)]
            run.put(
                what,
                worst_difference=max(differences, default=None),
                is_same_number_of_figures=len(ours) == len(theirs),
            )


def floats(value: Any) -> Iterator[float]:
    """Yield all floats of a result, in order, but perplexities: they grow without bound."""
    if isinstance(value, float):
        yield value
    elif isinstance(value, dict):
        for name in sorted(value):
            if "perplexity" not in name:
                yield from floats(value[name])
    elif isinstance(value, (list, tuple)):
        for each in value:
            yield from floats(each)
