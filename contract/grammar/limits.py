"""Defines the limits of a request and their defaults; the service's settings can change them."""

import sys
from dataclasses import dataclass
from typing import Protocol


class RequestLimits(Protocol):
    """Limits of one request; `contract.settings.Settings` provides them."""

    @property
    def max_text_bytes(self) -> int:
        """Longest text, with its context, that is read at once."""

    @property
    def max_windowed_bytes(self) -> int:
        """Longest text that is scored in sliding windows."""

    @property
    def max_continuations(self) -> int:
        """Most continuations of one context."""

    @property
    def max_body_bytes(self) -> int:
        """Longest JSON: a request body, or one line of many."""

    @property
    def max_job_bytes(self) -> int:
        """Most bytes that the model reads for one request."""

    @property
    def max_result_bytes(self) -> int:
        """Most bytes that the result of one request can take."""


@dataclass(frozen=True)
class FixedLimits:
    """Limits with the defaults of the service."""

    max_text_bytes: int = 32_767
    max_windowed_bytes: int = 1024**2
    max_continuations: int = 256
    max_body_bytes: int = 8 * 1024**2
    max_job_bytes: int = 16 * 1024**2
    max_result_bytes: int = 64 * 1024**2


DEFAULT_LIMITS = FixedLimits()
NO_LIMITS = FixedLimits(*[sys.maxsize] * 6)
