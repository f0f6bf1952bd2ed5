"""Draws the learning curves of a run: `python -m bench.learning_curves [--folder F]`.

It scores the first bytes of every held-out language with each snapshot of the training. The curves
show the bits per byte over the bytes read, with the training loss, as `curves.svg` beside the
weights. It is not in model/training/, because it draws with the client's plotter.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from evascore.measuring.plot import Axis, Line, chart
from model import DEMO_CHECKPOINT, Scorer
from model.training.corpus import DEFAULT_FOLDER
from model.training.evaluate import model_bits_per_byte
from model.training.export import write_checkpoint
from model.training.network import Shape
from model.training.train import HISTORY_NAME, SNAPSHOTS_NAME

LANGUAGES = ("en", "de", "es", "fr")
# Half a minute for a dozen snapshots; the card's table reads all that is held out.
SAMPLE_BYTES = 24 * 1024

# The first percent of a run falls from 8.3 bits to this and would flatten all the rest.
MAX_BITS = 4.5


@dataclass(frozen=True)
class Curve:
    """Bits per byte after each number of megabytes read, as (megabytes, bits) pairs."""

    name: str
    points: list[tuple[float, float]]


def training_curve(history: Path) -> Curve:
    """The mean loss of the last batches, from the lines that the training wrote."""
    lines = [json.loads(line) for line in history.read_text().splitlines()]
    return Curve("training", [(x["num_bytes"] / 1e6, x["bits_per_byte"]) for x in lines])


def held_out_curves(folder: Path, groups: Sequence[str], shape: Shape) -> list[Curve]:
    """One curve per group of held-out text, with a point for every snapshot."""
    texts = {x: (folder / f"held_{x}.bin").read_bytes()[:SAMPLE_BYTES] for x in groups}
    curves = [Curve(group, []) for group in groups]
    for path in sorted((folder / SNAPSHOTS_NAME).glob("*.pt"), key=lambda path: int(path.stem)):
        snapshot = torch.load(path, weights_only=True)
        with TemporaryDirectory() as checkpoint:
            write_checkpoint(snapshot["network"], shape, Path(checkpoint))
            scorer = Scorer.load(checkpoint, device="cpu")
        for curve in curves:
            bits = model_bits_per_byte(scorer, texts[curve.name])
            curve.points.append((snapshot["num_bytes"] / 1e6, bits))
    return curves


def to_svg(curves: Sequence[Curve]) -> str:
    """Draw the curves, each named at its end with its last value."""
    last = max(x for curve in curves for x, _ in curve.points)
    low = int(2 * min(y for curve in curves for _, y in curve.points)) / 2
    halves = [half_bits / 2 for half_bits in range(int(2 * low), int(2 * MAX_BITS) + 1)]
    step = max(1, round(last / 6))
    lines = [Line(f"{curve.name} {curve.points[-1][1]:.2f}", curve.points) for curve in curves]
    return chart(
        "Bits per byte over megabytes of text read",
        lines,
        Axis("megabytes read", 0, last, range(0, int(last) + 1, step)),
        Axis("bits per byte", low, MAX_BITS, halves),
    )


def main() -> None:
    """Draw from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--folder", type=Path, default=DEFAULT_FOLDER, help="the run's folder")
    parser.add_argument("--checkpoint", type=Path, default=DEMO_CHECKPOINT, help="output folder")
    arguments = parser.parse_args()
    training = training_curve(arguments.folder / HISTORY_NAME)
    held_out = held_out_curves(arguments.folder, LANGUAGES, Shape())
    (arguments.checkpoint / "curves.svg").write_text(to_svg([training, *held_out]))


if __name__ == "__main__":
    main()
