"""Defines the messages between an operation and the driver that runs it (sans-I/O).

An operation is a generator. It yields `Send` or `Pause`, gets an `Answer`, `Lost` or None, and
returns its result. It does no I/O and reads no clock of its own. So the synchronous and the
asynchronous client share it, and tests run it without waiting.
"""

import json
import math
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from evascore.errors import UnexpectedAnswer

T = TypeVar("T")

REQUEST_ID = "x-request-id"
"""The header that names a request; the service sends it back."""

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
    limit_s: float = math.inf
    """Seconds that the whole request may take; a read timeout begins again with each byte."""


@dataclass(frozen=True, slots=True)
class Pause:
    """Asks the driver to sleep; its reply is None."""

    seconds: float
    reason: str = ""
    """Why a request is sent again after it; empty if none is."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to a request, with any status."""

    status: int
    headers: Mapping[str, str]
    """Names are in lower case."""
    body: bytes
    via: str = ""
    """Names the proxy that it came through; empty without one."""

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
            raise UnexpectedAnswer(f"{self.described()} is not a JSON object; {self.doubt()}")
        return value

    def described(self) -> str:
        """Its status and its way, as the subject of a sentence."""
        way = f" through {self.via}" if self.via else ""
        return f"The answer (HTTP status {self.status}{way})"

    def doubt(self) -> str:
        """What to check when it is not in evascore's form, as the rest of a sentence."""
        if 300 <= self.status < 400:
            return "it redirects: give the URL that it leads to, such as one with https."
        if self.via:
            return (
                "is this the URL of an evascore service? Or the proxy answered itself: then unset"
                " it, or except the service with NO_PROXY."
            )
        return "is this the URL of an evascore service?"


@dataclass(frozen=True, slots=True)
class Lost:
    """The request got no answer."""

    reason: str
    says_remedy: bool = False
    """Whether the reason says what to do."""


Step = Send | Pause
Reply = Answer | Lost | None
Steps = Generator[Step, Reply, T]
