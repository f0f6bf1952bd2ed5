"""Holds lists of results whose items are made at first use.

The result of a text of 200 bytes with the output `top_k` holds more than a thousand lists. A worker
only stores its JSON, which `result_json.dump_result` makes without them.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any

_NOT_YET = object()
# Methods of `list` that need no items.
_NOT_OF_ITEMS = {"__new__", "__init__", "__getattribute__", "__class_getitem__"}


def _filled_first(late_list: type[Any]) -> type[Any]:
    """Have every method of `list` that `late_list` inherits make the items first."""
    for name, method in vars(list).items():
        if callable(method) and name not in _NOT_OF_ITEMS:
            setattr(late_list, name, _after_filling(method))
    return late_list


def _after_filling(method: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(method)
    def call(self: "LateList", *arguments: Any, **options: Any) -> Any:
        self._fill()
        return method(self, *arguments, **options)

    return call


@_filled_first
class LateList(list[Any]):
    """A list that makes its items when one of its methods is first called.

    From then on it is a list like any other. What reads the memory of a list without its methods,
    such as `orjson.dumps`, finds an object without a JSON form before that: it fails, where an
    empty list would be a wrong answer. `result_json.dump_result` encodes it.
    """

    __slots__ = ("_for_json", "_make")

    def __init__(self, make: Callable[[], list[Any]], for_json: Callable[[], Any]) -> None:
        """Note how to get the items.

        Args:
            make: makes them, the same each time.
            for_json: returns what orjson encodes like them: a sequence, or an array of NumPy that
                is contiguous.
        """
        list.__init__(self, (_NOT_YET,))
        self._make: Callable[[], list[Any]] | None = make
        self._for_json = for_json

    def for_json(self) -> Any:
        """Return something that orjson encodes as this list; it makes no items."""
        return self[:] if self._make is None else self._for_json()

    def plain(self) -> list[Any]:
        """Return a plain list of the items, and keep none of them."""
        return self[:] if self._make is None else self._make()

    def __radd__(self, other: list[Any]) -> list[Any]:
        """Return `other + self`: `list.__add__` reads the memory of what it adds."""
        return other + self[:]

    def __reduce__(self) -> Any:
        """Copies and pickles are plain lists."""
        return list, (self[:],)

    def _fill(self) -> None:
        if self._make is not None:
            list.__setitem__(self, slice(None), self._make())
            self._make = None
