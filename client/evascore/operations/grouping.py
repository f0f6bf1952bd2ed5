"""Groups many texts into few requests, and yields their outcomes one by one."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Literal, TypeVar, get_args

from evascore.errors import EvascoreError, ModelError, NotText, placed
from evascore.operations.api import CAUSED_BY_ONE_TEXT
from evascore.results import Score
from evascore.texts import Text, as_text

Errors = Literal["raise", "return"]
_Thing = TypeVar("_Thing")

# Other errors are those of a whole request, or of the connection.
_OF_A_TEXT = (NotText, ModelError, *CAUSED_BY_ONE_TEXT)
# A group fits one micro-batch of the default size, so that it has the priority `interactive`.
GROUP_BYTES = 16_384
GROUP_TEXTS = 32


Group = list[Text | NotText]
"""Texts of one request; the error `NotText` stands in the place of a value that is not a text."""


def groups(texts: Iterable[str | bytes | Text], asked: Mapping[str, Any]) -> Iterator[Group]:
    """Yield consecutive texts in groups of bounded size; reads `texts` only as needed."""
    measured = (_measured(as_text(given, **asked)) for given in texts)
    for group in grouped(measured, lambda pair: pair[1], GROUP_BYTES, GROUP_TEXTS):
        yield [text for text, _ in group]


def grouped(
    things: Iterable[_Thing],
    num_bytes_of: Callable[[_Thing], int],
    max_bytes: int,
    max_things: int,
) -> Iterator[list[_Thing]]:
    """Yield consecutive things in groups of at most so many bytes and things.

    One that has more bytes is alone. Each is read only as needed.
    """
    group: list[_Thing] = []
    group_bytes = 0
    for thing in things:
        num_bytes = num_bytes_of(thing)
        if group and (group_bytes + num_bytes > max_bytes or len(group) == max_things):
            yield group
            group, group_bytes = [], 0
        group.append(thing)
        group_bytes += num_bytes
    if group:
        yield group


def _measured(text: Text) -> tuple[Text | NotText, int]:
    """A text and its size in bytes; the error and 0 if it is not a text."""
    try:
        return text, text.num_bytes
    except NotText as error:
        return error, 0


def check_errors(errors: str) -> None:
    """Check the option `errors`.

    Raises:
        ValueError: it is neither raise nor return.
    """
    if errors not in get_args(Errors):
        raise ValueError(f"errors is {errors!r}; it must be one of {', '.join(get_args(Errors))}")


def yielded(
    outcomes: list[Score | EvascoreError], errors: Errors, first: int
) -> Iterator[Score | EvascoreError]:
    """Yield the outcomes in order; with `errors="raise"`, raise the first error instead.

    Args:
        first: index of the first of these texts among all.
    """
    for index, outcome in enumerate(outcomes, first):
        if errors == "raise" and isinstance(outcome, EvascoreError):
            # All texts of a job that failed as a whole have the same error.
            is_of_a_text = isinstance(outcome, _OF_A_TEXT) and outcomes.count(outcome) == 1
            raise placed(outcome, f"texts[{index}]") if is_of_a_text else outcome
        yield outcome
