"""Draws how a run learned: `python -m model.training.curves [--folder F] [--checkpoint C]`.

Scores the first bytes of every held-out language with each snapshot that the training kept, and
draws them over the bytes read, with the loss in training, as `curves.svg` beside the weights.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from model import Scorer
from model.training.corpus import DEFAULT_FOLDER
from model.training.evaluate import model_bits_per_byte
from model.training.export import DEMO_CHECKPOINT, write_checkpoint
from model.training.network import Shape
from model.training.train import HISTORY_NAME, SNAPSHOTS_NAME

LANGUAGES = ("en", "de", "es", "fr")
# Half a minute for a dozen snapshots; the card's table reads all that is held out.
SAMPLE_BYTES = 24 * 1024

COLOURS = ("#767676", "#1b6ca8", "#c4511c", "#2f7d32", "#7b3fa0")
WIDTH, HEIGHT, MARGIN, LINE_HEIGHT = 760, 400, 56, 16
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
    """Draw the curves, each named at its end."""
    last = max(x for curve in curves for x, _ in curve.points)
    low = int(2 * min(y for curve in curves for _, y in curve.points)) / 2

    def place(megabytes: float, bits: float) -> tuple[float, float]:
        right = megabytes / last * (WIDTH - 3 * MARGIN)
        down = (MAX_BITS - min(bits, MAX_BITS)) / (MAX_BITS - low) * (HEIGHT - 2 * MARGIN)
        return round(MARGIN + right, 1), round(MARGIN + down, 1)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        'font-family="sans-serif" font-size="13">',
        "<title>Bits per byte over megabytes of text read</title>",
        '<rect width="100%" height="100%" fill="white"/>',
        _label(MARGIN - 8, MARGIN - 20, "bits per byte", anchor="start"),
    ]
    for half_bits in range(int(2 * low), int(2 * MAX_BITS) + 1):
        (x, y), (end, _) = place(0, half_bits / 2), place(last, half_bits / 2)
        parts.append(f'<path d="M{x} {y}H{end}" stroke="#dddddd"/>')
        parts.append(_label(x - 8, y + 4, f"{half_bits / 2:.1f}", anchor="end"))
    for megabytes in range(0, int(last) + 1, max(1, round(last / 6))):
        x, y = place(megabytes, low)
        parts.append(_label(x, y + 20, f"{megabytes} MB", anchor="middle"))
    lines = [[place(*point) for point in curve.points] for curve in curves]
    heights = _apart([places[-1][1] for places in lines])
    for curve, places, height, colour in zip(curves, lines, heights, COLOURS, strict=False):
        corners = " ".join(f"{x},{y}" for x, y in places)
        parts.append(f'<polyline points="{corners}" fill="none" stroke="{colour}"/>')
        name = f"{curve.name} {curve.points[-1][1]:.2f}"
        parts.append(_label(places[-1][0] + 8, height + 4, name, anchor="start", colour=colour))
    return "\n".join([*parts, "</svg>", ""])


def _apart(heights: Sequence[float]) -> list[float]:
    """Move labels down until none touches the one above it."""
    moved = [0.0] * len(heights)
    above = float(-LINE_HEIGHT)
    for number in sorted(range(len(heights)), key=heights.__getitem__):
        above = moved[number] = max(heights[number], above + LINE_HEIGHT)
    return moved


def _label(x: float, y: float, text: str, *, anchor: str, colour: str = "#333333") -> str:
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}" fill="{colour}">{text}</text>'


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
