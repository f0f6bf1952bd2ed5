"""Holds the KV cache of one layer: keys and values, one row per token or chunk summary."""

from typing import NamedTuple

import torch
from torch import Tensor


class KeysValues(NamedTuple):
    """Rotated keys and values, each [rows, H, D]."""

    keys: Tensor
    values: Tensor

    def followed_by(self, other: "KeysValues") -> "KeysValues":
        """Return these rows, then those of `other`; without a copy where one of them is empty."""
        if len(self.keys) == 0:
            return other
        if len(other.keys) == 0:
            return self
        return KeysValues(
            torch.cat((self.keys, other.keys)), torch.cat((self.values, other.values))
        )

    def take(self, rows: Tensor) -> "KeysValues":
        """Return a copy of `rows` [n] int64; it starts nothing on the device if there are none."""
        if len(rows) == 0:
            empty = (0, *self.keys.shape[1:])
            return KeysValues(self.keys.new_empty(empty), self.values.new_empty(empty))
        return KeysValues(self.keys.index_select(0, rows), self.values.index_select(0, rows))
