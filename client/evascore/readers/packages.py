"""Refuses input that cannot be read, and imports the packages of the extras."""

import importlib
from typing import Any

from evascore.errors import EvascoreError


class InputRefused(EvascoreError):
    """A file cannot be read or used; the message says why and what to do."""


def package(name: str, extra: str, why: str) -> Any:
    """Import a package that the core of the client does not need.

    Args:
        extra: of this client, that requires the package.
        why: what needs it, as the beginning of a sentence.

    Raises:
        InputRefused: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError:
        raise InputRefused(
            f"{why}, which needs the package {name.partition('.')[0]}; install it with"
            f" pip install 'evascore[{extra}]', or from a checkout './client[{extra}]'."
        ) from None
