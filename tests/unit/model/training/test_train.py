"""A run can be stopped and continued, and its clock counts training only."""

import itertools
import json

import numpy as np
import pytest
import torch

from model.training.network import Shape
from model.training.schedule import Phase
from model.training.train import (
    HISTORY_NAME,
    MAX_STEP_S,
    SNAPSHOTS_NAME,
    Recipe,
    Trainer,
    sample_batch,
)

TINY = Recipe(
    seconds=10.0,
    shape=Shape(
        hidden_size=32,
        num_layers=2,
        num_heads=2,
        intermediate_size=48,
        window_size=16,
        chunk_size=4,
        num_pred_heads=2,
    ),
    phases=(
        Phase(0.0, batch_size=2, length=32, num_layers=1),
        Phase(0.4, batch_size=3, length=48, num_layers=2),
    ),
)
LINES = np.frombuffer(b"".join(b"line %d of the text\n" % n for n in range(400)), np.uint8)


@pytest.fixture
def seconds_per_step():
    """A timer under which every step takes a second."""
    return itertools.count().__next__


def trainer() -> Trainer:
    return Trainer(TINY, LINES, is_compiled=False)


def test_continued_run_equals_an_uninterrupted_one(tmp_path, seconds_per_step):
    whole = trainer()
    losses = [whole.step(seconds_per_step) for _ in range(7)]

    first = trainer()
    losses_before = [first.step(seconds_per_step) for _ in range(3)]
    first.save(tmp_path / "training.pt")
    second = trainer()
    second.load(tmp_path / "training.pt")
    losses_after = [second.step(seconds_per_step) for _ in range(4)]

    assert losses_before + losses_after == losses
    assert second.clock == whole.clock
    for name, tensor in whole.network.state_dict().items():
        torch.testing.assert_close(second.network.state_dict()[name], tensor, rtol=0, atol=0)


def test_training_lowers_the_loss(seconds_per_step):
    run = trainer()

    losses = [run.step(seconds_per_step) for _ in range(10)]

    assert losses[0] == pytest.approx(np.log(320), abs=0.01)
    assert losses[-1] < losses[0] - 0.5


def test_pause_counts_as_one_long_step():
    times = iter([0.0, 5000.0])
    run = trainer()

    run.step(lambda: next(times))

    assert run.clock.seconds == MAX_STEP_S


def test_run_ends_with_a_saved_state_and_a_full_clock(tmp_path):
    path = tmp_path / "training.pt"
    recipe = Recipe(seconds=0.05, shape=TINY.shape, phases=TINY.phases)
    run = Trainer(recipe, LINES, is_compiled=False)

    run.run(path, save_every_s=1000.0)

    restarted = trainer()
    restarted.load(path)
    assert restarted.clock == run.clock
    assert run.progress == 1.0


def test_run_notes_its_progress_and_keeps_weights_for_the_curves(tmp_path):
    recipe = Recipe(seconds=0.05, shape=TINY.shape, phases=TINY.phases)
    run = Trainer(recipe, LINES, is_compiled=False)

    run.run(tmp_path / "training.pt", save_every_s=0.0)

    notes = [json.loads(line) for line in (tmp_path / HISTORY_NAME).read_text().splitlines()]
    assert [note["num_steps"] for note in notes] == list(range(1, run.clock.num_steps + 1))
    assert notes[-1]["num_bytes"] == run.clock.num_bytes
    [snapshot] = (tmp_path / SNAPSHOTS_NAME).iterdir()
    assert torch.load(snapshot)["num_bytes"] == run.clock.num_bytes


def test_interrupted_save_leaves_the_old_state(tmp_path, monkeypatch):
    path = tmp_path / "training.pt"
    run = trainer()
    run.save(path)
    saved = path.read_bytes()

    def fail_halfway(state, file):
        file.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(torch, "save", fail_halfway)
    with pytest.raises(OSError, match="disk full"):
        run.save(path)

    assert path.read_bytes() == saved


def test_rows_begin_with_bos_and_a_line_start():
    ids = sample_batch(LINES, Phase(0.0, 5, 64, 1), 2, torch.Generator().manual_seed(0))

    assert ids.shape == (5, 66)
    assert (ids[:, 0] == 1).all()
    texts = [bytes((row[1:] - 64).tolist()) for row in ids]
    assert all(text.startswith(b"line ") for text in texts)
    assert all(text in LINES.tobytes() for text in texts)
