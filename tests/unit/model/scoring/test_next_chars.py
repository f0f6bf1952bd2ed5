import hashlib

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contract.grammar.vocabulary import encode
from model import ScoringFailed
from model.scoring.forward import Reader
from model.scoring.next_chars import CharacterSearch, next_characters

CHARACTERS = [chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000]
FORMS = [character.encode() for character in CHARACTERS]
BEGINNINGS = sorted({form[:end] for form in FORMS for end in range(1, len(form))})


@pytest.fixture(scope="module")
def reader(tiny_model) -> Reader:
    return Reader(tiny_model, 64)


def search(reader: Reader, texts: list[bytes], num_characters: int) -> list[dict]:
    wanted = [num_characters] * len(texts)
    return next_characters(reader, texts, wanted, on_pass=lambda num_bytes: None)


@torch.inference_mode()
def next_ids(model, texts: list[bytes]) -> np.ndarray:
    """[texts, 320]: what follows each of `texts`, all of one length, read each on its own."""
    ids = torch.tensor([encode(text) for text in texts])
    hidden = model.model(ids.reshape(-1), model.lay_out([ids.shape[1]] * len(ids)))
    logits = hidden.view(*ids.shape, -1)[:, -1] @ model.next_id_weight.T
    return logits.double().softmax(-1).numpy()


def probabilities_of_all_characters(model, text: bytes) -> dict[str, float]:
    likelihoods = {b"": 1.0}
    after = {b"": next_ids(model, [text])[0]}
    for length in (1, 2, 3):
        level = [beginning for beginning in BEGINNINGS if len(beginning) == length]
        for start in range(0, len(level), 2000):
            batch = level[start : start + 2000]
            found = next_ids(model, [text + beginning for beginning in batch])
            after.update(zip(batch, found, strict=True))
        for beginning in level:
            shorter, last = beginning[:-1], beginning[-1]
            likelihoods[beginning] = likelihoods[shorter] * after[shorter][last + 64]
    of_all = {}
    for character, form in zip(CHARACTERS, FORMS, strict=True):
        of_all[character] = likelihoods[form[:-1]] * after[form[:-1]][form[-1] + 64]
    return of_all


@pytest.mark.parametrize("text", [b"", "windows of 16 \u00e9".encode()], ids=len)
def test_likeliest_characters_are_those_of_all_code_points(reader, tiny_model, text):
    of_all = probabilities_of_all_characters(tiny_model, text)

    [found] = search(reader, [text], 50)

    listed = [probability for _, probability in found["characters"]]
    assert listed == pytest.approx(sorted(of_all.values(), reverse=True)[:50], rel=1e-3)
    for character, probability in found["characters"]:
        assert probability == pytest.approx(of_all[character], rel=1e-3)
    valid = sum(of_all.values())
    assert found["invalid"] - 1e-5 <= 1 - valid <= found["invalid"] + found["undecided"] + 1e-5
    assert sum(listed) + found["other"] <= valid + 1e-5


INTERESTING_IDS = [
    *(0, 1, 63),
    *(64 + byte for byte in (0x00, 0x41, 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF)),
    *(64 + byte for byte in (0xC0, 0xC1, 0xC2, 0xDF, 0xE0, 0xE1, 0xED, 0xEF)),
    *(64 + byte for byte in (0xF0, 0xF1, 0xF4, 0xF5, 0xFF)),
]


def distribution_after(beginning: bytes, seed: int) -> np.ndarray:
    """[320]: some distribution over the ids at the edges of what UTF-8 allows."""
    digest = hashlib.sha256(bytes([seed]) + beginning).digest()
    weights = np.zeros(320)
    weights[INTERESTING_IDS] = [digest[place] ** 4 for place in range(len(INTERESTING_IDS))]
    return weights / weights.sum()


def all_of_tree(seed: int) -> dict[bytes, float]:
    """The probability of every sequence of interesting bytes up to 4 that is one character."""
    found, level = {}, {b"": 1.0}
    while level:
        longer = {
            beginning + bytes([id_ - 64]): mass * distribution_after(beginning, seed)[id_]
            for beginning, mass in level.items()
            for id_ in INTERESTING_IDS
            if id_ >= 64
        }
        level = {}
        for sequence, mass in longer.items():
            try:
                sequence.decode()
            except UnicodeDecodeError as error:
                if error.reason == "unexpected end of data" and len(sequence) < 4:
                    level[sequence] = mass
            else:
                found[sequence] = mass
    return found


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 255), num_characters=st.integers(1, 30))
def test_search_finds_the_likeliest_leaves_of_any_tree_and_accounts_for_all(seed, num_characters):
    tree = all_of_tree(seed)
    progress = CharacterSearch(num_characters, distribution_after(b"", seed))
    followed = []
    while beginnings := progress.next_beginnings():
        for beginning in beginnings:
            progress.follow(beginning, distribution_after(beginning, seed))
            followed.append(beginning)

    found = progress.as_json()

    listed = [probability for _, probability in found["characters"]]
    likeliest = sorted(tree.values(), reverse=True)[:num_characters]
    assert listed[: len(likeliest)] == pytest.approx(likeliest, rel=1e-9)
    assert len(listed) == num_characters
    assert sum(listed) + found["other"] + found["invalid"] + found["undecided"] == pytest.approx(1)
    # Invalid is exactly what the followed places rule out.
    ruled_out = 1 - sum(tree.values()) - found["undecided"]
    assert ruled_out - 1e-12 <= found["invalid"] <= 1 - sum(tree.values()) + 1e-12
    assert len(set(followed)) == len(followed)


def test_everything_is_known_when_everything_was_followed():
    """Special ids, stray bytes, overlong forms, surrogates and what is beyond U+10FFFF."""
    seed = 7
    tree = all_of_tree(seed)
    progress = CharacterSearch(len(tree) + 128, distribution_after(b"", seed))
    while beginnings := progress.next_beginnings():
        for beginning in beginnings:
            progress.follow(beginning, distribution_after(beginning, seed))

    found = progress.as_json()

    assert found["undecided"] == pytest.approx(0, abs=1e-12)
    assert found["other"] == pytest.approx(0, abs=1e-12)
    assert found["invalid"] == pytest.approx(1 - sum(tree.values()), abs=1e-12)


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(texts=st.lists(st.text(max_size=40).map(str.encode) | st.binary(max_size=40), max_size=8))
def test_batch_mates_change_nothing(reader, texts):
    together = search(reader, texts, 3)

    for text, found in zip(texts, together, strict=True):
        [alone] = search(reader, [text], 3)
        for name in ("other", "invalid", "undecided"):
            assert found[name] == pytest.approx(alone[name], abs=1e-5)
        assert [p for _, p in found["characters"]] == pytest.approx(
            [p for _, p in alone["characters"]], rel=1e-3
        )


def test_search_stops_when_beginnings_cannot_win():
    next_ids = np.zeros(320)
    next_ids[64 + ord("e")], next_ids[64 + 0xC3] = 0.9, 0.1

    assert CharacterSearch(1, next_ids).next_beginnings() == []
    assert CharacterSearch(2, next_ids).next_beginnings() == [b"\xc3"]


def test_probabilities_that_are_no_numbers_are_an_error(tiny_model):
    broken = type(tiny_model)(tiny_model.config).eval()
    torch.nn.init.constant_(broken.lm_head.weight, float("nan"))

    with pytest.raises(ScoringFailed, match="not finite"):
        search(Reader(broken, 64), [b"text"], 1)
