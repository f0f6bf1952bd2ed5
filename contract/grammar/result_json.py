"""Encodes results as JSON, with lists whose items are not made yet."""

from typing import Any

import orjson

from contract.grammar.late_list import LateList

_OPTIONS = orjson.OPT_PASSTHROUGH_SUBCLASS | orjson.OPT_SERIALIZE_NUMPY


def dump_result(value: Any, option: int = 0) -> bytes:
    """Return the JSON of a result, or of what holds results; `option` as of `orjson.dumps`."""
    return orjson.dumps(value, default=_plain, option=option | _OPTIONS)


def _plain(value: Any) -> Any:
    if isinstance(value, LateList):
        return value.for_json()
    raise TypeError(f"a result holds a value of type {type(value).__name__}")
