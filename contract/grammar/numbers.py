"""Reads numbers as JSON Schema defines them: 5.0 is an integer, true is no number."""

import re
from typing import Annotated, Any

from pydantic import BeforeValidator

# The largest integer that every JSON parser holds exactly (RFC 7493, section 2.2).
MAX_EXACT = 2**53 - 1
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_WHOLE = re.compile(r"[+-]?\d+", re.ASCII)


def whole(value: Any) -> Any:
    """Return a float without a fraction as an integer, and anything else unchanged."""
    return int(value) if type(value) is float and value.is_integer() else value


def wholes(values: Any) -> Any:
    """Apply `whole` to each value of a list, which may be long."""
    if isinstance(values, list) and float in set(map(type, values)):
        return list(map(whole, values))
    return values


# Stands after `Field`, whose bounds are those of the integer.
AsWhole = BeforeValidator(whole)
Whole = Annotated[int, AsWhole]


def parse_number(text: str) -> float:
    """Parse a number in a query; it may be infinite.

    Raises:
        ValueError
    """
    if not _NUMBER.fullmatch(text):
        raise ValueError("not a number")
    return float(text)


def parse_whole(text: str) -> int:
    """Parse an integer in a query.

    Raises:
        ValueError
    """
    if _WHOLE.fullmatch(text):
        return int(text)
    number = parse_number(text)
    if not number.is_integer():
        raise ValueError("not a whole number")
    return int(number)
