"""What an operation asks of the driver that runs it, and what it is told.

An operation is a generator: it yields `Send` or `Pause`, is sent an `Answer`, `Lost` or None, and
returns its result. It does no I/O and reads no clock of its own, so one operation serves the
synchronous and the asynchronous client, and its tests run in no time.
"""

import json
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from evascore.errors import UnexpectedAnswer

T = TypeVar("T")

Body = bytes | Callable[[], Iterator[bytes]]
"""What is sent: bytes, or a function that begins to read it anew, once for each attempt."""


@dataclass(frozen=True, slots=True)
class Send:
    """Send this request and tell its `Answer`, or `Lost`."""

    method: str
    path: str
    read_timeout_s: float
    params: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Body = b""


@dataclass(frozen=True, slots=True)
class Pause:
    """Do nothing for this long."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back: any status."""

    status: int
    headers: Mapping[str, str]
    """By names in small letters."""
    body: bytes

    @property
    def is_success(self) -> bool:
        """Whether the status is one of 2xx."""
        return 200 <= self.status < 300

    def json(self) -> dict[str, Any]:
        """The body as a JSON object.

        Raises:
            UnexpectedAnswer: it is none.
        """
        try:
            value = json.loads(self.body)
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, dict):
            raise UnexpectedAnswer(
                f"the answer (status {self.status}) is no JSON object; is this evascore's URL?"
            )
        return value


@dataclass(frozen=True, slots=True)
class Lost:
    """No answer came."""

    reason: str


Step = Send | Pause
Reply = Answer | Lost | None
Steps = Generator[Step, Reply, T]
