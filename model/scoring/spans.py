"""Finds the spans of a text that get scores of their own: words, lines, characters or ranges.

Words, lines and characters cut a text of any bytes into spans without gaps. So the scores of the
spans add up to the score of the text.
"""

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# `surrogateescape` decodes each byte outside of a well-formed character as a character of its own.
_WORD = re.compile(r"\s*\S+|\s+")
_LINE = re.compile(r"[^\n]*\n|[^\n]+")

Ranges = tuple[tuple[int, int], ...]
"""Ranges of bytes [start, end)."""


@dataclass(frozen=True, slots=True)
class CharacterRanges:
    """Ranges of characters [start, end)."""

    ranges: Ranges


Spans = str | Ranges | CharacterRanges
"""One of `contract.grammar.outputs.UNITS`, or ranges."""


def bounds_of(spans: Spans, text: bytes) -> NDArray[np.int64]:
    """Return where each of the `spans` of `text` starts and ends, in bytes: [S, 2].

    * `characters`: the characters of UTF-8; a byte outside of them is a span of its own;
    * `lines`: each ends with its newline, and the last one with the text;
    * `words`: each with the whitespace before it; whitespace at the end of the text is a span of
      its own;
    * ranges: cut to the text like slices in Python; a range may be empty. Ranges of characters
      count those of the unit `characters`.
    """
    if isinstance(spans, tuple):
        return _within(spans, len(text))
    characters = text.decode(errors="surrogateescape")
    offsets = _offsets(characters)
    if isinstance(spans, CharacterRanges):
        return offsets[_within(spans.ranges, len(characters))]
    if spans == "characters":
        ends = offsets[1:]
    else:
        pattern = _WORD if spans == "words" else _LINE
        found = np.fromiter((match.end() for match in pattern.finditer(characters)), np.int64)
        ends = offsets[found]
    return np.stack((np.concatenate(([0], ends[:-1])) if len(ends) else ends, ends), axis=1)


def _within(ranges: Ranges, length: int) -> NDArray[np.int64]:
    """Cut ranges to a text as Python's slices are."""
    cut = (slice(*span).indices(length) for span in ranges)
    return np.array([(start, max(start, end)) for start, end, _ in cut], dtype=np.int64)


def _offsets(characters: str) -> NDArray[np.int64]:
    """Return the byte at which each character begins, and the byte at which the last one ends."""
    codes = np.frombuffer(characters.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    is_single_byte = (codes < 0x80) | ((codes >= 0xDC80) & (codes < 0xDD00))
    lengths = 1 + (~is_single_byte) * (1 + (codes >= 0x800).astype(np.int64) + (codes >= 0x10000))
    return np.concatenate(([0], lengths.cumsum()))
