"""Defines `Text`, a text to score with its options, and encodes it as JSON."""

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evascore.errors import RequestInvalid


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
        return length_bytes(self.text) + length_bytes(self.context or b"")


def as_text(text: "str | bytes | Text", **asked: Any) -> Text:
    """Return a `Text` as it is, or make one of a str or bytes.

    Args:
        asked: fields of the `Text` that is made.
    """
    return text if isinstance(text, Text) else Text(text, **asked)


def named(name: str, text: str | bytes) -> dict[str, str]:
    """The JSON field of a text: `name`, or `name` + `_b64` in base64 if it is not UTF-8.

    Raises:
        TypeError: it is neither str nor bytes.
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
        TypeError: it is neither str nor bytes.
    """
    _check_type(text)
    if not isinstance(text, str) or text.isascii():
        return len(text)
    return len(text.encode(errors="surrogatepass"))


def _check_type(text: object) -> None:
    if not isinstance(text, str | bytes | bytearray):
        raise TypeError(f"A text must be str, bytes or evascore.Text, not {type(text).__name__}.")


def encode(fields: Mapping[str, Any]) -> bytes:
    """Encode the fields as JSON in UTF-8.

    Raises:
        RequestInvalid: a text holds half of a surrogate pair, which is not valid Unicode.
    """
    try:
        return json.dumps(fields, ensure_ascii=False, allow_nan=False, default=list).encode()
    except UnicodeEncodeError:
        # The error quotes the text.
        detail = "A text holds half of a surrogate pair, which UTF-8 cannot encode; pass bytes."
        raise RequestInvalid({"type": RequestInvalid.code, "detail": detail}) from None
