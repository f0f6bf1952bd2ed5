"""The card's picture shows what was measured."""

import json
import xml.etree.ElementTree as ElementTree

import pytest
import torch

from bench import learning_curves as curves
from model import Scorer
from model.training.evaluate import model_bits_per_byte
from model.training.export import write_checkpoint
from model.training.network import Shape, TrainingEvaByte

SHAPE = Shape(hidden_size=32, num_layers=1, num_heads=2, intermediate_size=64, window_size=64)
TEXT = b"".join(b"line %d of a text, " % (n * n) for n in range(300))


@pytest.fixture
def run_folder(tmp_path):
    """What a training run leaves behind: held-out text, history, and two snapshots."""
    (tmp_path / "held_en.bin").write_bytes(TEXT)
    lines = [{"num_bytes": 1_000_000, "bits_per_byte": 5.0}]
    lines += [{"num_bytes": 2_000_000, "bits_per_byte": 2.5}]
    history = "".join(json.dumps(line) + "\n" for line in lines)
    (tmp_path / curves.HISTORY_NAME).write_text(history)
    (tmp_path / curves.SNAPSHOTS_NAME).mkdir()
    for number in (9, 10):
        network = TrainingEvaByte(SHAPE)
        torch.nn.init.normal_(network.lm_head.weight, generator=torch.manual_seed(number))
        snapshot = {"num_bytes": number * 2_000_000, "network": network.state_dict()}
        torch.save(snapshot, tmp_path / curves.SNAPSHOTS_NAME / f"{number}.pt")
    return tmp_path


def test_every_snapshot_is_a_point_in_order_of_bytes_read(run_folder, tmp_path):
    [curve] = curves.held_out_curves(run_folder, ["en"], SHAPE)

    assert [megabytes for megabytes, _ in curve.points] == [18.0, 20.0]
    last = torch.load(run_folder / curves.SNAPSHOTS_NAME / "10.pt")
    write_checkpoint(last["network"], SHAPE, tmp_path / "checkpoint")
    scorer = Scorer.load(str(tmp_path / "checkpoint"), device="cpu")
    assert curve.points[-1][1] == pytest.approx(model_bits_per_byte(scorer, TEXT))


def test_picture_names_each_curve_with_its_last_value(run_folder):
    training = curves.training_curve(run_folder / curves.HISTORY_NAME)
    english = curves.Curve("en", [(1.0, 3.5), (2.0, 2.25)])

    picture = ElementTree.fromstring(curves.to_svg([training, english]))

    texts = [element.text for element in picture.iter() if element.text]
    assert "training 2.50" in texts
    assert "en 2.25" in texts
    lines = [element for element in picture.iter() if element.tag.endswith("polyline")]
    assert [len(line.get("points").split()) for line in lines] == [2, 2]
