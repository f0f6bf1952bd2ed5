"""Compares the scorer's speed on this CPU with other ways to score and with the CPU's ceiling.

The others are one text at a time and padded batches. The model has 25 million parameters with
random weights: speed does not depend on their values. All contenders have the same weights and
texts and take turns, so that a machine that slows down slows all of them. Ratios are medians over
rounds.
"""

import argparse
import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import psutil
import torch
import torch.nn.functional as F  # noqa: N812 - the name by which everyone knows it
from torch import Tensor
from transformers import AutoModelForCausalLM

from bench.results import Results
from contract.grammar.vocabulary import encode
from model import EvaByteConfig, EvaByteForCausalLM, Scorer, ScoreRequest
from model.scoring.cpu_threads import count_lanes, side_by_side
from model.weights.checkpoint import without_progress_bars

CONFIG = EvaByteConfig(
    hidden_size=512,
    intermediate_size=1376,
    num_hidden_layers=8,
    num_attention_heads=8,
    window_size=2048,
    chunk_size=16,
    max_position_embeddings=32_768,
)
MODES = {
    "float32": ("none", "float32"),
    "bfloat16": ("none", "bfloat16"),
    "int8_over_float32": ("int8", "float32"),
    "int8_over_bfloat16": ("int8", "bfloat16"),
    "nf4_over_float32": ("nf4", "float32"),
    "nf4_over_bfloat16": ("nf4", "bfloat16"),
}
ALONE, PADDED = "one_text_at_a_time", "padded_batches_of_32"
CONTENDERS = (ALONE, PADDED, *MODES)
PADDED_TEXTS = 32
# Number of texts, and the shortest and longest of them in bytes.
MIXES = {"100_to_400": (64, 100, 400), "10_to_60": (256, 10, 60), "1000_to_3000": (6, 1000, 3000)}
MAIN_MIX = "100_to_400"
BUDGETS = (1024, 2048, 4096, 16_384)
CEILING_ROWS = (256, 1024)


@dataclass(frozen=True, slots=True)
class Bench:
    """A checkpoint, and what scores with it."""

    folder: Path

    def contender(
        self, name: str, *, pass_bytes: int | None = None
    ) -> Callable[[Sequence[bytes]], Any]:
        """Load what scores texts in the way `name`, one of `CONTENDERS`."""
        if name in MODES:
            quantization, dtype = MODES[name]
            scorer = Scorer.load(
                str(self.folder), quantization=quantization, dtype=dtype, pass_bytes=pass_bytes
            )
            return lambda texts: scorer.score([ScoreRequest(text=text) for text in texts])
        model = AutoModelForCausalLM.from_pretrained(self.folder, dtype=torch.bfloat16)
        step = 1 if name == ALONE else PADDED_TEXTS
        return lambda texts: [
            score_padded(model, texts[start : start + step]) for start in range(0, len(texts), step)
        ]


@torch.inference_mode()
def score_padded(model: EvaByteForCausalLM, texts: Sequence[bytes]) -> Tensor:
    """Return the log-likelihood of each of `texts`, padded on the right to the longest."""
    ids = torch.zeros(len(texts), max(map(len, texts)) + 1, dtype=torch.int64)
    for row, text in zip(ids, texts, strict=True):
        row[: len(text) + 1] = torch.tensor(encode(text))
    log_probs = model(ids[:, :-1]).logits.log_softmax(-1)
    of_bytes = log_probs.gather(2, ids[:, 1:, None])[..., 0]
    is_byte = torch.arange(of_bytes.shape[1]) < torch.tensor([[len(text)] for text in texts])
    return torch.where(is_byte, of_bytes, 0.0).sum(dim=1)


def make_texts(mix: str) -> list[bytes]:
    """Return random texts of lengths spread evenly over those of `mix`."""
    num_texts, shortest, longest = MIXES[mix]
    generator = np.random.default_rng(0)
    lengths = generator.permutation(np.linspace(shortest, longest, num_texts).astype(int))
    return [generator.integers(0, 256, length, dtype=np.uint8).tobytes() for length in lengths]


def flop_of(texts: Sequence[bytes]) -> float:
    """Return the arithmetic that scoring `texts` takes, padding and normalisation left out."""
    hidden, layers = CONFIG.hidden_size, CONFIG.num_hidden_layers
    in_layer = hidden * (4 * hidden + 3 * CONFIG.intermediate_size)
    per_byte = 2 * (layers * in_layer + CONFIG.vocab_size * hidden)
    # Queries by keys and weights by values, of half the square.
    attention = sum(2 * hidden * len(text) * (len(text) + 1) for text in texts)
    return per_byte * sum(map(len, texts)) + layers * attention


def products(kind: str, num_rows: int) -> list[Callable[[], Tensor]]:
    """Return the products of one layer's weights with `num_rows` rows, each to be run."""
    hidden, intermediate = CONFIG.hidden_size, CONFIG.intermediate_size
    shapes = [(hidden, hidden)] * 4 + [(hidden, intermediate)] * 2 + [(intermediate, hidden)]
    if kind == "int8":
        return [partial(_multiply_int8, _ones(num_rows, i), _ones(o, i)) for i, o in shapes]
    dtype = getattr(torch, kind)
    return [
        partial(F.linear, torch.randn(num_rows, i).to(dtype), torch.randn(o, i).to(dtype))
        for i, o in shapes
    ]


def _ones(*shape: int) -> Tensor:
    return torch.ones(shape, dtype=torch.int8)


def _multiply_int8(x: Tensor, weight: Tensor) -> Tensor:
    return torch._int_mm(x, weight.t())


def measure_ceilings() -> dict[str, float]:
    """Return the most GFLOP/s that the model's own products reach here now, by type.

    Tried are a few numbers of rows, all cores on one product and one on each, and for float32 both
    libraries.
    """
    hidden, intermediate = CONFIG.hidden_size, CONFIG.intermediate_size
    flop_per_row = 2 * hidden * (4 * hidden + 3 * intermediate)
    lanes = count_lanes(torch.device("cpu"), 1 << 20)
    setting = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
    before = setting.fp32_precision
    ceilings = {}
    for kind, precisions in (
        ("float32", ("none", "bf16")),
        ("bfloat16", (before,)),
        ("int8", (before,)),
    ):
        seconds_per_row = []
        for setting.fp32_precision in precisions:
            for num_rows in CEILING_ROWS:
                runs = products(kind, num_rows)
                for num_lanes in {1, lanes}:
                    work = [runs] * 2 * num_lanes
                    took = min(_time(_run_all, work, num_lanes) for _ in range(3))
                    seconds_per_row.append(took / (num_rows * len(work)))
        ceilings[kind] = flop_per_row / min(seconds_per_row) / 1e9
    setting.fp32_precision = before
    return ceilings


def _run_all(work: list[list[Callable[[], Tensor]]], num_lanes: int) -> None:
    list(side_by_side(lambda runs: [run() for run in runs], work, num_lanes))


def _time(function: Callable[..., Any], *arguments: Any) -> float:
    began = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - began


def measure_contenders(bench: Bench, num_rounds: int, results: Results) -> None:
    """Compare all contenders on the main mix; the figures are those of all rounds so far."""
    texts = make_texts(MAIN_MIX)
    contenders = {}
    for name in CONTENDERS:
        results.step(f"load {name}")
        contenders[name] = bench.contender(name)
        contenders[name](texts[:8])
    rounds, ceilings = [], []
    for number in range(num_rounds):
        of_all = f"of {num_rounds}"
        results.step(f"round {number + 1} {of_all}: ceilings")
        ceilings.append(measure_ceilings())
        rounds.append(_take_turns(contenders, texts, f"round {number + 1} {of_all}", results))
        results.put(_compare(texts, rounds, ceilings), is_printed=False)


def _take_turns(
    contenders: Mapping[str, Callable[[Sequence[bytes]], Any]],
    texts: Sequence[bytes],
    turn: str,
    results: Results,
) -> dict[str, float]:
    """Return the seconds of each contender for `texts`."""
    num_bytes, seconds = sum(map(len, texts)), {}
    for name, score in contenders.items():
        results.step(f"{turn}: {name}")
        seconds[name] = _time(score, texts)
        print(f"          {num_bytes / seconds[name]:,.0f} bytes per second", flush=True)
    return seconds


def _compare(
    texts: Sequence[bytes],
    rounds: Sequence[Mapping[str, float]],
    ceilings: Sequence[Mapping[str, float]],
) -> dict[str, Any]:
    """Return the medians of the rounds: seconds by contender, and GFLOP/s of the ceilings."""
    num_bytes, flop = sum(map(len, texts)), flop_of(texts)
    best = {kind: max(each[kind] for each in ceilings) for kind in ceilings[0]}
    figures: dict[str, Any] = {f"ceiling_{kind}_gflop_per_s": round(v) for kind, v in best.items()}
    for name in CONTENDERS:
        seconds = median(each[name] for each in rounds)
        figures |= {
            f"{name}_bytes_per_s": round(num_bytes / seconds),
            f"{name}_times_alone": round(median(e[ALONE] / e[name] for e in rounds), 2),
            f"{name}_share_of_bfloat16_ceiling": round(
                median(
                    flop / each[name] / 1e9 / ceiling["bfloat16"]
                    for each, ceiling in zip(rounds, ceilings, strict=True)
                ),
                2,
            ),
        }
    return figures


def measure_mixes(bench: Bench, num_rounds: int, results: Results) -> None:
    """Measure the speed by length mix, and by the bytes of one pass."""
    names = (ALONE, PADDED, "bfloat16", "int8_over_float32")
    contenders = {name: bench.contender(name) for name in names}
    for mix in MIXES.keys() - {MAIN_MIX}:
        _measure_speeds(contenders, mix, f"texts_of_{mix}_bytes", num_rounds, results)
    by_budget = {
        f"{name}_pass_of_{budget}": bench.contender(name, pass_bytes=budget)
        for name in ("bfloat16", "int8_over_float32")
        for budget in BUDGETS
    }
    _measure_speeds(by_budget, MAIN_MIX, "texts_of_100_to_400", num_rounds, results)


def _measure_speeds(
    contenders: Mapping[str, Callable[[Sequence[bytes]], Any]],
    mix: str,
    prefix: str,
    num_rounds: int,
    results: Results,
) -> None:
    texts = make_texts(mix)
    num_bytes, seconds = sum(map(len, texts)), []
    for number in range(num_rounds):
        turn = f"{prefix}, round {number + 1} of {num_rounds}"
        seconds.append(_take_turns(contenders, texts, turn, results))
        figures = {
            f"{prefix}_{name}_bytes_per_s": round(num_bytes / median(s[name] for s in seconds))
            for name in contenders
        }
        results.put(figures, is_printed=False)


def measure_memory(bench: Bench, results: Results) -> None:
    """Measure by contender, and by the bytes of one pass, what scoring takes beyond the model."""
    cases = [(name, None) for name in CONTENDERS] + [("bfloat16", budget) for budget in BUDGETS]
    for name, budget in cases:
        figure = f"{name}{f'_pass_of_{budget}' if budget else ''}_peak_mb"
        results.step(figure)
        command = [sys.executable, "-m", "bench.model", "--peak", str(bench.folder), name]
        command += [str(budget or 0)]
        peak_mb = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
        results.put({figure: peak_mb})


def peak_mb(bench: Bench, name: str, pass_bytes: int | None) -> int:
    """Return how far this process grows while it scores; to be asked once per process."""
    score = bench.contender(name, pass_bytes=pass_bytes)
    score([b"ab"])
    before = psutil.Process().memory_info().rss
    # Linux sets the highest resident size back to the current one.
    Path("/proc/self/clear_refs").write_text("5")
    score(make_texts(MAIN_MIX))
    [line] = [
        line for line in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line
    ]
    return round((int(line.split()[1]) * 1024 - before) / 1e6)


def main() -> None:
    """Measure and write the results; or, as a child, print the peak of one contender."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--only-contenders", action="store_true", help="skip the mixes of lengths and the memory"
    )
    parser.add_argument(
        "--limit-s", type=float, default=math.inf, help="stop after so many seconds"
    )
    parser.add_argument("--peak", nargs=3, metavar=("FOLDER", "CONTENDER", "PASS_BYTES"))
    options = parser.parse_args()
    if options.peak:
        folder, name, pass_bytes = options.peak
        print(json.dumps(peak_mb(Bench(Path(folder)), name, int(pass_bytes) or None)))
        return
    num_texts, shortest, longest = MIXES[MAIN_MIX]
    setup = {
        "texts": f"{num_texts} of {shortest} to {longest} bytes",
        "rounds": options.rounds,
        "threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "model": "hidden 512, 8 layers, 8 heads, feed-forward 1376, random weights",
    }
    with (
        Results("model", setup, limit_s=options.limit_s) as results,
        tempfile.TemporaryDirectory() as folder,
        without_progress_bars(),
    ):
        torch.manual_seed(0)
        EvaByteForCausalLM(CONFIG).save_pretrained(folder)
        bench = Bench(Path(folder))
        measure_contenders(bench, options.rounds, results)
        if not options.only_contenders:
            measure_mixes(bench, max(options.rounds // 2, 1), results)
            measure_memory(bench, results)


if __name__ == "__main__":
    main()
