"""Makes texts and their lengths, the same in every run."""

import random

from bench.first_gpu.sizes import Sizes

LETTERS = "etaoin shrdlu ETAOIN, äöü 0123456789.\n"


def texts_of(num_bytes: int, text_bytes: int) -> list[int]:
    """Return lengths of texts of a usual length that fill a pass."""
    rest = num_bytes % text_bytes
    return [text_bytes] * (num_bytes // text_bytes) + ([rest] if rest else [])


def mixed_lengths(sizes: Sizes, count: int) -> list[int]:
    """Return `count` lengths between the shortest and the longest of mixed texts."""
    generator = random.Random(0)
    return [generator.randint(*sizes.mixed_bytes) for _ in range(count)]


def random_text(num_bytes: int, seed: int) -> bytes:
    """Return a text of letters, digits and a few bytes that are not ASCII."""
    letters = random.Random(seed).choices(LETTERS, k=num_bytes)
    return "".join(letters).encode()[:num_bytes]


def random_string(num_bytes: int, seed: int) -> str:
    """Return `random_text` as a string; a character that was cut is replaced."""
    return random_text(num_bytes, seed).decode("utf-8", "replace")
