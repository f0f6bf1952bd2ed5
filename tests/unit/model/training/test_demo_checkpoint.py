"""The bundled checkpoint is whole, says what it is, and is as good as its card says."""

import json

import pytest
import torch
from transformers import AutoModelForCausalLM

from contract.grammar.vocabulary import encode
from model import DEMO_CHECKPOINT, Scorer, ScoreRequest
from model.canary import check_canary
from model.training.evaluate import to_markdown
from model.training.export import config_of
from model.training.network import Shape
from model.weights.loading import DTYPES
from model.weights.quantization import QUANTIZATIONS

ENGLISH = b"The man went to the house of his father, and his father said to him: come in."
LANGUAGES = ("en", "de", "es", "fr")


@pytest.fixture(scope="module")
def evaluation():
    rows = json.loads((DEMO_CHECKPOINT / "evaluation.json").read_text())
    return {row["group"]: row for row in rows}


@pytest.fixture(scope="module")
def scorer():
    return Scorer.load(str(DEMO_CHECKPOINT), device="cpu")


def test_checkpoint_fits_twelve_megabytes():
    assert sum(path.stat().st_size for path in DEMO_CHECKPOINT.iterdir()) <= 12_000_000


def test_config_is_the_one_that_the_export_writes():
    assert json.loads((DEMO_CHECKPOINT / "config.json").read_text()) == config_of(Shape())


def test_checkpoint_says_that_it_is_a_demo(scorer):
    assert scorer.info.is_demo


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("quantization", QUANTIZATIONS)
def test_canary_lives_in_every_mode(dtype, quantization, tmp_path):
    scorer = Scorer.load(str(DEMO_CHECKPOINT), dtype=dtype, quantization=quantization)
    check_canary(scorer, cache_dir=tmp_path)
    assert list(tmp_path.iterdir()) == []  # it was compared, not recorded


def test_english_is_likelier_than_the_same_bytes_in_another_order(scorer):
    scrambled = bytes(sorted(ENGLISH, key=lambda byte: byte * 37 % 101))

    english, other = scorer.score([ScoreRequest(text=ENGLISH), ScoreRequest(text=scrambled)])

    assert english["bits_per_byte"] < 3.0
    assert other["bits_per_byte"] > english["bits_per_byte"] + 1.0


def test_packed_scorer_and_auto_class_agree(scorer):
    reference = AutoModelForCausalLM.from_pretrained(DEMO_CHECKPOINT, dtype=torch.float32)
    text = ENGLISH * 9  # three windows
    ids = torch.tensor([encode(text)])

    with torch.inference_mode():
        log_probs = reference(ids[:, :-1]).logits.log_softmax(-1)
    expected = log_probs.gather(-1, ids[:, 1:, None]).sum().item()

    [result] = scorer.score([ScoreRequest(text=text)])
    assert result["log_likelihood_nats"] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("yardstick", ["gzip -9", "xz -9e"])
def test_held_out_text_takes_fewer_bits_than_compressed(evaluation, language, yardstick):
    assert evaluation[language]["model"] < evaluation[language][yardstick]


def test_held_out_english_takes_fewer_bits_than_with_an_ngram_model(evaluation):
    assert evaluation["en"]["model"] < evaluation["en"]["order-5 n-gram"]


def test_card_shows_the_evaluation(evaluation):
    assert to_markdown(list(evaluation.values())) in (DEMO_CHECKPOINT / "README.md").read_text()
