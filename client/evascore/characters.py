"""Sums the scores of bytes to scores of characters."""

import math
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

_PICTURES = 0x2400  # Unicode block Control Pictures: one for each control character


@dataclass(frozen=True, slots=True)
class Character:
    """A character of a scored text; a byte that is not UTF-8 counts as one."""

    text: str
    """The character; for another byte, `\\\\x` and two digits."""
    start: int
    """Its first byte in the text."""
    num_bytes: int
    bits: float
    """Surprisal: minus the base-2 logarithm of its probability, given the text before it."""

    @property
    def bits_per_byte(self) -> float:
        """Surprisal by byte, by which characters of different scripts can be compared."""
        return self.bits / self.num_bytes

    @property
    def shown(self) -> str:
        """The character in a form that is visible and that no terminal obeys."""
        if len(self.text) > 1 or self.text == "\n":
            return self.text
        if self.text < " ":
            return chr(_PICTURES + ord(self.text))
        # Controls, and marks that change the direction of what follows.
        return "\N{REPLACEMENT CHARACTER}" if _is_unseen(self.text) else self.text


def characters(text: bytes, log_prob_nats: Sequence[float]) -> Iterator[Character]:
    """Yield the characters of `text`; each byte has one log-probability."""
    start = 0
    for character in text.decode(errors="surrogateescape"):
        num_bytes = len(character.encode(errors="surrogateescape"))
        end = start + num_bytes
        is_stray = "\udc80" <= character <= "\udcff"
        shown = f"\\x{text[start]:02x}" if is_stray else character
        yield Character(shown, start, num_bytes, -sum(log_prob_nats[start:end]) / math.log(2))
        start = end


def _is_unseen(character: str) -> bool:
    return unicodedata.category(character) in ("Cc", "Cf") and character not in "\u200c\u200d"
