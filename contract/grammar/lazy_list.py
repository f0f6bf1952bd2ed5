"""Holds a list of a result that is made only on request; its JSON is encoded from an array.

The result of a text of 200 bytes with the output `top_k` holds more than a thousand lists. A worker
stores only the JSON of a result, so it makes none of them.
"""

from collections.abc import Callable
from typing import Any


class LazyList:
    """A list that is made only when it is asked for; `result_json.dump_result` encodes it."""

    __slots__ = ("for_json", "make")

    def __init__(self, make: Callable[[], list[Any]], for_json: Callable[[], Any]) -> None:
        """Note how to get the items.

        Args:
            make: makes the list, the same each time.
            for_json: returns what orjson encodes like it: tuples, or a contiguous array of NumPy.
        """
        self.make, self.for_json = make, for_json
