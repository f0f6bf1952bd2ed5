"""Compares what the service answered with what was sent, so that no mix-up is silent.

Answers get mixed up where two processes share a connection, or where a proxy errs. Each request has
an ID that comes back. A proxy may replace it, so the contents are compared, too.
"""

import re
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from evascore.errors import UnexpectedAnswer
from evascore.operations.steps import REQUEST_ID, Answer
from evascore.texts import length_bytes

_OUR_ID = re.compile(r"evascore-[0-9a-f]{24}")
_SCORED = ("text", "continuation", "continuations")
_INDEX = re.compile(rb'\{"index":\s*(\d+)')


def new_request_id() -> str:
    """A random ID for one request."""
    return f"evascore-{secrets.token_hex(12)}"


def check_request_id(answer: Answer, sent: str) -> None:
    """Check that an answer does not carry the ID of another request.

    Raises:
        UnexpectedAnswer: it does.
    """
    reply = answer.headers.get(REQUEST_ID, "")
    if reply != sent and _OUR_ID.fullmatch(reply):
        raise _mixed_up(f"it is for request {reply}, and {sent} was sent")


def check_id(reply: Mapping[str, Any], asked: str) -> None:
    """Check that a job or a batch is the one that was asked for.

    Raises:
        UnexpectedAnswer: it is another one.
    """
    if reply.get("id") != asked:
        raise _mixed_up("its ID is not the one that was asked for")


def check_job(reply: Mapping[str, Any], fields: Mapping[str, Any]) -> None:
    """Check that a job has the texts that were sent, and its result their scores.

    Args:
        reply: the job as the service sent it.
        fields: the JSON fields of the request.

    Raises:
        UnexpectedAnswer: it is that of other texts.
    """
    items = fields.get("items")
    parts = [fields] if items is None else list(items)
    _check("num_texts", reply.get("num_texts"), len(parts), is_optional=True)
    scored_lengths = [_lengths(part, _SCORED) for part in parts]
    if not any(part.get("window") for part in parts):
        # For what follows the empty text the model reads the begin-of-text id.
        num_bytes = sum(
            max(sum(_lengths(part, ("context",))) + sum(lengths), 1)
            for part, lengths in zip(parts, scored_lengths, strict=True)
        )
        _check("num_bytes", reply.get("num_bytes"), num_bytes, is_optional=True)
    if reply.get("state") == "SUCCESS":
        _check_result(reply.get("result"), parts, scored_lengths, is_list=items is not None)


def check_batch(reply: Mapping[str, Any], num_lines: int | None) -> None:
    """Check that a batch has as many lines as were sent; None: they were not counted.

    Raises:
        UnexpectedAnswer: it has another number of lines.
    """
    if num_lines is not None:
        _check("number of lines", (reply.get("request_counts") or {}).get("total"), num_lines)


def check_lines(lines: Sequence[bytes], first: int) -> None:
    """Check that lines of results are the next ones, without a gap.

    Args:
        first: index of the first line.

    Raises:
        UnexpectedAnswer: they are others.
    """
    for index, line in enumerate(lines, first):
        found = _INDEX.match(line)
        _check("index", None if found is None else int(found[1]), index)


def _check_result(
    result: Any,
    parts: Sequence[Mapping[str, Any]],
    scored_lengths: Sequence[Sequence[int]],
    *,
    is_list: bool,
) -> None:
    """Check the result of a job.

    Args:
        parts: the fields of each text that was sent.
        scored_lengths: bytes of the scored texts of each part.
        is_list: whether the texts were sent as `items`.
    """
    if not isinstance(result, Mapping):
        raise _mixed_up("it has no result")
    if not is_list:
        _check_score(result, parts[0], scored_lengths[0])
        return
    reply = result.get("items") or []
    _check("number of items", len(reply), len(parts))
    for item, sent, lengths in zip(reply, parts, scored_lengths, strict=True):
        _check("custom_id", item.get("custom_id"), sent.get("custom_id"))
        if item.get("result") is not None:
            _check_score(item["result"], sent, lengths)


def _check_score(
    result: Mapping[str, Any], sent: Mapping[str, Any], lengths: Sequence[int]
) -> None:
    """Check the score of one text, or those of all continuations of one context.

    Args:
        lengths: bytes of each scored text.
    """
    if any(name.startswith("continuation") for name in sent):
        reply = [part.get("num_bytes") for part in result.get("continuations") or []]
        _check("number of continuations", len(reply), len(lengths))
    else:
        reply = [result.get("num_bytes")]
    for found, expected in zip(reply, lengths, strict=True):
        _check("num_bytes", found, expected)


def _lengths(sent: Mapping[str, Any], names: Sequence[str]) -> list[int]:
    """Bytes of each text in these fields, whether they are given as Unicode or as base64."""
    lengths: list[int] = []
    for name in names:
        for text in _listed(sent.get(name)):
            lengths.append(length_bytes(text))
        for encoded in _listed(sent.get(f"{name}_b64")):
            lengths.append(_base64_bytes(encoded))
    return lengths


def _base64_bytes(encoded: str) -> int:
    """Number of bytes that valid base64 holds.

    The service refuses anything but the standard alphabet with padding, so an answer to other
    strings belongs to another request.
    """
    return len(encoded.rstrip("=")) * 3 // 4


def _listed(value: Any) -> Sequence[Any]:
    if value is None:
        return ()
    return (value,) if isinstance(value, str | bytes) else value


def _check(name: str, found: Any, expected: Any, *, is_optional: bool = False) -> None:
    if found != expected and not (is_optional and found is None):
        # The message holds neither value: a custom_id is the caller's.
        raise _mixed_up(f"its {name} is not that of what was sent")


def _mixed_up(how: str) -> UnexpectedAnswer:
    return UnexpectedAnswer(
        f"The answer belongs to another request: {how}. Two processes may share a connection, or a"
        " proxy mixes up answers."
    )
