"""Implements an order-5 byte n-gram model with Witten-Bell smoothing, to compare with.

Source: Witten and Bell (1991), "The zero-frequency problem", in the interpolated form of Chen and
Goodman (1998), section 2.6, over the 256 bytes:

    P_n(b | h) = (count(h b) + followers(h) * P_{n-1}(b | h')) / (count(h) + followers(h))

where h' drops h's first byte, followers(h) counts the distinct bytes seen after h, and P_{-1} is
uniform. For an unseen h, P_n is P_{n-1}.
"""

import numpy as np

ORDER = 5
# Bounds the memory of counting: 8 bytes of keys per byte of text, twice.
_COUNTING_PIECE_BYTES = 16_000_000


class ByteNgram:
    """Counts of all byte strings of 1 to `order` + 1 bytes in a text."""

    def __init__(self, text: np.ndarray, order: int = ORDER) -> None:
        """Count. text: [N] uint8; order: number of preceding bytes read, at most 6."""
        self.order = order
        self._grams = [_count(text, length) for length in range(1, order + 2)]
        self._contexts = [_contexts(keys, counts) for keys, counts in self._grams]

    def probabilities(self, text: np.ndarray) -> np.ndarray:
        """Return the probability of each byte given those before it: [N] float64."""
        result = np.full(len(text), 1 / 256)
        for length, (grams, contexts) in enumerate(
            zip(self._grams, self._contexts, strict=True), start=1
        ):
            keys = _keys(text, length)
            if not len(keys):
                break
            count = _look_up(*grams, keys)
            context_keys, totals, followers = contexts
            total = _look_up(context_keys, totals, keys >> 8)
            num_followers = _look_up(context_keys, followers, keys >> 8)
            lower = result[length - 1 :]
            is_seen = total > 0
            mixed = (count + num_followers * lower) / np.maximum(total + num_followers, 1)
            result[length - 1 :] = np.where(is_seen, mixed, lower)
        return result

    def bits_per_byte(self, text: np.ndarray) -> float:
        """Return the mean of -log2 P over text: [N] uint8."""
        return float(-np.log2(self.probabilities(text)).mean())


def _keys(text: np.ndarray, length: int) -> np.ndarray:
    """Return all strings of `length` bytes in text as numbers, big-endian: [N - length + 1]."""
    num_keys = max(0, len(text) - length + 1)
    keys = np.zeros(num_keys, dtype=np.int64)
    for offset in range(length):
        keys = (keys << 8) | text[offset : offset + num_keys]
    return keys


def _count(text: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the distinct strings of `length` bytes, sorted, and how often each occurs."""
    keys = np.zeros(0, dtype=np.int64)
    counts = np.zeros(0, dtype=np.int64)
    for start in range(0, len(text), _COUNTING_PIECE_BYTES):
        piece = text[start : start + _COUNTING_PIECE_BYTES + length - 1]
        new_keys, new_counts = np.unique(_keys(piece, length), return_counts=True)
        keys, inverse = np.unique(np.concatenate([keys, new_keys]), return_inverse=True)
        counts = np.bincount(inverse, weights=np.concatenate([counts, new_counts]))
    return keys, counts.astype(np.int64)


def _contexts(keys: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the distinct strings before the last byte, their counts and numbers of followers."""
    contexts, starts = np.unique(keys >> 8, return_index=True)
    totals = np.add.reduceat(counts, starts) if len(starts) else counts
    return contexts, totals, np.diff(np.append(starts, len(keys)))


def _look_up(sorted_keys: np.ndarray, values: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """Return the value of each key, 0 where there is none."""
    if not len(sorted_keys):
        return np.zeros(len(keys), dtype=np.int64)
    places = np.minimum(np.searchsorted(sorted_keys, keys), len(sorted_keys) - 1)
    return np.where(sorted_keys[places] == keys, values[places], 0)
