"""What is asked of one text."""

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from contract.grammar.vocabulary import VOCABULARY_SIZE
from model.errors import RequestInvalid
from model.scoring.next_chars import MAX_BYTES_READ_ON, MAX_CHARACTERS
from model.scoring.sliding_window import SlidingWindow, TextWindow, read_bytes
from model.scoring.spans import Spans, read_spans

# "summary" is always given.
OUTPUTS = ("summary", "bytes", "top_k", "curvature")
DEFAULT_TOP_K = 5
TEXT_FIELDS = ("text", "context", "continuation", "continuations")
FIELDS = frozenset(
    (
        *TEXT_FIELDS,
        *(f"{name}_b64" for name in TEXT_FIELDS),
        *("outputs", "top_k", "spans", "next_chars", "window", "custom_id"),
    )
)


@dataclass(frozen=True, slots=True)
class ScoreRequest:
    """One text to score, or continuations to score each given the same context."""

    text: bytes = b""
    context: bytes = b""
    continuations: tuple[bytes, ...] = ()
    outputs: frozenset[str] = frozenset()
    top_k: int = 0
    spans: Spans | None = None
    next_chars: int = 0  # how many likeliest characters after the text
    window: SlidingWindow | None = None
    # Those of the text's windows that are scored; all if none is named.
    part: tuple[TextWindow, ...] = ()

    @property
    def num_bytes(self) -> int:
        """The bytes that the model reads: a context once, a text in windows once per window.

        At least 1: for the next characters after the empty text it reads the beginning's mark.
        """
        if self.window is None:
            num_bytes = len(self.text) + len(self.context) + sum(map(len, self.continuations))
            return max(num_bytes, 1)
        return read_bytes(self.part or self.window.cut(len(self.text)))

    @property
    def scored(self) -> tuple[bytes, ...]:
        """The texts that get a result each."""
        return self.continuations or (self.text,)

    @classmethod
    def from_json(
        cls,
        fields: Mapping[str, Any],
        *,
        max_text_bytes: int | None = None,
        window_size: int | None = None,
    ) -> "ScoreRequest":
        """Return the request that `fields` describe; each text may come as `<name>_b64`.

        `max_text_bytes` and `window_size` are as in `check_limits`.

        Raises:
            RequestInvalid: a field is unknown, missing, of the wrong type or beyond its limit.
        """
        if not isinstance(fields, Mapping):
            raise RequestInvalid("invalid_field", "a request is a JSON object")
        for name in fields:
            if name not in FIELDS:
                raise _unknown_field(name)
        outputs, top_k = _outputs(fields)
        spans, next_chars, window = read_spans(fields), _next_chars(fields), _window(fields)
        texts = _texts(fields, may_be_empty=bool(next_chars))
        for name, value in (("window", window), ("next_chars", next_chars)):
            if value and "text" not in texts:
                message = f"{name} is for a text; leave it out with continuations"
                raise RequestInvalid("conflicting_fields", message, f"/{name}")
        if window and next_chars:
            message = "next_chars takes a text that is read at once; leave window out"
            raise RequestInvalid("conflicting_fields", message, "/next_chars")
        request = cls(
            **texts,
            outputs=outputs,
            top_k=top_k,
            spans=spans,
            next_chars=next_chars,
            window=window,
        )
        request.check_limits(max_text_bytes, window_size)
        return request

    def check_limits(self, max_text_bytes: int | None, window_size: int | None) -> None:
        """Refuse what the model cannot read at once; None means no limit.

        `max_text_bytes` is the longest text, or window of a text, or continuation with its
        context; `window_size`, the model's own, divides the stride of a window.

        Raises:
            RequestInvalid: with code `text_too_large`, or `invalid_field` for the window.
        """
        if self.window is not None:
            _check_window(self.window, max_text_bytes, window_size)
            return
        longest = max(map(len, (self.text, *self.continuations)))
        num_bytes = len(self.context) + longest
        if max_text_bytes is not None and self.next_chars:
            max_text_bytes -= MAX_BYTES_READ_ON
        if max_text_bytes is None or num_bytes <= max_text_bytes:
            return
        what = "context and continuation have" if self.continuations else "the text has"
        remedy = "split the text" if self.continuations else "split the text or give a window"
        raise RequestInvalid(
            "text_too_large",
            f"{what} {num_bytes:,} bytes; the limit is {max_text_bytes:,}, {remedy}",
            "/continuations" if self.continuations else "/text",
        )


def _next_chars(fields: Mapping[str, Any]) -> int:
    number = fields.get("next_chars")
    if number is None:
        return 0
    if type(number) is not int or not 1 <= number <= MAX_CHARACTERS:
        message = f"next_chars is not an integer from 1 to {MAX_CHARACTERS}"
        raise RequestInvalid("invalid_field", message, "/next_chars")
    return number


def _window(fields: Mapping[str, Any]) -> SlidingWindow | None:
    window = fields.get("window")
    if window is None:
        return None
    if not isinstance(window, Mapping) or set(window) != {"size", "stride"}:
        message = "window is an object of size and stride, in bytes"
        raise RequestInvalid("invalid_field", message, "/window")
    for name in ("size", "stride"):
        if type(window[name]) is not int or window[name] < 1:
            message = f"{name} is not a positive integer"
            raise RequestInvalid("invalid_field", message, f"/window/{name}")
    # Bytes between windows would have no score.
    return SlidingWindow(window["size"], min(window["stride"], window["size"]))


def _check_window(
    window: SlidingWindow, max_text_bytes: int | None, window_size: int | None
) -> None:
    if max_text_bytes is not None and window.size_bytes > max_text_bytes:
        message = f"size is {window.size_bytes:,}; the limit is {max_text_bytes:,}"
        raise RequestInvalid("invalid_field", message, "/window/size")
    if window_size is not None and window.stride_bytes % window_size:
        message = f"stride is {window.stride_bytes:,}, not a multiple of {window_size:,}"
        raise RequestInvalid("invalid_field", message, "/window/stride")


def _texts(fields: Mapping[str, Any], *, may_be_empty: bool) -> dict[str, Any]:
    """The texts among `fields`, under the names that `ScoreRequest` has for them."""
    text, context = _text(fields, "text"), _text(fields, "context")
    one, many = _text(fields, "continuation"), _text_list(fields, "continuations")
    num_given = sum(value is not None for value in (text, one, many))
    if num_given == 0:
        raise RequestInvalid("missing_text", "give text, or continuations and their context")
    if num_given > 1 or (text is not None and context is not None):
        raise RequestInvalid("conflicting_fields", "give either text or context and continuations")
    if text is not None:
        return {"text": text if may_be_empty else _not_empty(text, "/text")}
    if one is not None:
        return {"context": context or b"", "continuations": (_not_empty(one, "/continuation"),)}
    for number, continuation in enumerate(many or ()):
        _not_empty(continuation, f"/continuations/{number}")
    return {"context": context or b"", "continuations": many}


def _text(fields: Mapping[str, Any], name: str) -> bytes | None:
    """The bytes of the text `name`, given as Unicode or as base64; None where it is not given."""
    value, is_base64 = _plain_or_base64(fields, name)
    pointer = f"/{name}_b64" if is_base64 else f"/{name}"
    return None if value is None else _decode(value, pointer, is_base64=is_base64)


def _text_list(fields: Mapping[str, Any], name: str) -> tuple[bytes, ...] | None:
    """The bytes of each text of the list `name`; None where it is not given."""
    values, is_base64 = _plain_or_base64(fields, name)
    if values is None:
        return None
    pointer = f"/{name}_b64" if is_base64 else f"/{name}"
    if not isinstance(values, list) or not values:
        raise RequestInvalid("invalid_field", f"{pointer[1:]} is a list of at least one", pointer)
    return tuple(
        _decode(value, f"{pointer}/{number}", is_base64=is_base64)
        for number, value in enumerate(values)
    )


def _plain_or_base64(fields: Mapping[str, Any], name: str) -> tuple[Any, bool]:
    """The value of `name` or of `<name>_b64`, and whether it was the latter."""
    plain, encoded = fields.get(name), fields.get(f"{name}_b64")
    if plain is not None and encoded is not None:
        raise RequestInvalid("conflicting_fields", f"give either {name} or {name}_b64")
    return (plain, False) if encoded is None else (encoded, True)


def _decode(value: Any, pointer: str, *, is_base64: bool) -> bytes:
    if not isinstance(value, str):
        raise RequestInvalid("invalid_field", f"{pointer[1:]} is not a string", pointer)
    try:
        return base64.b64decode(value, validate=True) if is_base64 else value.encode()
    except UnicodeEncodeError:
        message = f"{pointer[1:]} holds a lone surrogate; send the bytes as base64 instead"
        raise RequestInvalid("invalid_unicode", message, pointer) from None
    except ValueError:
        message = f"{pointer[1:]} is not standard base64"
        raise RequestInvalid("invalid_base64", message, pointer) from None


def _not_empty(text: bytes, pointer: str) -> bytes:
    if not text:
        raise RequestInvalid("empty_text", f"{pointer[1:]} is empty; give at least 1 byte", pointer)
    return text


def _outputs(fields: Mapping[str, Any]) -> tuple[frozenset[str], int]:
    """The outputs asked for and the number of likeliest ids per byte."""
    names = fields.get("outputs")
    names = [] if names is None else names
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise RequestInvalid("invalid_field", "outputs is not a list of names", "/outputs")
    for number, name in enumerate(names):
        if name not in OUTPUTS:
            message = f"an output is unknown; known are {', '.join(OUTPUTS)}"
            raise RequestInvalid("unknown_output", message, f"/outputs/{number}")
    top_k = fields.get("top_k")
    if top_k is None:
        return frozenset(names), DEFAULT_TOP_K if "top_k" in names else 0
    if type(top_k) is not int or not 1 <= top_k <= VOCABULARY_SIZE:
        message = f"top_k is not an integer from 1 to {VOCABULARY_SIZE}"
        raise RequestInvalid("invalid_field", message, "/top_k")
    # The number alone asks for the output.
    return frozenset((*names, "top_k")), top_k


def _unknown_field(name: Any) -> RequestInvalid:
    """Points at the field only where its name can be no text of the sender's."""
    is_plain = isinstance(name, str) and re.fullmatch(r"[a-z0-9_]{1,32}", name)
    message = f"a field is unknown; known are {', '.join(sorted(FIELDS))}"
    return RequestInvalid("unknown_field", message, f"/{name}" if is_plain else "")
