"""Measures what each quantization costs in quality and saves in memory and time, on this CPU.

It scores held-out texts in every mode and compares with float32. It also writes the table into
docs/quantization.md.
"""

import argparse
import math
import tempfile
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.results import RESULTS, Results
from contract.grammar.vocabulary import encode
from contract.settings import DEMO_CHECKPOINT
from model import Scorer, ScoreRequest
from model.training.corpus import DEFAULT_FOLDER

DOCUMENT = RESULTS.parent.parent / "docs" / "quantization.md"
TABLE_START, TABLE_END = "<!-- bench.quantization -->\n", "<!-- end -->\n"

REFERENCE = ("none", "float32")
MODES = (
    REFERENCE,
    ("none", "bfloat16"),
    ("int8", "float32"),
    ("int8", "bfloat16"),
    ("nf4", "float32"),
    ("nf4", "bfloat16"),
    ("fp8", "float32"),
    ("fp8", "bfloat16"),
)
BYTES_PER_VALUE = {"float32": 4, "bfloat16": 2}
# A read of logits takes 1,280 bytes of memory per byte of text.
TEXTS_PER_READ = 16

COLUMNS = {
    "bits_per_byte": "bits per byte",
    "change_bits_per_byte": "change",
    "kl_nats_per_byte": "KL per byte, nats",
    "largest_change_bits_per_byte": "largest change of a text",
    "rank_correlation": "rank correlation of the texts",
    "same_rank_share": "share of bytes with the same rank",
    "bytes_per_parameter": "bytes per parameter",
    "text_bytes_per_s": "text bytes per second",
}


@dataclass(frozen=True, slots=True)
class Scores:
    """What a mode says of the texts."""

    bits_per_byte: np.ndarray  # by text
    byte_ranks: np.ndarray  # of all bytes of all texts
    log_probs: np.ndarray  # of all ids in place of each byte, [bytes, V] float32, nats


def main() -> None:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", type=Path, default=Path(DEMO_CHECKPOINT))
    parser.add_argument(
        "--folder",
        type=Path,
        default=DEFAULT_FOLDER,
        help="folder with the held-out texts, held_*.bin",
    )
    parser.add_argument("--texts", type=int, default=50, help="texts of each held-out file")
    parser.add_argument("--text-bytes", type=int, default=256)
    parser.add_argument(
        "--rounds", type=int, default=5, help="timings of each mode; the fastest counts (default 5)"
    )
    parser.add_argument(
        "--limit-s", type=float, default=math.inf, help="stop after so many seconds"
    )
    options = parser.parse_args()
    texts = _read_texts(options.folder, options.texts, options.text_bytes)
    if not texts:
        parser.error(f"no held_*.bin in {options.folder}: run python -m model.training.corpus")
    setup = {
        "model": options.model.name,
        "texts": len(texts),
        "text_bytes": options.text_bytes,
        "rounds": options.rounds,
        "threads": torch.get_num_threads(),
        "bitsandbytes": version("bitsandbytes"),
    }
    with Results("quantization", setup, limit_s=options.limit_s) as results:
        table = _measure(options.model, texts, options.rounds, results)
        _write_table(table)


def _read_texts(folder: Path, num_texts: int, text_bytes: int) -> list[bytes]:
    """Take texts from each held-out file, spread evenly over it."""
    texts = []
    for path in sorted(folder.glob("held_*.bin")):
        held_out = path.read_bytes()
        starts = np.linspace(0, max(len(held_out) - text_bytes, 0), num_texts).astype(int)
        texts += [held_out[start : start + text_bytes] for start in starts]
    return texts


def _measure(
    model: Path, texts: list[bytes], num_rounds: int, results: Results
) -> dict[tuple[str, str], dict[str, Any]]:
    """Put the figures of each of `MODES`, and return one row for each."""
    results.step("load the model in every mode")
    with tempfile.TemporaryDirectory() as folder:
        caches = {mode: Path(folder) / "-".join(mode) for mode in MODES}
        scorers = {
            mode: Scorer.load(
                str(model), quantization=mode[0], dtype=mode[1], cache_dir=caches[mode]
            )
            for mode in MODES
        }
        weights_bytes = {
            mode: sum(file.stat().st_size for file in caches[mode].glob("*/*.safetensors"))
            for mode in MODES
        }
    table: dict[tuple[str, str], dict[str, Any]] = {}
    reference = None
    for mode, scorer in scorers.items():
        results.step(f"score in {' '.join(mode)}")
        scores = _score(scorer, texts)
        reference = reference or scores  # the first mode is `REFERENCE`
        size = weights_bytes[mode] / scorer.info.num_parameters or BYTES_PER_VALUE[mode[1]]
        table[mode] = {**_compare(scores, reference), "bytes_per_parameter": round(size, 3)}
        results.put(_named(mode, table[mode]))
    num_bytes = sum(len(text) for text in texts)
    fastest = dict.fromkeys(MODES, math.inf)
    # Modes take turns, so that a machine that slows down slows all of them.
    for number in range(num_rounds):
        results.step(f"time all modes, round {number + 1} of {num_rounds}")
        for mode, scorer in scorers.items():
            fastest[mode] = min(fastest[mode], _time(scorer, texts))
            table[mode]["text_bytes_per_s"] = round(num_bytes / fastest[mode])
            results.put(_named(mode, table[mode]), is_printed=False)
    return table


def _named(mode: tuple[str, str], row: dict[str, Any]) -> dict[str, Any]:
    """Return the row of a mode as figures with the mode in their names."""
    return {f"{'_'.join(mode)}_{column}": value for column, value in row.items()}


def _score(scorer: Scorer, texts: list[bytes]) -> Scores:
    outputs = frozenset({"summary", "bytes"})
    results = scorer.score([ScoreRequest(text=text, outputs=outputs) for text in texts])
    return Scores(
        bits_per_byte=np.array([result["bits_per_byte"] for result in results]),
        byte_ranks=np.concatenate([result["bytes"]["rank"] for result in results]),
        log_probs=_log_probs(scorer, texts),
    )


def _log_probs(scorer: Scorer, texts: list[bytes]) -> np.ndarray:
    """Return the log-probability of every id in place of each byte, [bytes, V] float32, nats."""
    model, found = scorer._model, []
    with torch.inference_mode():
        for first in range(0, len(texts), TEXTS_PER_READ):
            some = texts[first : first + TEXTS_PER_READ]
            rows = [encode(text)[:-1] for text in some]
            layout = model.lay_out([len(row) for row in rows])
            hidden = model.model(torch.tensor([each for row in rows for each in row]), layout)
            logits = torch.nn.functional.linear(hidden, model.next_id_weight).float()
            found.append(logits.log_softmax(-1).numpy())
    return np.concatenate(found)


def _time(scorer: Scorer, texts: list[bytes]) -> float:
    began = time.perf_counter()
    scorer.score([ScoreRequest(text=text) for text in texts])
    return time.perf_counter() - began


def _compare(scores: Scores, reference: Scores) -> dict[str, float]:
    changes = scores.bits_per_byte - reference.bits_per_byte
    order, reference_order = (x.bits_per_byte.argsort().argsort() for x in (scores, reference))
    # Spearman's: the correlation of the texts' places.
    correlation = np.corrcoef(order, reference_order)[0, 1]
    return {
        "bits_per_byte": round(float(scores.bits_per_byte.mean()), 4),
        "change_bits_per_byte": round(float(changes.mean()), 5),
        "kl_nats_per_byte": round(_divergence(reference.log_probs, scores.log_probs), 6),
        "largest_change_bits_per_byte": round(float(np.abs(changes).max()), 5),
        "rank_correlation": round(float(correlation), 6),
        "same_rank_share": round(float((scores.byte_ranks == reference.byte_ranks).mean()), 4),
    }


def _divergence(reference: np.ndarray, log_probs: np.ndarray) -> float:
    """Return the mean over bytes of KL(reference || mode): sum p (log p - log q), in nats."""
    terms = np.exp(reference) * (reference - log_probs)
    return float(terms.sum(axis=1, dtype=np.float64).mean())


def _write_table(table: dict[tuple[str, str], dict[str, Any]]) -> None:
    """Replace the table in the document."""
    header = ["weights", "arithmetic", *COLUMNS.values()]
    rows = [[*mode, *(row[column] for column in COLUMNS)] for mode, row in table.items()]
    lines = [header, ["---"] * len(header), *rows]
    text = "".join(f"| {' | '.join(map(str, line))} |\n" for line in lines)
    before, _, rest = DOCUMENT.read_text().partition(TABLE_START)
    _, _, after = rest.partition(TABLE_END)
    DOCUMENT.write_text(before + TABLE_START + text + TABLE_END + after)


if __name__ == "__main__":
    main()
