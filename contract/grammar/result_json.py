"""Encodes results as JSON; their longest lists go from arrays to JSON without a list in between.

The result of a text of 200 bytes with the output `top_k` holds more than a thousand lists. A worker
stores its JSON alone.
"""

from collections.abc import Callable
from typing import Any

import orjson


class LazyList:
    """Stands in a result for a list that is made only when it is asked for."""

    __slots__ = ("for_json", "make")

    def __init__(self, make: Callable[[], list[Any]], for_json: Callable[[], Any]) -> None:
        """Note how to get the items.

        Args:
            make: makes the list, the same each time.
            for_json: returns what orjson encodes like it: tuples, or a contiguous array of NumPy.
        """
        self.make, self.for_json = make, for_json


def dump_result(value: Any, option: int = 0) -> bytes:
    """Return the JSON of a result, or of what holds results; `option` as of `orjson.dumps`."""
    return orjson.dumps(value, default=_plain, option=option | orjson.OPT_SERIALIZE_NUMPY)


def _plain(value: Any) -> Any:
    if isinstance(value, LazyList):
        return value.for_json()
    raise TypeError(f"a result holds a value of type {type(value).__name__}")
