"""Makes data frames of pandas from rows, characters and spans; imports pandas when one is made."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from evascore.characters import Character
from evascore.errors import EvascoreError

if TYPE_CHECKING:
    import pandas as pd

_CHARACTER_COLUMNS = ("start", "num_bytes", "bits", "bits_per_byte")
_SPAN_COLUMNS = ("start", "end", "num_bytes", "log_likelihood_nats", "bits_per_byte")


class PandasMissing(EvascoreError, ImportError):
    """pandas is not installed."""


class Stretch(Protocol):
    """The score of a stretch of a text, such as a `Span`."""

    @property
    def start(self) -> int:
        """Its first byte."""

    @property
    def end(self) -> int:
        """The byte after its last one."""


def frame(rows: Iterable[dict[str, Any]], columns: Sequence[str]) -> "pd.DataFrame":
    """Make a data frame of rows.

    Raises:
        PandasMissing
    """
    try:
        import pandas as pd
    except ImportError:
        raise PandasMissing(
            "A data frame needs pandas; install it with: pip install 'evascore[notebook]'"
        ) from None
    return pd.DataFrame(list(rows), columns=list(columns))


def characters_to_frame(found: Iterable[Character]) -> "pd.DataFrame":
    """Make a data frame with a row for each character."""
    rows = ({"character": each.text, **_values(each, _CHARACTER_COLUMNS)} for each in found)
    return frame(rows, ("character", *_CHARACTER_COLUMNS))


def spans_to_frame(spans: Iterable[Stretch], text: bytes | None) -> "pd.DataFrame":
    """Make a data frame with a row for each span, with its text if that is known."""
    if text is None:
        return frame((_values(each, _SPAN_COLUMNS) for each in spans), _SPAN_COLUMNS)
    rows = ({**_values(each, _SPAN_COLUMNS), "text": _text_of(each, text)} for each in spans)
    return frame(rows, (*_SPAN_COLUMNS, "text"))


def _values(row: Any, columns: Sequence[str]) -> dict[str, Any]:
    return {name: getattr(row, name) for name in columns}


def _text_of(span: Stretch, text: bytes) -> str:
    return text[span.start : span.end].decode(errors="replace")
