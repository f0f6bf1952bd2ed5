"""Stretches of a text that get scores of their own: its words, lines or characters, or ranges.

Words, lines and characters each cut a text of any bytes into stretches that follow one another
without a gap, so that their scores add up to that of the text.
"""

import re

import numpy as np
from numpy.typing import NDArray

# Characters are not those of language alone: `surrogateescape` makes one of each byte that is no
# part of a well-formed character.
_WORD = re.compile(r"\s*\S+|\s+")
_LINE = re.compile(r"[^\n]*\n|[^\n]+")

Spans = str | tuple[tuple[int, int], ...]
"""One of `contract.grammar.outputs.UNITS`, or ranges of bytes [start, end)."""


def bounds_of(spans: Spans, text: bytes) -> NDArray[np.int64]:
    """Return where each of the `spans` of `text` starts and ends, in bytes: [S, 2].

    * `characters`: the characters of UTF-8; a byte that is part of none stands for itself;
    * `lines`: each ends with its newline, the last one with the text;
    * `words`: what is not whitespace, together with the whitespace before it; whitespace at the end
      of the text stands for itself;
    * ranges: as Python slices `text`, so that none reaches beyond it, and one may be empty.
    """
    if not isinstance(spans, str):
        within = (slice(*span).indices(len(text)) for span in spans)
        return np.array([(start, max(start, end)) for start, end, _ in within], dtype=np.int64)
    characters = text.decode(errors="surrogateescape")
    offsets = _offsets(characters)
    if spans == "characters":
        ends = offsets[1:]
    else:
        pattern = _WORD if spans == "words" else _LINE
        found = np.fromiter((match.end() for match in pattern.finditer(characters)), np.int64)
        ends = offsets[found]
    return np.stack((np.concatenate(([0], ends[:-1])) if len(ends) else ends, ends), axis=1)


def _offsets(characters: str) -> NDArray[np.int64]:
    """The byte at which each character begins, and that at which the last one ends."""
    codes = np.frombuffer(characters.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    is_single_byte = (codes < 0x80) | ((codes >= 0xDC80) & (codes < 0xDD00))
    lengths = 1 + (~is_single_byte) * (1 + (codes >= 0x800).astype(np.int64) + (codes >= 0x10000))
    return np.concatenate(([0], lengths.cumsum()))
