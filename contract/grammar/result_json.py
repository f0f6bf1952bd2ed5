"""Encodes results as JSON, from the arrays of lazy lists instead of Python lists."""

from typing import Any

import orjson

from contract.grammar.lazy_list import LazyList


def dump_result(value: Any, option: int = 0) -> bytes:
    """Return the JSON of a result, or of what holds results; `option` as of `orjson.dumps`."""
    return orjson.dumps(value, default=_plain, option=option | orjson.OPT_SERIALIZE_NUMPY)


def _plain(value: Any) -> Any:
    if isinstance(value, LazyList):
        return value.for_json()
    raise TypeError(f"a result holds a value of type {type(value).__name__}")
