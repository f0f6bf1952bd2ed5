"""Cuts short texts out of English prose, the same ones each time."""

import random

from contract.settings import REPOSITORY

PROSE = REPOSITORY / "LICENSE"
MIN_TEXT_BYTES, MAX_TEXT_BYTES = 20, 200


def make_texts(count: int) -> list[str]:
    """Pieces of English prose of 20 to 200 bytes, the same each time."""
    prose, generator = PROSE.read_text(), random.Random(0)
    texts = []
    for _ in range(count):
        length = generator.randint(MIN_TEXT_BYTES, MAX_TEXT_BYTES)
        begin = generator.randrange(len(prose) - length)
        texts.append(prose[begin : begin + length])
    return texts
