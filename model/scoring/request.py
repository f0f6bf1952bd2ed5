"""Holds a request to score one text, and checks it against the limits of the model."""

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from contract.errors import TextTooLarge
from contract.grammar.invalid import invalid
from contract.grammar.outputs import MAX_BYTES_READ_ON
from model.scoring.sliding_window import SlidingWindow, TextWindow
from model.scoring.spans import CharacterRanges, Spans


@dataclass(frozen=True, slots=True)
class ScoreRequest:
    """One text to score, or several continuations of one context."""

    text: bytes = b""
    context: bytes = b""
    continuations: tuple[bytes, ...] = ()
    outputs: frozenset[str] = frozenset()
    top_k: int = 0
    spans: Spans | None = None
    next_chars: int = 0  # number of likeliest characters to predict after the text
    window: SlidingWindow | None = None

    @property
    def num_bytes(self) -> int:
        """The bytes that the model reads: a context once, and each window of a text.

        The search for a next character costs about as much as a byte. For characters after the
        empty text, the model reads BOS.
        """
        if self.window is None:
            num_bytes = len(self.text) + len(self.context) + sum(map(len, self.continuations))
            return max(num_bytes, 1) + (self.next_chars or 0)
        return sum(window.num_bytes for window in self.windows)

    @property
    def windows(self) -> list[TextWindow]:
        """The windows that the text is cut into; none unless `window` is set."""
        return self.window.cut(len(self.text)) if self.window else []

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
        """Make a request from `fields` that `contract.grammar.checked_text` has checked.

        Args:
            fields: `Checked.request`; each text may come as `<name>_b64`.
            max_text_bytes, window_size: limits of the model, as in `check_limits`.

        Raises:
            ClientError: the request is beyond the model's limits.
        """
        one, window = _text(fields, "continuation"), fields.get("window")
        request = cls(
            text=_text(fields, "text") or b"",
            context=_text(fields, "context") or b"",
            continuations=_texts(fields, "continuations") if one is None else (one,),
            outputs=frozenset(fields.get("outputs") or ()),
            top_k=fields.get("top_k") or 0,
            spans=_spans(fields.get("spans")),
            next_chars=fields.get("next_chars") or 0,
            # Bytes between windows would have no score.
            window=window and SlidingWindow(window["size"], min(window["stride"], window["size"])),
        )
        request.check_limits(max_text_bytes, window_size)
        return request

    def check_limits(self, max_text_bytes: int | None, window_size: int | None) -> None:
        """Refuse what the model cannot read at once; None means no limit.

        `max_text_bytes` is the longest text, window of a text, or context with continuation. The
        stride of a window must be a multiple of `window_size`, the model's attention window.

        Raises:
            TextTooLarge; RequestInvalid for the window.
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
        what = "Context and continuation have" if self.continuations else "The text has"
        remedy = "Split the text, or give a window."
        if self.continuations:
            remedy = "Shorten the context, or split the continuation."
        if self.next_chars:
            remedy = "Send only its end."
        pointer = "/continuations" if self.continuations else "/text"
        raise TextTooLarge(
            f"{what} {num_bytes:,} bytes; the limit is {max_text_bytes:,}. {remedy}",
            limit_bytes=max_text_bytes,
            actual_bytes=num_bytes,
            errors=[{"detail": "is too large", "pointer": pointer}],
        )


def _check_window(
    window: SlidingWindow, max_text_bytes: int | None, window_size: int | None
) -> None:
    if max_text_bytes is not None and window.size_bytes > max_text_bytes:
        raise invalid(f"must be at most {max_text_bytes}", pointer="/window/size")
    if window_size is not None and window.stride_bytes % window_size:
        detail = f"must be, like a smaller size, a multiple of the model's window, {window_size}"
        raise invalid(detail, pointer="/window/stride")


def _spans(given: Any) -> Spans | None:
    """Return the name of a unit as it is, and ranges of bytes or characters as such."""
    if isinstance(given, dict):
        return CharacterRanges(tuple((start, end) for start, end in given["ranges"]))
    return tuple((start, end) for start, end in given) if isinstance(given, list) else given


def _text(fields: Mapping[str, Any], name: str) -> bytes | None:
    """Return the bytes of the text `name`, given as Unicode or as base64; None if not given."""
    plain, encoded = fields.get(name), fields.get(f"{name}_b64")
    if plain is not None:
        return str(plain).encode()
    return None if encoded is None else base64.b64decode(encoded)


def _texts(fields: Mapping[str, Any], name: str) -> tuple[bytes, ...]:
    """Return the bytes of each text in the list `name`, given as Unicode or as base64."""
    plain, encoded = fields.get(name), fields.get(f"{name}_b64")
    if plain is not None:
        return tuple(text.encode() for text in plain)
    return tuple(map(base64.b64decode, encoded or ()))
