"""Measures the checkpoint on held-out text: `python -m model.training.evaluate [--folder F]`.

Scores every `held_<group>.bin` of the corpus with the product's own scorer, next to gzip, xz and
an order-5 byte n-gram on the same bytes. Writes `evaluation.json` beside the weights and prints
the model card's table.
"""

import argparse
import json
import lzma
import math
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from model import DEMO_CHECKPOINT, Scorer, ScoreRequest
from model.training.corpus import DEFAULT_FOLDER
from model.training.ngram import ByteNgram

# The model reads the held-out text in pieces of this length, each with no memory of those before;
# the compressors read each group as one file.
TEXT_BYTES = 4096

Measure = Callable[[bytes], float]


def gzip_bits_per_byte(text: bytes) -> float:
    """Return what `gzip -9` needs, with its 18 bytes of header and trailer."""
    return 8 * (len(zlib.compress(text, 9, -15)) + 18) / len(text)


def xz_bits_per_byte(text: bytes) -> float:
    """Return what `xz -9e` needs."""
    return 8 * len(lzma.compress(text, preset=9 | lzma.PRESET_EXTREME)) / len(text)


def model_bits_per_byte(scorer: Scorer, text: bytes) -> float:
    """Return the mean of -log2 of each byte's probability among all ids, special ones included."""
    pieces = [text[start : start + TEXT_BYTES] for start in range(0, len(text), TEXT_BYTES)]
    results = scorer.score([ScoreRequest(text=piece) for piece in pieces])
    return -sum(x["log_likelihood_nats"] for x in results) / math.log(2) / len(text)


def evaluate(groups: dict[str, bytes], measures: dict[str, Measure]) -> list[dict[str, object]]:
    """Return one row per group: its name, size, and bits per byte by each measure."""
    return [
        {"group": group, "num_bytes": len(text)}
        | {name: round(measure(text), 3) for name, measure in measures.items()}
        for group, text in groups.items()
    ]


def to_markdown(rows: list[dict[str, object]]) -> str:
    """Return rows of equal keys as a Markdown table."""
    header = list(rows[0])
    lines = [header, ["---"] * len(header), *([str(x) for x in row.values()] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def main() -> None:
    """Evaluate from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--folder", type=Path, default=DEFAULT_FOLDER, help="the corpus' folder")
    parser.add_argument("--checkpoint", type=Path, default=DEMO_CHECKPOINT)
    arguments = parser.parse_args()
    paths = sorted(arguments.folder.glob("held_*.bin"))
    groups = {path.stem.removeprefix("held_"): path.read_bytes() for path in paths}
    scorer = Scorer.load(str(arguments.checkpoint))
    ngram = ByteNgram(np.fromfile(arguments.folder / "train.bin", dtype=np.uint8))
    rows = evaluate(
        groups,
        {
            "model": lambda text: model_bits_per_byte(scorer, text),
            "gzip -9": gzip_bits_per_byte,
            "xz -9e": xz_bits_per_byte,
            "order-5 n-gram": lambda text: ngram.bits_per_byte(np.frombuffer(text, np.uint8)),
        },
    )
    (arguments.checkpoint / "evaluation.json").write_text(json.dumps(rows, indent=1) + "\n")
    sys.stdout.write(to_markdown(rows))


if __name__ == "__main__":
    main()
