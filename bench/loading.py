"""Measures the host memory of loading: a synthetic checkpoint in shards, one process per mode.

It counts anonymous memory: the pages that must stay in memory. Pages of the mapped shards count
as resident too, but the system can take them back.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import torch

from bench.results import Results
from model import EvaByteConfig, EvaByteForCausalLM, Scorer
from model.weights.checkpoint import without_progress_bars
from model.weights.quantization import bits_and_bytes_config

SAMPLE_S = 0.002
SHARD_MB = 100
LOADS = ("none", "int8", "int8 from the cache", "nf4", "nf4 from the cache")


def main() -> None:
    """Measure and write the results; or, as a child, print the figures of one load."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--hidden-size", type=int, default=1024)
    parser.add_argument("--layers", type=int, default=16)
    parser.add_argument("--load", nargs=3, metavar=("FOLDER", "MODE", "CACHE"))
    options = parser.parse_args()
    if options.load:
        folder, mode, cache = options.load
        print(json.dumps(_load(folder, mode, Path(cache))))
        return
    with Results("loading") as results, tempfile.TemporaryDirectory() as work:
        folder = Path(work) / "checkpoint"
        results.step("make the checkpoint")
        largest_bytes = make_checkpoint(folder, options.hidden_size, options.layers)
        checkpoint_bytes = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
        results.setup |= {
            "checkpoint_mb": round(checkpoint_bytes / 1e6, 1),
            "shard_mb": SHARD_MB,
            "largest_tensor_mb": round(largest_bytes / 1e6, 1),
            "dtype": "bfloat16",
        }
        for load in LOADS:
            results.step(f"load {load}")
            measured = load_in_child(folder, load.split()[0], Path(work) / "cache")
            results.put(_figures(load, measured))


def make_checkpoint(folder: Path, hidden_size: int, num_layers: int) -> int:
    """Write a random bfloat16 model of EvaByte's proportions; return its largest tensor's bytes."""
    config = EvaByteConfig(
        hidden_size=hidden_size,
        intermediate_size=hidden_size * 43 // 16,
        num_hidden_layers=num_layers,
        num_attention_heads=hidden_size // 128,
        num_pred_heads=8,
        window_size=2048,
        chunk_size=16,
        max_position_embeddings=32_768,
    )
    model = EvaByteForCausalLM(config).to(torch.bfloat16)
    with without_progress_bars():
        model.save_pretrained(folder, max_shard_size=f"{SHARD_MB}MB")
    return max(value.nbytes for value in model.parameters())


def load_in_child(folder: Path, mode: str, cache: Path) -> dict[str, float]:
    command = [sys.executable, "-m", "bench.loading", "--load", str(folder), mode, str(cache)]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def _load(folder: str, mode: str, cache: Path) -> dict[str, float]:
    """Load, and return seconds and megabytes: those of the peak, and those that stay."""
    if mode != "none":
        bits_and_bytes_config(mode, torch.bfloat16)  # imports what is no part of loading

    before = _anonymous_bytes()
    samples, is_done = [before], threading.Event()

    def watch() -> None:
        while not is_done.wait(SAMPLE_S):
            samples.append(_anonymous_bytes())

    watcher = threading.Thread(target=watch)
    watcher.start()
    began = time.perf_counter()
    scorer = Scorer.load(folder, dtype="bfloat16", quantization=mode, cache_dir=cache)
    took = time.perf_counter() - began
    is_done.set()
    watcher.join()
    assert scorer.info.quantization == mode
    stays = _anonymous_bytes()
    return {
        "load_s": took,
        "peak_mb": (max(samples) - before) / 1e6,
        "stays_mb": (stays - before) / 1e6,
    }


def _anonymous_bytes() -> int:
    rollup = Path("/proc/self/smaps_rollup").read_text()
    found = re.search(r"^Anonymous: +(\d+) kB$", rollup, re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024


def _figures(load: str, measured: dict[str, float]) -> dict[str, Any]:
    name = load.replace(" ", "_")
    transient_mb = measured["peak_mb"] - measured["stays_mb"]
    rounded = {f"{name}_{key}": round(value, 1) for key, value in measured.items()}
    return rounded | {f"{name}_transient_mb": round(transient_mb, 1)}


if __name__ == "__main__":
    main()
