"""Numbers as JSON Schema has them, in bodies and queries: 5.0 is a whole number, true is none."""

import re
from typing import Annotated, Any

from pydantic import BeforeValidator

# What every program can hold exactly, as RFC 7493 has it.
MAX_EXACT = 2**53 - 1
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_WHOLE = re.compile(r"[+-]?\d+", re.ASCII)


def whole(value: Any) -> Any:
    """A float without a fraction as the integer that it is; anything else as it is."""
    return int(value) if type(value) is float and value.is_integer() else value


def wholes(values: Any) -> Any:
    """Each of a list, which may be long, as `whole` gives it."""
    if isinstance(values, list) and float in set(map(type, values)):
        return list(map(whole, values))
    return values


# Behind the bounds of an int, for those are of what it becomes.
AsWhole = BeforeValidator(whole)
Whole = Annotated[int, AsWhole]


def parse_number(text: str) -> float:
    """The number that a query spells, perhaps infinity.

    Raises:
        ValueError
    """
    if not _NUMBER.fullmatch(text):
        raise ValueError("not a number")
    return float(text)


def parse_whole(text: str) -> int:
    """The whole number that a query spells.

    Raises:
        ValueError
    """
    if _WHOLE.fullmatch(text):
        return int(text)
    number = parse_number(text)
    if not number.is_integer():
        raise ValueError("not a whole number")
    return int(number)
