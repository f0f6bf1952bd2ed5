"""Bounds the size of a result from its request, before anything is scored.

The bound is of the result's JSON, by the longest form of each number. A worker's Python objects
take up to four times as much while it scores.
"""

import base64
from collections.abc import Mapping
from typing import Any

from contract.grammar.outputs import OUTPUTS, SUMMARY

_SPAN = 160
_NEXT_CHARACTER = 64
# What surrounds the result: the model, times, or the error in its place.
_ENVELOPE = 448
# JSON escapes a character in at most 6 bytes. Twice that, because a custom_id may be random:
# promises of room count on results that compress to half.
_CUSTOM_ID_CHARACTER = 12
_SCORED = ("text", "continuation", "continuations")


def result_bytes(fields: Mapping[str, Any]) -> int:
    """Return the most bytes of JSON that the result of a checked request takes.

    Args:
        fields: a request as `checked_text.check_text` returns it.
    """
    top_k, names = fields.get("top_k", 0), {SUMMARY.name, *fields.get("outputs", ())}
    outputs = [output for output in OUTPUTS if output.name in names]
    texts = [text for name in _SCORED for text in _texts(fields, name)]
    num_bytes = _ENVELOPE + sum(
        output.json_bytes(length, top_k) for length in map(_num_bytes, texts) for output in outputs
    )
    num_bytes += _CUSTOM_ID_CHARACTER * len(fields.get("custom_id", ""))
    num_bytes += _NEXT_CHARACTER * fields.get("next_chars", 0)
    spans = fields.get("spans")
    ranges = spans["ranges"] if isinstance(spans, dict) else spans
    if isinstance(ranges, list):
        num_bytes += _SPAN * len(ranges) * len(texts)
    elif spans:
        num_bytes += _SPAN * sum(_num_spans(spans, text) for text in texts)
    if window := fields.get("window"):
        stride = min(window["stride"], window["size"])
        num_bytes += _SPAN * (1 + sum(map(_num_bytes, texts)) // stride)
    return num_bytes


def _texts(fields: Mapping[str, Any], name: str) -> list[str | bytes]:
    """The texts under a name, given as Unicode or as base64."""
    plain, encoded = _as_list(fields.get(name)), _as_list(fields.get(f"{name}_b64"))
    return [*plain, *map(base64.b64decode, encoded)]


def _as_list(value: str | list[str] | None) -> list[str]:
    if value is None:
        return []
    return [value] if isinstance(value, str) else value


def _num_bytes(text: str | bytes) -> int:
    return len(text) if isinstance(text, bytes) or text.isascii() else len(text.encode())


def _num_spans(unit: str, text: str | bytes) -> int:
    """Return at least the number of spans that `model.scoring.spans` finds in a text."""
    characters = text.decode(errors="surrogateescape") if isinstance(text, bytes) else text
    if unit == "characters":
        return len(characters)
    return 1 + (len(characters.split()) if unit == "words" else characters.count("\n"))
