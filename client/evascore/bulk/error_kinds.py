"""Sums up the errors of result lines by kind."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from evascore.errors import described


@dataclass(slots=True)
class ErrorKind:
    """Errors that differ in numbers alone."""

    type: str
    """The code of the error."""
    detail: str
    """What is wrong with the first line of them, and where in it."""
    first_line: int
    """Number of that line, from 1."""
    first_custom_id: str | None = None
    """The `custom_id` of that line."""
    count: int = 0


class ErrorSummary:
    """The errors of all lines so far."""

    def __init__(self) -> None:
        """Start without errors."""
        self._kinds: dict[tuple[str, str], ErrorKind] = {}

    def add(self, line: bytes, index: int) -> None:
        """Count the error of a result line.

        Args:
            index: of the line among all results, from 0.
        """
        result = json.loads(line)
        error = result.get("error") or {}
        detail = detail_of(error)
        name = str(error.get("type", "")), re.sub(r"\d+", "0", detail)
        number = int(error.get("line", index + 1))
        first = ErrorKind(name[0], detail, number, result.get("custom_id"))
        kind = self._kinds.setdefault(name, first)
        kind.count += 1

    def kinds(self) -> list[ErrorKind]:
        """The kinds of errors, the most frequent first."""
        return sorted(self._kinds.values(), key=lambda kind: -kind.count)


def detail_of(error: Mapping[str, Any]) -> str:
    """What is wrong: the first of several errors with its place, or the whole message."""
    first = (error.get("errors") or [{}])[0]
    if "detail" not in first:
        return str(error.get("detail", "no detail"))
    return described(first, "line")
