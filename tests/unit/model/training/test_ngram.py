"""The n-gram yardstick is a probability distribution with the stated formula."""

from collections import Counter

import numpy as np
import pytest

from model.training import ngram
from model.training.ngram import ByteNgram

TEXT = np.frombuffer(b"the cat sat on the mat; the rat ate the cat that sat there. " * 3, np.uint8)


def witten_bell(text: bytes, history: bytes, byte: int) -> float:
    """The formula of the module's docstring, word by word."""
    lower = 1 / 256 if not history else witten_bell(text, history[1:], byte)
    following = Counter(
        text[i + len(history)]
        for i in range(len(text) - len(history))
        if text[i : i + len(history)] == history
    )
    total = sum(following.values())
    if not total:
        return lower
    return (following[byte] + len(following) * lower) / (total + len(following))


@pytest.mark.parametrize("history", [b"", b"t", b"the c", b"e the", b"zzzzz", b"zz th", b"\xff"])
def test_probabilities_of_all_bytes_sum_to_one(history):
    model = ByteNgram(TEXT)

    texts = [np.frombuffer(history + bytes([byte]), np.uint8) for byte in range(256)]
    total = sum(model.probabilities(text)[-1] for text in texts)

    assert total == pytest.approx(1.0)


def test_probabilities_follow_the_formula():
    model = ByteNgram(TEXT, order=3)
    text = b"that cat, the rat"

    probabilities = model.probabilities(np.frombuffer(text, np.uint8))

    expected = [
        witten_bell(TEXT.tobytes(), text[max(0, i - 3) : i], text[i]) for i in range(len(text))
    ]
    np.testing.assert_allclose(probabilities, expected)


def test_counting_in_pieces_changes_nothing(monkeypatch):
    text = np.frombuffer(b"the mat that ate the cat", np.uint8)
    whole = ByteNgram(TEXT).probabilities(text)

    monkeypatch.setattr(ngram, "_COUNTING_PIECE_BYTES", 7)

    np.testing.assert_array_equal(ByteNgram(TEXT).probabilities(text), whole)


def test_empty_text_leaves_bytes_equally_likely():
    model = ByteNgram(np.zeros(0, np.uint8))

    assert model.bits_per_byte(np.frombuffer(b"any", np.uint8)) == 8.0
