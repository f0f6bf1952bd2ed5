"""Defines the messages between an operation and the driver that runs it (sans-I/O).

An operation is a generator. It yields `Send` or `Pause`, gets an `Answer`, `Lost` or None, and
returns its result. It does no I/O and reads no clock of its own. So the synchronous and the
asynchronous client share it, and tests run it without waiting.
"""

import json
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from evascore.errors import UnexpectedAnswer

T = TypeVar("T")

Body = bytes | Callable[[], Iterator[bytes]]
"""The body to send: bytes, or a function that is called once for each attempt."""


@dataclass(frozen=True, slots=True)
class Send:
    """Asks the driver to send a request; its reply is an `Answer`, or `Lost`."""

    method: str
    path: str
    read_timeout_s: float
    params: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Body = b""


@dataclass(frozen=True, slots=True)
class Pause:
    """Asks the driver to sleep; its reply is None."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to a request, with any status."""

    status: int
    headers: Mapping[str, str]
    """Names are in lower case."""
    body: bytes

    @property
    def is_success(self) -> bool:
        """Whether the status is 2xx."""
        return 200 <= self.status < 300

    def json(self) -> dict[str, Any]:
        """Parse the body as a JSON object.

        Raises:
            UnexpectedAnswer: it is not a JSON object.
        """
        try:
            value = json.loads(self.body)
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, dict):
            raise UnexpectedAnswer(
                f"The answer (HTTP status {self.status}) is not a JSON object; is this the URL of"
                " an evascore service?"
            )
        return value


@dataclass(frozen=True, slots=True)
class Lost:
    """The request got no answer."""

    reason: str


Step = Send | Pause
Reply = Answer | Lost | None
Steps = Generator[Step, Reply, T]
