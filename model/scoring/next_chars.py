"""Finds the likeliest next characters after a text by a search over the tree of UTF-8.

A character is a Unicode scalar value in its one UTF-8 form (The Unicode Standard 16.0, table 3-7):
1 to 4 bytes. Its probability is the product of the model's probabilities of these bytes, each
given the text and the bytes before it. Every other id is invalid: a special id, or a byte that
cannot begin or continue a character. So are the beginnings of overlong forms, of surrogates and of
values above U+10FFFF.
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

# Beginnings of one text that are followed at a time. With more, many would be useless.
MAX_BEGINNINGS = 8

ASCII_BYTES, LEAD_BYTES = range(0x80), range(0xC2, 0xF5)
CONTINUATION_BYTES = range(0x80, 0xC0)
# Lead bytes after which only some continuation bytes are valid.
SECOND_BYTES = {
    0xE0: range(0xA0, 0xC0),
    0xED: range(0x80, 0xA0),
    0xF0: range(0x90, 0xC0),
    0xF4: range(0x80, 0x90),
}

Probabilities = NDArray[np.float64]


class CharacterSearch:
    """The search after one text.

    No character is likelier than its first bytes. So the search ends when every beginning that was
    not followed is less likely than the last character found.
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
        """Return the likeliest beginnings to follow next; none when the search is over."""
        while len(self._asked) < MAX_BEGINNINGS and self._is_promising():
            negative, beginning = heapq.heappop(self._beginnings)
            self._asked[beginning] = -negative
        return list(self._asked)

    def follow(self, beginning: bytes, next_ids: Probabilities) -> None:
        """Take the distribution [V] of the id after a beginning from `next_beginnings`."""
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
        """Return the result that `search_characters` describes."""
        characters = [[each.decode(), -negative] for negative, each in self._likeliest]
        listed = -sum(negative for negative, _ in self._likeliest)
        return {
            "characters": characters,
            "other": max(self._valid - listed, 0.0),
            "invalid": max(self._invalid, 0.0),
            "undecided": max(1 - self._valid - self._invalid, 0.0),
        }

    def _is_promising(self) -> bool:
        """Tell whether a character of the likeliest beginning may still be listed."""
        if len(self._likeliest) < self._num_characters:
            return bool(self._beginnings)
        return bool(self._beginnings) and self._beginnings[0] < self._likeliest[-1]

    def _keep_likeliest(self, characters: list[tuple[float, bytes]]) -> None:
        """Keep the likeliest; equally likely ones are in the order of their code points."""
        self._likeliest = heapq.nsmallest(self._num_characters, self._likeliest + characters)


def next_characters(
    reader: Reader,
    texts: Sequence[bytes],
    num_characters: Sequence[int],
    *,
    on_pass: Callable[[int], None],
) -> list[dict[str, Any]]:
    """Return for each text the result of `search_characters` after it; a text may be empty.

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
        # Else two sets of contexts would be in memory while the next one is read.
        del contexts
    return results


@torch.inference_mode()
def search_characters(
    reader: Reader,
    contexts: Contexts,
    num_characters: Sequence[int],
    *,
    on_pass: Callable[[int], None],
) -> list[dict[str, Any]]:
    """Return the likeliest next characters after each of `contexts`.

    * `characters`: as many as `num_characters` says for the text, as `[character, probability]`,
      likeliest first;
    * `other`: the probability of characters that the search saw and that are not listed;
    * `invalid`: the probability of invalid ids that the search saw;
    * `undecided`: the probability of beginnings that the search did not follow. They may be valid
      or not; none of their characters is likelier than those listed.

    The probabilities add up to 1. All texts are searched together, byte by byte. `on_pass` is
    called after each pass with the number of bytes that it read.

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
    """Return the distribution that each of `hidden` [N, channels] predicts: [N, V] float64."""
    logits = F.linear(hidden, reader.model.next_id_weight)
    probabilities = logits.double().softmax(dim=-1).cpu().numpy()
    if not np.isfinite(probabilities).all():
        raise ScoringFailed("the model's probabilities are not finite; check its weights")
    return probabilities


def _allowed_bytes(beginning: bytes) -> tuple[range, range]:
    """Return the bytes that end a character with this beginning, and those that continue it."""
    if not beginning:
        return ASCII_BYTES, LEAD_BYTES
    lead = beginning[0]
    num_bytes = 2 if lead < 0xE0 else 3 if lead < 0xF0 else 4
    is_second = len(beginning) == 1
    allowed = SECOND_BYTES.get(lead, CONTINUATION_BYTES) if is_second else CONTINUATION_BYTES
    return (allowed, range(0)) if len(beginning) == num_bytes - 1 else (range(0), allowed)


def _slice(values: range) -> slice:
    return slice(values.start, values.stop)
