"""Trains the demo checkpoint: `python -m model.training.train [--folder F] [--seconds S]`.

Reads `train.bin` of the corpus. Every few minutes it replaces `training.pt` (weights, optimizers,
random state, clock) at once and adds a line to `history.jsonl`; started again, it goes on from
there. A run that was stopped by a signal and continued loses nothing either: a pause does not
count as training time. A run that ended goes on under a longer schedule with `--resume-at`.
"""

import argparse
import json
import logging
import os
import time
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from contract.grammar.vocabulary import BOS_ID, NUM_SPECIAL_IDS
from model.machine.cpu import use_onednn_for_float32
from model.training.corpus import DEFAULT_FOLDER
from model.training.network import Positions, Shape, TrainingEvaByte
from model.training.schedule import PHASES, Phase, learning_rate_factor, phase_at

log = logging.getLogger(__name__)

CHECKPOINT_NAME = "training.pt"
HISTORY_NAME = "history.jsonl"
SNAPSHOTS_NAME = "snapshots"
# The last weights of every two megabytes are kept, a dozen points for a curve.
SNAPSHOT_EVERY_BYTES = 2_000_000
# A longer step was paused or compiled: it counts as this much training.
MAX_STEP_S = 10.0
# The other heads train on every fourth position, which costs a few percent of a step.
OTHER_HEADS_STRIDE = 4
# Far enough to find a line start in prose, whose paragraphs may be one line each.
_LINE_START_SEARCH_BYTES = 600


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the outcome of a run, besides the text and the machine's speed."""

    seconds: float = 4200.0
    shape: Shape = field(default_factory=Shape)
    phases: tuple[Phase, ...] = PHASES
    muon_lr: float = 0.012
    adam_lr: float = 3e-3
    # On the summed loss; their gradient stops at the trunk, so it only sets their own rate.
    other_heads_weight: float = 0.1
    # bfloat16 was 2.3 times as fast on a Zen 5 processor, and slower on a Xeon without AMX.
    dtype: torch.dtype = torch.float32
    seed: int = 0


@dataclass
class Clock:
    """How far a run has come."""

    seconds: float = 0.0
    num_steps: int = 0
    num_bytes: int = 0


def sample_batch(text: np.ndarray, phase: Phase, extra: int, generator: torch.Generator) -> Tensor:
    """Draw sequences that start at line starts: ids [batch_size, length + extra] int64.

    `text`: [N] uint8. Each row begins with bos; `extra` more ids serve as the last targets.
    """
    num_ids = phase.length + extra
    ids = np.full((phase.batch_size, num_ids), BOS_ID, dtype=np.int64)
    last_start = len(text) - num_ids - _LINE_START_SEARCH_BYTES
    for row in ids:
        start = int(torch.randint(last_start, (), generator=generator))
        newlines = np.flatnonzero(text[start : start + _LINE_START_SEARCH_BYTES] == ord("\n"))
        start += int(newlines[0]) + 1 if len(newlines) else 0
        row[1:] = text[start : start + num_ids - 1].astype(np.int64) + NUM_SPECIAL_IDS
    return torch.from_numpy(ids)


class Trainer:
    """One run: a network, its optimizers, and the clock that drives the schedule."""

    def __init__(self, recipe: Recipe, text: np.ndarray, *, is_compiled: bool = True) -> None:
        torch.manual_seed(recipe.seed)
        self.recipe = recipe
        self.text = text
        self.clock = Clock()
        self.network = TrainingEvaByte(recipe.shape)
        self.generator = torch.Generator().manual_seed(recipe.seed)
        matrices = [x for n, x in self.network.named_parameters() if n.endswith("_proj.weight")]
        others = [x for n, x in self.network.named_parameters() if not n.endswith("_proj.weight")]
        adam = torch.optim.AdamW(
            others, lr=recipe.adam_lr, betas=(0.9, 0.95), weight_decay=0.0, fused=True
        )
        # Orthogonalizes in bfloat16: its updates differ by 1 % from those in float32.
        muon = torch.optim.Muon(
            matrices, lr=recipe.muon_lr, weight_decay=0.0, adjust_lr_fn="original"
        )
        self.optimizers = [muon, adam]
        self._peak_rates = [recipe.muon_lr, recipe.adam_lr]
        self._positions: dict[int, Positions] = {}
        self._losses: Callable[..., tuple[Tensor, Tensor]] = self.network.losses
        if is_compiled:
            # Shapes change only between phases; each deserves its own code.
            self._losses = torch.compile(self.network.losses, dynamic=False)

    @property
    def progress(self) -> float:
        """Elapsed share of the training time, 0 to 1."""
        return min(1.0, self.clock.seconds / self.recipe.seconds)

    def step(self, timer: Callable[[], float] = time.perf_counter) -> float:
        """Train on one batch and return head 0's loss in nats per byte."""
        started = timer()
        phase = phase_at(self.progress, self.recipe.phases)
        for optimizer, peak in zip(self.optimizers, self._peak_rates, strict=True):
            for group in optimizer.param_groups:
                group["lr"] = peak * learning_rate_factor(self.progress)
        shape = self.recipe.shape
        ids = sample_batch(self.text, phase, shape.num_pred_heads, self.generator)
        offset = int(torch.randint(OTHER_HEADS_STRIDE, (), generator=self.generator))
        sampled = torch.arange(0, phase.length, OTHER_HEADS_STRIDE) + offset
        with self._autocast():
            loss, other_loss = self._losses(
                ids, sampled, self._positions_for(phase.length), phase.num_layers
            )
        (loss + self.recipe.other_heads_weight * other_loss).backward()
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.clock.num_steps += 1
        self.clock.num_bytes += phase.batch_size * phase.length
        self.clock.seconds += min(timer() - started, MAX_STEP_S)
        return loss.item()

    def _autocast(self) -> AbstractContextManager[Any]:
        is_reduced = self.recipe.dtype != torch.float32
        return torch.autocast("cpu", self.recipe.dtype, enabled=is_reduced)

    def _positions_for(self, length: int) -> Positions:
        if length not in self._positions:
            self._positions[length] = Positions(self.recipe.shape, length, self.recipe.dtype)
        return self._positions[length]

    def save(self, path: Path) -> None:
        """Replace `path` with the whole state at once: a crash leaves the old or the new one."""
        state = {
            "network": self.network.state_dict(),
            "optimizers": [x.state_dict() for x in self.optimizers],
            "generator": self.generator.get_state(),
            "clock": vars(self.clock),
        }
        partial = path.with_suffix(".partial")
        with partial.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)

    def load(self, path: Path) -> None:
        """Go on from a saved state."""
        state = torch.load(path, weights_only=True)
        self.network.load_state_dict(state["network"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.generator.set_state(state["generator"])
        self.clock = Clock(**state["clock"])

    def run(self, path: Path, save_every_s: float) -> None:
        """Train until the clock is full, saving to `path` every `save_every_s` of training."""
        recent: deque[float] = deque(maxlen=200)
        saved_at = self.clock.seconds
        while self.progress < 1.0:
            recent.append(self.step())
            if self.clock.seconds - saved_at >= save_every_s or self.progress >= 1.0:
                self.save(path)
                saved_at = self.clock.seconds
                self._note(path.parent, sum(recent) / len(recent) / np.log(2))

    def _note(self, folder: Path, bits_per_byte: float) -> None:
        """Add the mean of the last batches to the history, and keep the weights for the curves."""
        line = vars(self.clock) | {"bits_per_byte": round(bits_per_byte, 4)}
        with (folder / HISTORY_NAME).open("a") as file:
            file.write(json.dumps(line) + "\n")
        snapshots = folder / SNAPSHOTS_NAME
        snapshots.mkdir(exist_ok=True)
        number = self.clock.num_bytes // SNAPSHOT_EVERY_BYTES
        snapshot = {"num_bytes": self.clock.num_bytes, "network": self.network.state_dict()}
        torch.save(snapshot, snapshots / f"{number}.pt")
        log.info(
            "%.0f s, %d steps, %.1f MB, %.3f bits per byte in training",
            self.clock.seconds,
            self.clock.num_steps,
            self.clock.num_bytes / 1e6,
            bits_per_byte,
        )


def main() -> None:
    """Train from the command line, from the start or from the last checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--folder", type=Path, default=DEFAULT_FOLDER, help="the corpus' folder")
    parser.add_argument("--seconds", type=float, default=Recipe.seconds, help="training time")
    parser.add_argument("--save-every-s", type=float, default=120.0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--resume-at",
        type=float,
        metavar="SHARE",
        help="go on from this share of the schedule, 0 to 1, wherever the run stood",
    )
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(arguments.threads)
    use_onednn_for_float32()
    text = np.memmap(arguments.folder / "train.bin", dtype=np.uint8, mode="r")
    recipe = Recipe(seconds=arguments.seconds, dtype=getattr(torch, arguments.dtype))
    trainer = Trainer(recipe, text)
    checkpoint = arguments.folder / CHECKPOINT_NAME
    if checkpoint.exists():
        trainer.load(checkpoint)
        if arguments.resume_at is not None:
            trainer.clock.seconds = arguments.resume_at * arguments.seconds
        log.info("going on from %.0f s of training", trainer.clock.seconds)
    trainer.run(checkpoint, arguments.save_every_s)


if __name__ == "__main__":
    main()
