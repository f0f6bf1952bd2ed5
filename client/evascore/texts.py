"""What is to be scored, and its form in JSON."""

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evascore.errors import RequestInvalid


@dataclass(frozen=True, slots=True)
class Text:
    """One text to score, with what is asked of it; bytes need not be UTF-8."""

    text: str | bytes
    context: str | bytes | None = None
    """What precedes the text; conditions it, is not scored."""
    custom_id: str | None = None
    outputs: Sequence[str] | None = None
    """Besides the summary: `bytes`, `top_k`, `curvature`."""
    top_k: int | None = None
    """How many likeliest bytes the output `top_k` lists."""
    options: Mapping[str, Any] | None = None
    """Further fields of the API, as docs/api.md names them."""

    def fields(self) -> dict[str, Any]:
        """The JSON fields of this text."""
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
        """Bytes that the model reads for it."""
        return length_bytes(self.text) + length_bytes(self.context or b"")


def as_text(text: "str | bytes | Text", **asked: Any) -> Text:
    """A `Text` of what may be one already.

    Args:
        asked: fields of `Text` for one that has none of its own.
    """
    return text if isinstance(text, Text) else Text(text, **asked)


def named(name: str, text: str | bytes) -> dict[str, str]:
    """The field of a text: under its name, or as base64 where it is no Unicode.

    Raises:
        TypeError: it is no text.
    """
    _check_type(text)
    if isinstance(text, str):
        return {name: text}
    try:
        return {name: text.decode()}
    except UnicodeDecodeError:
        return {f"{name}_b64": base64.b64encode(text).decode("ascii")}


def length_bytes(text: str | bytes) -> int:
    """Bytes of a text in UTF-8.

    Raises:
        TypeError: it is no text.
    """
    _check_type(text)
    if not isinstance(text, str) or text.isascii():
        return len(text)
    return len(text.encode(errors="surrogatepass"))


def _check_type(text: object) -> None:
    if not isinstance(text, str | bytes | bytearray):
        raise TypeError(f"a text is str, bytes or evascore.Text, not {type(text).__name__}")


def encode(fields: Mapping[str, Any]) -> bytes:
    """JSON in UTF-8.

    Raises:
        RequestInvalid: a text holds half of a surrogate pair, which is no Unicode.
    """
    try:
        return json.dumps(fields, ensure_ascii=False, allow_nan=False, default=list).encode()
    except UnicodeEncodeError:
        # The error quotes the text.
        detail = "a text holds a lone surrogate, which is no Unicode; give its bytes instead"
        raise RequestInvalid({"type": RequestInvalid.code, "detail": detail}) from None
