"""The likeliest next characters after a text, by search over the tree of UTF-8.

A character is a Unicode scalar value in its one UTF-8 form (The Unicode Standard 16.0, table 3-7):
1 to 4 bytes. Its probability is the product of the model's probabilities of these bytes, each
given the text and the bytes before it. An id that no such form has in its place is invalid: a
special id, a byte that cannot begin or continue a character, and so every beginning of an
overlong form, of a surrogate or of what lies beyond U+10FFFF.
"""

import heapq
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the name by which everyone knows it
from numpy.typing import NDArray
from torch import Tensor

from contract.grammar.vocabulary import NUM_SPECIAL_IDS
from model.errors import ScoringFailed
from model.scoring.forward import Contexts, Reader, cut_into_passes

# Beginnings of one text that are followed at a time: with more, many would be followed in vain.
MAX_BEGINNINGS = 8

ASCII_BYTES, LEAD_BYTES = range(0x80), range(0xC2, 0xF5)
CONTINUATION_BYTES = range(0x80, 0xC0)
# What may follow a lead byte where not every continuation byte may.
SECOND_BYTES = {
    0xE0: range(0xA0, 0xC0),
    0xED: range(0x80, 0xA0),
    0xF0: range(0x90, 0xC0),
    0xF4: range(0x80, 0x90),
}

Probabilities = NDArray[np.float64]


class CharacterSearch:
    """The search after one text.

    No character is likelier than its first bytes. So the likeliest are found once none of the
    beginnings that were not followed is likelier than the last of them.
    """

    def __init__(self, num_characters: int, next_ids: Probabilities) -> None:
        """Look for `num_characters`, 1 to `MAX_NEXT_CHARS`; `next_ids` [V] follow the text."""
        self._num_characters = num_characters
        self._likeliest: list[tuple[float, bytes]] = []  # (-probability, character), in order
        self._beginnings: list[tuple[float, bytes]] = []  # (-probability, beginning), a heap
        self._asked = {b"": 1.0}
        self._valid = self._invalid = 0.0
        self.follow(b"", next_ids)

    def next_beginnings(self) -> list[bytes]:
        """Return the likeliest beginnings that have to be followed; none when all is found."""
        while len(self._asked) < MAX_BEGINNINGS and self._is_promising():
            negative, beginning = heapq.heappop(self._beginnings)
            self._asked[beginning] = -negative
        return list(self._asked)

    def follow(self, beginning: bytes, next_ids: Probabilities) -> None:
        """Take the distribution [V] of what follows a beginning that was asked for."""
        masses = self._asked.pop(beginning) * next_ids
        of_bytes = masses[NUM_SPECIAL_IDS:]
        ending, continuing = _allowed_bytes(beginning)
        ended, continued = of_bytes[_slice(ending)], of_bytes[_slice(continuing)]
        self._valid += float(ended.sum())
        self._invalid += float(masses.sum() - ended.sum() - continued.sum())
        self._keep_likeliest(
            [
                (-mass, beginning + bytes([b]))
                for b, mass in zip(ending, ended.tolist(), strict=True)
            ]
        )
        for byte, mass in zip(continuing, continued.tolist(), strict=True):
            heapq.heappush(self._beginnings, (-mass, beginning + bytes([byte])))

    def as_json(self) -> dict[str, Any]:
        """Return what was found, as `search_characters` describes it."""
        characters = [[each.decode(), -negative] for negative, each in self._likeliest]
        listed = -sum(negative for negative, _ in self._likeliest)
        return {
            "characters": characters,
            "other": max(self._valid - listed, 0.0),
            "invalid": max(self._invalid, 0.0),
            "undecided": max(1 - self._valid - self._invalid, 0.0),
        }

    def _is_promising(self) -> bool:
        """Whether the likeliest beginning may hold a character to be listed."""
        if len(self._likeliest) < self._num_characters:
            return bool(self._beginnings)
        return bool(self._beginnings) and self._beginnings[0] < self._likeliest[-1]

    def _keep_likeliest(self, characters: list[tuple[float, bytes]]) -> None:
        """Equal ones are listed by code point, which is the order of their bytes."""
        self._likeliest = heapq.nsmallest(self._num_characters, self._likeliest + characters)


def next_characters(
    reader: Reader,
    texts: Sequence[bytes],
    num_characters: Sequence[int],
    *,
    on_pass: Callable[[int], None],
) -> list[dict[str, Any]]:
    """Return of each text, which may be empty, what `search_characters` finds after it.

    Raises:
        ScoringFailed: a probability is not finite.
    """
    results: list[dict[str, Any]] = [{} for _ in texts]
    for numbers in reader.cut_to_continue([len(text) + 1 for text in texts]):
        read = [texts[number] for number in numbers]
        contexts = reader.read_contexts(read)
        on_pass(sum(map(len, read)))
        wanted = [num_characters[number] for number in numbers]
        found = search_characters(reader, contexts, wanted, on_pass=on_pass)
        for number, result in zip(numbers, found, strict=True):
            results[number] = result
    return results


@torch.inference_mode()
def search_characters(
    reader: Reader,
    contexts: Contexts,
    num_characters: Sequence[int],
    *,
    on_pass: Callable[[int], None],
) -> list[dict[str, Any]]:
    """Return of each of `contexts` what its next character may be.

    * `characters`: the likeliest, as many as `num_characters` says of the text, as
      `[character, probability]`, likeliest first;
    * `other`: the probability of characters that the search saw but that are not listed;
    * `invalid`: the probability of ids that it saw to be invalid in their place;
    * `undecided`: the probability of beginnings that it had no need to follow. What they hold is
      valid or not; no character among them is likelier than those listed.

    Together they are 1. All texts are searched at once, level by level; `on_pass` is told after
    each pass how many bytes it read.

    Raises:
        ScoringFailed: a probability is not finite.
    """
    firsts = _distributions(reader, contexts.last_hidden)
    searches = [
        CharacterSearch(number, next_ids)
        for number, next_ids in zip(num_characters, firsts, strict=True)
    ]
    while asked := [
        (number, beginning)
        for number, search in enumerate(searches)
        for beginning in search.next_beginnings()
    ]:
        for places in cut_into_passes(
            [len(beginning) for _, beginning in asked], reader.pass_bytes
        ):
            numbers, beginnings = zip(*(asked[place] for place in places), strict=True)
            hidden = reader.read_on(contexts, np.array(numbers), beginnings)
            last = np.cumsum([len(beginning) for beginning in beginnings]) - 1
            following = _distributions(reader, hidden[torch.from_numpy(last).to(hidden.device)])
            for number, beginning, next_ids in zip(numbers, beginnings, following, strict=True):
                searches[number].follow(beginning, next_ids)
            on_pass(len(hidden))
    return [search.as_json() for search in searches]


def _distributions(reader: Reader, hidden: Tensor) -> Probabilities:
    """Return what each of `hidden` [N, channels] predicts: [N, V] float64."""
    logits = F.linear(hidden, reader.model.next_id_weight)
    probabilities = logits.double().softmax(dim=-1).cpu().numpy()
    if not np.isfinite(probabilities).all():
        raise ScoringFailed("the model's probabilities are not finite; check its weights")
    return probabilities


def _allowed_bytes(beginning: bytes) -> tuple[range, range]:
    """Return which bytes end a character that begins so, and which continue it."""
    if not beginning:
        return ASCII_BYTES, LEAD_BYTES
    lead = beginning[0]
    num_bytes = 2 if lead < 0xE0 else 3 if lead < 0xF0 else 4
    is_second = len(beginning) == 1
    allowed = SECOND_BYTES.get(lead, CONTINUATION_BYTES) if is_second else CONTINUATION_BYTES
    return (allowed, range(0)) if len(beginning) == num_bytes - 1 else (range(0), allowed)


def _slice(values: range) -> slice:
    return slice(values.start, values.stop)
