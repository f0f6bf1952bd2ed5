"""Groups many texts into few requests, and yields their outcomes one by one."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

from evascore.errors import EvascoreError
from evascore.results import Score
from evascore.texts import Text, as_text

Errors = Literal["raise", "return"]

# A group fits one micro-batch of the default size, so that it has the priority `interactive`.
GROUP_BYTES = 16_384
GROUP_TEXTS = 32


def groups(texts: Iterable[str | bytes | Text], asked: Mapping[str, Any]) -> Iterator[list[Text]]:
    """Yield consecutive texts in groups of bounded size; reads `texts` only as needed."""
    group: list[Text] = []
    num_bytes = 0
    for given in texts:
        text = as_text(given, **asked)
        if group and (num_bytes + text.num_bytes > GROUP_BYTES or len(group) == GROUP_TEXTS):
            yield group
            group, num_bytes = [], 0
        group.append(text)
        num_bytes += text.num_bytes
    if group:
        yield group


def told(outcomes: list[Score | EvascoreError], errors: Errors) -> Iterator[Score | EvascoreError]:
    """Yield the outcomes in order; with `errors="raise"`, raise the first error instead."""
    for outcome in outcomes:
        if errors == "raise" and isinstance(outcome, EvascoreError):
            raise outcome
        yield outcome
