"""The canary's score: compared at every start, recorded once, and moved by what damages scores."""

import json
import logging
import multiprocessing
import os
import shutil
from pathlib import Path

import pytest
import torch

from model import CheckpointInvalid, ModelDrifted, Scorer
from model.canary import TEXT, check_canary, score_canary, tolerance_nats, write_canary
from model.weights.quantization import QUANTIZATIONS

# Not from contract/settings.py: its packages may be missing on a machine with a GPU.
DEMO_CHECKPOINT = Path(__file__).parents[3] / "model" / "checkpoints" / "demo"


@pytest.fixture
def own_scorer(tiny_checkpoint: Path, tmp_path: Path) -> Scorer:
    """A scorer of a copy of the tiny checkpoint, for one test to damage."""
    folder = tmp_path / "tiny"
    shutil.copytree(tiny_checkpoint, folder)
    return Scorer.load(str(folder))


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def record_of(cache: Path) -> Path:
    (record,) = (cache / "canary").iterdir()
    return record


def publish(scorer: Scorer, nats: float, **changes: str) -> None:
    """Write `canary.json` beside the weights of `scorer`."""
    write_canary(scorer.folder, {"float32": {"none": nats}}, scorer.info.revision)
    path = scorer.folder / "canary.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def damage(scorer: Scorer) -> None:
    """Zero one row of a matrix, as a lost page of memory would."""
    with torch.no_grad():
        scorer._model.model.layers[1].mlp.down_proj.weight[0] = 0


def test_first_start_is_recorded_and_later_ones_compared(own_scorer, cache):
    check_canary(own_scorer, cache)
    recorded = json.loads(record_of(cache).read_text())["log_likelihood_nats"]
    assert recorded == score_canary(own_scorer)
    check_canary(own_scorer, cache)

    damage(own_scorer)
    with pytest.raises(
        ModelDrifted, match=rf"expected score is {recorded:.4f}, tolerance 0\.0"
    ) as reply:
        check_canary(own_scorer, cache)
    assert f"{score_canary(own_scorer):.4f} nats" in str(reply.value)


def test_other_modes_are_recorded_apart(own_scorer, cache):
    check_canary(own_scorer, cache)
    for mode in ({"dtype": "bfloat16"}, {"quantization": "int8"}):
        check_canary(Scorer.load(str(own_scorer.folder), **mode), cache)
    assert len(list((cache / "canary").iterdir())) == 3


def test_published_score_counts_and_nothing_is_recorded(own_scorer, cache):
    nats = score_canary(own_scorer)
    publish(own_scorer, nats + 0.9 * tolerance_nats(own_scorer))
    check_canary(own_scorer, cache)
    publish(own_scorer, nats + 1.1 * tolerance_nats(own_scorer))
    with pytest.raises(ModelDrifted):
        check_canary(own_scorer, cache)
    assert not cache.exists()


def test_published_score_is_of_these_weights_alone(own_scorer, cache):
    publish(own_scorer, score_canary(own_scorer), weights="0123456789abcdef")
    with pytest.raises(ModelDrifted, match=r"0123456789abcdef.*copy the checkpoint again"):
        check_canary(own_scorer, cache)


def test_mode_without_published_score_is_recorded(own_scorer, cache):
    publish(own_scorer, score_canary(own_scorer))
    check_canary(Scorer.load(str(own_scorer.folder), dtype="bfloat16"), cache)
    assert record_of(cache).exists()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"weights": 1}', "\xff"])
def test_damaged_published_file_is_reported_with_its_remedy(own_scorer, cache, content):
    (own_scorer.folder / "canary.json").write_text(content)
    with pytest.raises(CheckpointInvalid, match=r"canary\.json: .*delete it"):
        check_canary(own_scorer, cache)


def test_score_published_for_another_text_is_no_comparison(own_scorer, cache):
    publish(own_scorer, score_canary(own_scorer), text_sha256="0" * 64)
    with pytest.raises(CheckpointInvalid, match="canary text of another release"):
        check_canary(own_scorer, cache)


@pytest.mark.parametrize("content", ["", '{"log_like', "[]", '{"log_likelihood_nats": null}'])
def test_damaged_record_is_measured_again(own_scorer, cache, content, caplog):
    check_canary(own_scorer, cache)
    whole = record_of(cache).read_text()
    record_of(cache).write_text(content)
    with caplog.at_level(logging.WARNING):
        check_canary(own_scorer, cache)
    assert "measured again" in caplog.text
    assert record_of(cache).read_text() == whole


def die_while_recording(scorer: Scorer, cache: Path) -> None:
    os.fsync = lambda _: os._exit(9)
    check_canary(scorer, cache)


def test_record_of_a_start_that_died_is_never_used(own_scorer, cache):
    context = multiprocessing.get_context("fork")
    starter = context.Process(target=die_while_recording, args=(own_scorer, cache))
    starter.start()
    starter.join(60)
    assert starter.exitcode == 9
    assert record_of(cache).suffix == ".partial"
    check_canary(own_scorer, cache)
    assert sorted(path.suffix for path in (cache / "canary").iterdir()) == [".json", ".partial"]


def test_folder_that_cannot_be_made_costs_the_comparison_alone(own_scorer, cache, caplog):
    cache.write_text("in the way")
    with caplog.at_level(logging.WARNING):
        check_canary(own_scorer, cache)
    assert "was not kept" in caplog.text


def test_text_is_cut_for_models_that_read_less(own_scorer):
    assert len(TEXT) > own_scorer.info.max_text_bytes
    assert score_canary(own_scorer) < 0


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("kernels", ["auto", "torch"])
@pytest.mark.parametrize("quantization", QUANTIZATIONS)
def test_demo_scores_on_a_gpu_what_it_scored_on_a_cpu(quantization, kernels, cache):
    mode = {"device": "cuda", "quantization": quantization, "kernels": kernels}
    for _ in range(2):  # the second time with the weights that the first one kept
        scorer = Scorer.load(str(DEMO_CHECKPOINT), **mode, cache_dir=cache)
        check_canary(scorer, cache)
        scorer.warm_up()
    assert not (cache / "canary").exists()
