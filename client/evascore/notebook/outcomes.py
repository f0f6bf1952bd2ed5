"""Makes a data frame of the outcomes of many texts: scores and errors."""

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from evascore.errors import EvascoreError, ServiceError
from evascore.notebook.frames import frame
from evascore.results import Line, Score

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


def to_frame(outcomes: Iterable[Score | EvascoreError | Line]) -> "pd.DataFrame":
    """Make a data frame with a row for each text, in order.

    Args:
        outcomes: what `score_many`, `Job.outcomes` or `batch_results` gives; errors count as rows,
            with their code in the column `error`.

    Raises:
        PandasMissing
    """
    return frame(map(_row, outcomes), (*_COLUMNS, "error"))


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
