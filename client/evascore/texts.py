"""Defines `Text`, a text to score with its options, and encodes it as JSON."""

import base64
import json
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, SupportsIndex, TypeVar

from evascore.errors import NotText, RequestInvalid, placed

_Made = TypeVar("_Made")


@dataclass(frozen=True, slots=True)
class Text:
    """One text to score, with its options; bytes need not be UTF-8."""

    text: str | bytes
    context: str | bytes | None = None
    """Text before the scored text; the model reads it, but it is not scored."""
    custom_id: str | None = None
    outputs: Sequence[str] | None = None
    """Results besides the summary: `bytes`, `top_k`, `curvature`."""
    top_k: int | None = None
    """Number of likeliest bytes that the output `top_k` lists at each position."""
    options: Mapping[str, Any] | None = None
    """Further fields of a request, named as in docs/api.md."""

    def fields(self) -> dict[str, Any]:
        """The fields of this text in JSON."""
        scored = "text" if self.context is None else "continuation"
        fields: dict[str, Any] = dict(named(scored, self.text))
        if self.context is not None:
            fields |= named("context", self.context)
        asked: dict[str, Any] = {
            "custom_id": self.custom_id,
            "outputs": self.outputs,
            "top_k": self.top_k,
        }
        fields |= {name: value for name, value in asked.items() if value is not None}
        return {**fields, **(self.options or {})}

    @property
    def num_bytes(self) -> int:
        """Bytes that the model reads for this text, its context included."""
        return length_bytes(self.text) + length_bytes(b"" if self.context is None else self.context)


def as_text(text: "str | bytes | Text", **asked: Any) -> Text:
    """Return a `Text` as it is, or make one of a str or bytes.

    Args:
        asked: fields of the `Text` that is made.
    """
    return text if isinstance(text, Text) else Text(text, **asked)


def named(name: str, text: str | bytes) -> dict[str, str]:
    """The JSON field of a text: `name`, or `name` + `_b64` in base64 if it is not UTF-8.

    Raises:
        NotText: it is neither str nor bytes.
    """
    _check_type(text)
    if isinstance(text, str):
        return {name: text}
    try:
        return {name: text.decode()}
    except UnicodeDecodeError:
        return {f"{name}_b64": base64.b64encode(text).decode("ascii")}


def length_bytes(text: str | bytes) -> int:
    """Number of bytes of a text in UTF-8.

    Raises:
        NotText: it is neither str nor bytes.
    """
    _check_type(text)
    if not isinstance(text, str) or text.isascii():
        return len(text)
    return len(text.encode(errors="surrogatepass"))


def checked(text: "str | bytes | Text") -> Text:
    """Return what is given as a `Text`.

    Raises:
        NotText: it, or its context, is no text.
    """
    made = as_text(text)
    _check_type(made.text)
    _check_type(b"" if made.context is None else made.context)
    return made


def _check_type(text: object) -> None:
    if not isinstance(text, str | bytes | bytearray):
        raise NotText(f"A text must be str, bytes or evascore.Text, not {type(text).__name__}.")


def listed(texts: Iterable[Any], what: str) -> Iterable[Any]:
    """Return several texts; a single one would be taken for the list of its characters.

    Args:
        what: names the argument in the message.

    Raises:
        TypeError: it is one text, a mapping or a table, whose items are names, or no iterable.
    """
    if isinstance(texts, str | bytes | bytearray | Text):
        raise TypeError(f"{what} must be a list of texts, not one {type(texts).__name__}.")
    # pandas, polars and pyarrow have columns; datasets of Hugging Face have column_names.
    if isinstance(texts, Mapping) or hasattr(texts, "columns") or hasattr(texts, "column_names"):
        kind = type(texts).__name__
        raise TypeError(f"{what} must be a list of texts, not a {kind}; give one column of it.")
    if not isinstance(texts, Iterable) and not hasattr(texts, "__getitem__"):
        raise TypeError(f"{what} must be a list of texts, not {type(texts).__name__}.")
    return texts


def each(texts: Iterable[Any], name: str, make: Callable[[Any], _Made]) -> Iterator[_Made]:
    """Make something of each text.

    Args:
        name: of the argument that holds the texts; an error names its text by this and its index.

    Raises:
        NotText, RequestInvalid: as `make` does.
    """
    for index, text in enumerate(texts):
        try:
            yield make(text)
        except (NotText, RequestInvalid) as error:
            raise placed(error, f"{name}[{index}]") from None


def encode(fields: Mapping[str, Any]) -> bytes:
    """Encode the fields as JSON in UTF-8; numbers and arrays of numpy as those of Python.

    Raises:
        RequestInvalid: a text holds half of a surrogate pair, which is not valid Unicode, or an
            option is not a JSON value.
    """
    try:
        return json.dumps(fields, ensure_ascii=False, allow_nan=False, default=_plain).encode()
    except UnicodeEncodeError:
        # The error quotes the text.
        detail = "A text holds half of a surrogate pair, which UTF-8 cannot encode; pass bytes."
    except (TypeError, ValueError):
        detail = "An option is not a JSON value: NaN, infinity, or an object of another type."
    raise RequestInvalid({"type": RequestInvalid.code, "detail": detail})


def _plain(value: Any) -> Any:
    """The JSON value of an object that json does not know, such as an integer of numpy.

    Raises:
        TypeError: it has none.
    """
    # Booleans, numbers and arrays of numpy, torch and others.
    if callable(convert := getattr(value, "tolist", None)):
        return convert()
    return operator.index(value) if isinstance(value, SupportsIndex) else list(value)
