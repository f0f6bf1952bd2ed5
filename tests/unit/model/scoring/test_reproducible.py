"""A text's score on a CPU has the same bits whatever texts share the batch, at any place in it."""

import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from model import EvaByteConfig, EvaByteForCausalLM, Scorer, ScoreRequest

WINDOW = 32
# Down to a single row, around the steps of products, around windows, over several windows.
# The last ones are beyond the share of a pass that a thread reads.
LENGTHS = (1, 2, 3, 7, 15, 16, 17, 31, 32, 33, 47, 64, 65, 100, 129, 1100, 1500)
MODES = [("float32", "none"), ("bfloat16", "none"), ("float32", "int8"), ("bfloat16", "int8")]
MODES += [("float32", "nf4"), ("bfloat16", "nf4"), ("float32", "fp8"), ("bfloat16", "fp8")]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    """A random model with products deep enough that oneDNN splits those of a single row."""
    config = EvaByteConfig(
        hidden_size=128,
        intermediate_size=1408,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_pred_heads=2,
        window_size=WINDOW,
        chunk_size=4,
        max_position_embeddings=2048,
        initializer_range=0.1,
    )
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("deep")
    EvaByteForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", params=MODES, ids=" ".join)
def deep_scorer(checkpoint: Path, request) -> Scorer:
    dtype, quantization = request.param
    return Scorer.load(str(checkpoint), dtype=dtype, quantization=quantization, pass_bytes=2048)


@pytest.fixture(scope="module")
def reproducible_scorer(checkpoint: Path) -> Scorer:
    return Scorer.load(str(checkpoint), pass_bytes=2048, is_reproducible=True)


@pytest.fixture(params=[1, 2], ids="{} threads".format)
def num_threads(request) -> Iterator[int]:
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(1)


def a_request(length: int) -> ScoreRequest:
    text = random.Random(length).randbytes(length)
    return ScoreRequest(text=text, outputs=frozenset({"bytes", "top_k", "curvature"}), top_k=4)


def test_score_is_bit_for_bit_the_same_alone_and_among_any_mates(deep_scorer, num_threads):
    alone = {length: deep_scorer.score([a_request(length)])[0] for length in LENGTHS}
    for num_mates in (1, 7, 63):
        generator = random.Random(num_mates)
        mates = [generator.choice([*range(1, 35), 64, 97, 200, 450]) for _ in range(num_mates)]
        places = [*LENGTHS, *mates]
        generator.shuffle(places)
        together = deep_scorer.score([a_request(length) for length in places])
        for length, result in zip(places, together, strict=True):
            if length in alone:
                assert result == alone[length], f"{length} bytes among {num_mates} mates"


def test_score_is_bit_for_bit_the_same_on_one_core_and_on_two(deep_scorer):
    requests = [a_request(length) for length in LENGTHS]
    torch.set_num_threads(2)
    on_two = deep_scorer.score(requests)
    torch.set_num_threads(1)

    for length, one, two in zip(LENGTHS, deep_scorer.score(requests), on_two, strict=True):
        assert one == two, f"{length} bytes"


def test_continuations_too_where_that_is_asked_for(reproducible_scorer, num_threads):
    context = random.Random(0).randbytes(70)
    texts = [random.Random(length).randbytes(length) for length in LENGTHS]
    alone = [
        reproducible_scorer.score([ScoreRequest(context=context, continuations=(text,))])[0]
        for text in texts
    ]

    request = ScoreRequest(context=context, continuations=tuple(texts))
    together = reproducible_scorer.score([a_request(450), request, request])

    expected = [result for each in alone for result in each["continuations"]]
    assert together[1]["continuations"] == together[2]["continuations"] == expected


def test_next_characters_too_where_that_is_asked_for(reproducible_scorer, num_threads):
    requests = [replace(a_request(length), next_chars=3) for length in LENGTHS]
    alone = [reproducible_scorer.score([request])[0] for request in requests]

    assert reproducible_scorer.score([a_request(450), *requests])[1:] == alone
    texts = [request.text for request in requests]
    predicted = reproducible_scorer.predict_characters(texts, 3)
    assert predicted == [reproducible_scorer.predict_characters([text], 3)[0] for text in texts]
