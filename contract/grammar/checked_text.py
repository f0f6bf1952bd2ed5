"""Turns the fields of one text into a checked request, for the service and the command line."""

import base64
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple, Protocol

from contract.errors import BodyTooLarge, EmptyText, TextTooLarge
from contract.grammar.invalid import (
    MAX_ERRORS_SHOWN,
    invalid,
    invalid_fields,
    plain_name,
    unknown_field,
)
from contract.grammar.limits import RequestLimits
from contract.grammar.outputs import DEFAULT_TOP_K, MAX_BYTES_READ_ON, MAX_CUSTOM_ID_CHARS
from contract.grammar.result_size import result_bytes
from contract.grammar.text_request import REQUEST_OPTIONS, SlidingWindow, TextRequest
from contract.grammar.validation import validated

_REQUEST_FIELDS = set(TextRequest.model_fields)


class SharedOptions(Protocol):
    """Options of a request, which apply to each of its texts that names no outputs."""

    @property
    def outputs(self) -> Sequence[str] | None:
        """Names of outputs."""

    @property
    def top_k(self) -> int | None:
        """Likeliest bytes at each position."""


class Checked(NamedTuple):
    """One text, in the form that the worker and the model take."""

    request: dict[str, Any]
    num_bytes: int = 0
    """Bytes that the model reads for it."""
    result_bytes: int = 0
    """Most bytes that its result takes."""

    @property
    def work_bytes(self) -> int:
        """Bytes of work, as `contract.messages.Job` counts them."""
        return self.num_bytes + int(self.request.get("next_chars") or 0)


def check_text(
    fields: Mapping[str, Any], limits: RequestLimits, shared: SharedOptions | None = None
) -> Checked:
    """Check the fields of one text.

    Args:
        shared: outputs and top_k for a text that names no outputs.

    Raises:
        ClientError: the text must change.
    """
    check_fields(fields, TextRequest, "", limits.max_continuations)
    text = validated(fields, TextRequest)
    num_bytes = read_bytes(text, "", limits)
    check_job_bytes(num_bytes, limits)
    request = checked_request(text, shared)
    return Checked(request, num_bytes, check_result_bytes([request], limits))


def custom_id_of(fields: Mapping[str, Any]) -> str | None:
    """Return the `custom_id` if it is valid, else None; other fields may be wrong."""
    custom_id = fields.get("custom_id")
    is_valid = isinstance(custom_id, str) and 0 < len(custom_id) <= MAX_CUSTOM_ID_CHARS
    return custom_id if is_valid else None


def check_fields(
    fields: Mapping[str, Any], schema: type[TextRequest], at: str, max_continuations: int
) -> None:
    """Refuse unknown fields and too many continuations before each of them costs time.

    Args:
        at: RFC 6901 pointer to the object that has `fields`.

    Raises:
        RequestInvalid
    """
    unknown = [name for name in fields if name not in schema.model_fields]
    if unknown:
        raise invalid_fields(
            [
                {
                    "detail": _unknown_field(name, schema),
                    "pointer": f"{at}/{plain_name(name)}".rstrip("/"),
                }
                for name in unknown[:MAX_ERRORS_SHOWN]
            ]
        )
    for name in ("continuations", "continuations_b64"):
        value = fields.get(name)
        if isinstance(value, list) and len(value) > max_continuations:
            raise invalid(
                f"has {len(value)} continuations; the limit is {max_continuations}, "
                "send several requests",
                pointer=f"{at}/{name}",
            )


def _unknown_field(name: str, schema: type[TextRequest]) -> str:
    if name in REQUEST_OPTIONS:
        return "is an option of a whole request; leave it out of a single text"
    return unknown_field(name, schema.model_fields)


def checked_request(text: TextRequest, shared: SharedOptions | None = None) -> dict[str, Any]:
    """Return the text as the worker takes it, with the `shared` options if it names no outputs."""
    fields = text.model_dump(include=_REQUEST_FIELDS, exclude_none=True)
    if text.outputs is None and shared is not None:
        defaults = {"outputs": shared.outputs, "top_k": shared.top_k}
        given = {name: value for name, value in defaults.items() if value is not None}
        fields = {**given, **fields}
    outputs = fields.get("outputs", [])
    if "top_k" in outputs:
        fields.setdefault("top_k", DEFAULT_TOP_K)
    elif "top_k" in fields:
        fields["outputs"] = [*outputs, "top_k"]
    if fields.pop("span_unit", None) == "characters" and isinstance(fields.get("spans"), list):
        # In a form that a worker of an older release cannot take for ranges of bytes.
        fields["spans"] = {"unit": "characters", "ranges": fields["spans"]}
    return fields


def check_job_bytes(num_bytes: int, limits: RequestLimits) -> None:
    """Refuse a request for which the model would read more than one job may.

    Raises:
        BodyTooLarge
    """
    if num_bytes > limits.max_job_bytes:
        raise BodyTooLarge(
            f"The model would have to read {num_bytes} bytes; "
            f"the limit is {limits.max_job_bytes}. Send the texts in several requests.",
            limit_bytes=limits.max_job_bytes,
            actual_bytes=num_bytes,
        )


def check_result_bytes(requests: Sequence[Mapping[str, Any]], limits: RequestLimits) -> int:
    """Refuse requests whose result could be too large; return the most bytes that it takes.

    Raises:
        BodyTooLarge
    """
    num_bytes = sum(map(result_bytes, requests))
    if num_bytes > limits.max_result_bytes:
        raise BodyTooLarge(
            f"The result could take {num_bytes} bytes; the limit is {limits.max_result_bytes}. "
            "Ask for fewer outputs (top_k, bytes, spans), or send several requests.",
            limit_bytes=limits.max_result_bytes,
            actual_bytes=num_bytes,
        )
    return num_bytes


def read_bytes(request: TextRequest, at: str, limits: RequestLimits) -> int:
    """Count the bytes that the model reads for one text, a context once; check each length.

    Args:
        at: RFC 6901 pointer to the text's object.

    Raises:
        RequestInvalid, EmptyText, TextTooLarge
    """
    if request.window is not None and request.window.size > limits.max_text_bytes:
        limit = f"must be at most {limits.max_text_bytes} (max_text_bytes)"
        raise invalid(limit, pointer=f"{at}/window/size")
    context_bytes = sum(length for _, length in _lengths(request, ("context",), at))
    num_bytes = context_bytes
    for place, length in _lengths(request, ("text", "continuation", "continuations"), at):
        if not length and request.next_chars is None:
            raise EmptyText(
                "There is nothing to score; give at least one byte.",
                errors=[{"detail": "is empty", "pointer": place}],
            )
        _check_length(request, context_bytes + length, place, limits)
        num_bytes += length
    if request.window is not None:
        return _windowed_bytes(num_bytes, request.window)
    # For what follows the empty text the model reads the begin-of-text id.
    return max(num_bytes, 1)


def _check_length(request: TextRequest, num_bytes: int, place: str, limits: RequestLimits) -> None:
    limit_bytes, remedy = limits.max_text_bytes, "Split it"
    if request.window is not None:
        limit_bytes = limits.max_windowed_bytes
        remedy = f"Split it into pieces of at most {limit_bytes} bytes"
    elif request.next_chars is not None:
        limit_bytes, remedy = limit_bytes - MAX_BYTES_READ_ON, "Send only its end"
    elif request.text is not None or request.text_b64 is not None:
        remedy = _remedy_by_window(num_bytes, limits)
    if num_bytes > limit_bytes:
        raise TextTooLarge(
            f"The text (with its context) has {num_bytes} bytes; the limit is {limit_bytes}. "
            f"{remedy}.",
            limit_bytes=limit_bytes,
            actual_bytes=num_bytes,
            errors=[{"detail": "is too large", "pointer": place}],
        )


def _remedy_by_window(num_bytes: int, limits: RequestLimits) -> str:
    """Say how to score a text that is too long for one pass."""
    if num_bytes <= limits.max_windowed_bytes:
        return "Split it, or give a window"
    if limits.max_windowed_bytes <= limits.max_text_bytes:
        return "Split it"
    return f"Split it into pieces of at most {limits.max_windowed_bytes} bytes, each with a window"


def _windowed_bytes(num_bytes: int, window: SlidingWindow) -> int:
    """Count the bytes read in windows: each whole but for the last, which ends with the text."""
    stride = min(window.stride, window.size)
    further = -(-max(num_bytes - window.size, 0) // stride)
    return further * window.size + num_bytes - further * stride


def _lengths(request: TextRequest, names: Iterable[str], at: str) -> Iterator[tuple[str, int]]:
    """Yield the pointer and the length in bytes of each text under `names`, in either form."""
    for name in names:
        for field, count in ((name, _utf8_bytes), (f"{name}_b64", _base64_bytes)):
            value, place = getattr(request, field), f"{at}/{field}"
            if isinstance(value, str):
                yield place, count(value, place)
            for number, text in enumerate(value if isinstance(value, list) else ()):
                yield f"{place}/{number}", count(text, f"{place}/{number}")


def _utf8_bytes(text: str, place: str) -> int:
    try:
        return len(text) if text.isascii() else len(text.encode())
    except UnicodeEncodeError:
        raise invalid(
            "holds a lone surrogate, which is no character; send such bytes as base64",
            pointer=place,
        ) from None


def _base64_bytes(text: str, place: str) -> int:
    # Python takes any padding behind whole groups of four.
    if len(text) % 4 == 0 and not text.endswith("==="):
        # `binascii.Error` is a ValueError.
        with suppress(ValueError):
            return len(base64.b64decode(text, validate=True))
    raise invalid("is not base64; use the standard alphabet, with padding", pointer=place)
