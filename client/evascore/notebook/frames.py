"""Makes data frames of pandas from results; pandas is imported when one is made."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from evascore.characters import Character
from evascore.errors import EvascoreError, ServiceError
from evascore.results import Line, Score, Span

if TYPE_CHECKING:
    import pandas as pd

# The places between the words of the name of a class.
_CAPITAL = re.compile(r"(?<=[a-z])(?=[A-Z])")
# One value for each text.
_COLUMNS = (
    "custom_id",
    "num_bytes",
    "num_chars",
    "log_likelihood_nats",
    "bits_per_byte",
    "byte_perplexity",
    "is_greedy",
    "curvature",
)


class PandasMissing(EvascoreError, ImportError):
    """pandas is not installed."""


def to_frame(outcomes: Iterable[Score | EvascoreError | Line]) -> "pd.DataFrame":
    """Make a data frame with a row for each text, in order.

    Args:
        outcomes: what `score_many`, `Job.outcomes` or `batch_results` gives; errors count as rows,
            with their code in the column `error`.

    Raises:
        PandasMissing
    """
    return _frame(map(_row, outcomes), [*_COLUMNS, "error"])


def characters_to_frame(found: Iterable[Character]) -> "pd.DataFrame":
    """Make a data frame with a row for each character."""
    names = ["character", "start", "num_bytes", "bits", "bits_per_byte"]
    rows = ((each.text, *(getattr(each, name) for name in names[1:])) for each in found)
    return _frame((dict(zip(names, row, strict=True)) for row in rows), names)


def spans_to_frame(spans: Iterable[Span], text: bytes | None) -> "pd.DataFrame":
    """Make a data frame with a row for each span, with its text if that is known."""
    names = [field.name for field in fields(Span) if field.name != "raw"]
    rows = (_span_row(span, names, text) for span in spans)
    return _frame(rows, names if text is None else [*names, "text"])


def _span_row(span: Span, names: list[str], text: bytes | None) -> dict[str, Any]:
    row = {name: getattr(span, name) for name in names}
    if text is not None:
        row["text"] = text[span.start : span.end].decode(errors="replace")
    return row


def _row(outcome: Score | EvascoreError | Line) -> dict[str, Any]:
    if isinstance(outcome, Line):
        return {**_row(outcome.outcome), "custom_id": outcome.custom_id}
    if isinstance(outcome, ServiceError):
        return {"error": outcome.type}
    if isinstance(outcome, EvascoreError):
        return {"error": _code(outcome)}
    return {name: getattr(outcome, name) for name in _COLUMNS}


def _code(error: EvascoreError) -> str:
    """The code of an error of the client itself: the name of its class, as `not_text`."""
    return _CAPITAL.sub("_", type(error).__name__).lower()


def _frame(rows: Iterator[dict[str, Any]], columns: list[str]) -> "pd.DataFrame":
    try:
        import pandas as pd
    except ImportError:
        raise PandasMissing(
            "A data frame needs pandas; install it with: pip install 'evascore[notebook]'"
        ) from None
    return pd.DataFrame(list(rows), columns=columns)
