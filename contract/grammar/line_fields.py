"""Reads what a line asks for: our own fields, a row of a corpus, or a line of an OpenAI batch.

The service, `python -m model score` and the files of OpenAI's Batch API read lines with it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from contract.errors import RequestInvalid, ServiceError
from contract.grammar.checked_text import Checked, SharedOptions, check_text, custom_id_of
from contract.grammar.completion_request import (
    CompletionBody,
    Prompt,
    encoded,
    prompts_of,
    texts_to_score,
    without_prompts,
)
from contract.grammar.invalid import invalid
from contract.grammar.limits import RequestLimits
from contract.grammar.outputs import MAX_CUSTOM_ID_CHARS
from contract.grammar.validation import validated

_OPENAI_FIELDS = ("custom_id", "method", "url", "body")
COMPLETIONS_URL = "/v1/completions"
_API_PATH = "/v1/"
DEFAULT_TEXT_FIELD, DEFAULT_ID_FIELD = "text", "custom_id"
_COLUMNS_HINT = (
    "; for lines with columns of your own, name the one of the text: text_field "
    "(--text-field in evascore bulk)"
)


@dataclass(frozen=True, slots=True)
class Columns:
    """Which columns of a row are read; without names, a line has the fields of a text."""

    text_field: str | None = None
    id_field: str | None = None

    @property
    def are_named(self) -> bool:
        """Whether lines are rows of a corpus, whose other columns are ignored."""
        return self.text_field is not None or self.id_field is not None


NO_COLUMNS = Columns()


def id_of_line(fields: Mapping[str, Any], columns: Columns = NO_COLUMNS) -> str | None:
    """Return the ID of a line if it is valid, else None; other fields may be wrong."""
    if not columns.are_named:
        return custom_id_of(fields)
    value = fields.get(columns.id_field or DEFAULT_ID_FIELD)
    return custom_id_of({"custom_id": str(value) if type(value) is int else value})


def check_line(
    fields: Mapping[str, Any],
    limits: RequestLimits,
    shared: SharedOptions | None = None,
    columns: Columns = NO_COLUMNS,
) -> Checked:
    """Check the fields of a line.

    Args:
        shared: outputs and top_k for a line that names no outputs.

    Raises:
        ClientError: the line must change.
    """
    if columns.are_named:
        return check_text(_of_row(fields, columns), limits, shared)
    if is_openai_line(fields):
        return check_text(_of_openai(fields, limits), limits, shared)
    try:
        return check_text(fields, limits, shared)
    except RequestInvalid as error:
        raise _with_hint(error) from None


def is_openai_line(fields: Mapping[str, Any]) -> bool:
    """Whether a line has the form of OpenAI's Batch API.

    Rows of news and of Reddit have a `url` and a `body`, too: an address and a text.
    """
    if "body" not in fields or "url" not in fields:
        return False
    is_path = str(fields["url"]).startswith(_API_PATH)
    return is_path or isinstance(fields["body"], dict)


def read_openai_line(
    fields: Mapping[str, Any], limits: RequestLimits
) -> tuple[CompletionBody, Prompt]:
    """Read a line of OpenAI's Batch API, which holds one completion request with one prompt.

    Returns: the request without its prompt, and the prompt.

    Raises:
        ClientError: the line must change.
    """
    for name in fields:
        if name not in _OPENAI_FIELDS:
            raise invalid("is not a field of a line of an OpenAI batch", pointer="")
    if fields["url"] != COMPLETIONS_URL:
        raise invalid(f"must be {COMPLETIONS_URL}; evascore scores prompts", pointer="/url")
    if fields.get("method", "POST") != "POST":
        raise invalid("must be POST", pointer="/method")
    given = fields["body"]
    if not isinstance(given, dict):
        raise invalid("must be an object", pointer="/body")
    try:
        body = validated(given, CompletionBody)
        prompts = prompts_of(body, max_items=1, max_text_bytes=limits.max_text_bytes)
    except ServiceError as error:
        raise _inside(error, "/body") from None
    return without_prompts(body), prompts[0]


def completion_of_line(fields: Mapping[str, Any], limits: RequestLimits) -> Checked:
    """Check a line of OpenAI's Batch API whose answer will be a completion.

    Raises:
        ClientError: the line must change.
    """
    missing = [name for name in ("url", "body", "custom_id") if fields.get(name) is None]
    if missing:
        raise invalid(
            'is missing; a line is {"custom_id": ..., "method": "POST", '
            f'"url": "{COMPLETIONS_URL}", "body": {{...}}}}',
            pointer=f"/{missing[0]}",
        )
    body, prompt = read_openai_line(fields, limits)
    (request,) = texts_to_score(body, [prompt])
    return check_text({"custom_id": fields["custom_id"], **request}, limits)


def _of_openai(fields: Mapping[str, Any], limits: RequestLimits) -> dict[str, Any]:
    """Return the text to score of a line of an OpenAI batch, which gets a score as its result."""
    body, prompt = read_openai_line(fields, limits)
    if body.max_tokens:
        raise invalid(
            "must be 0: this batch gives scores; POST /v1/batches and /v1/completions continue "
            "prompts",
            pointer="/body/max_tokens",
        )
    request: dict[str, Any] = {"text_b64": encoded(prompt.text)}
    if body.logprobs is not None:
        request["outputs"] = ["bytes"]
    if body.logprobs:
        request["top_k"] = body.logprobs
    return {"custom_id": fields.get("custom_id"), **request}


def _of_row(fields: Mapping[str, Any], columns: Columns) -> dict[str, Any]:
    """Return the text and the ID of a row of a corpus."""
    name = columns.text_field or DEFAULT_TEXT_FIELD
    text = fields.get(name)
    if not isinstance(text, str):
        what = "must be a string" if name in fields else "is missing"
        raise invalid(f"{what}; it is the column of the text (text_field)", pointer=f"/{name}")
    row: dict[str, Any] = {"text": text}
    id_field = columns.id_field or DEFAULT_ID_FIELD
    custom_id = id_of_line(fields, columns)
    if custom_id is None and (columns.id_field is not None or fields.get(id_field) is not None):
        raise invalid(
            f"must be an integer or a string of 1 to {MAX_CUSTOM_ID_CHARS} characters; it is "
            "the column of the ID (id_field)",
            pointer=f"/{id_field}",
        )
    return row if custom_id is None else {"custom_id": custom_id, **row}


def _with_hint(error: RequestInvalid) -> RequestInvalid:
    """Add to the first error of an unknown field how rows with other columns are scored."""
    errors = [dict(each) for each in error.details.get("errors", ())]
    for each in errors:
        if each["detail"].startswith("is not a known field"):
            each["detail"] += _COLUMNS_HINT
            break
    return RequestInvalid(error.message, **{**error.details, "errors": errors})


def _inside(error: ServiceError, place: str) -> ServiceError:
    """Return the error of an inner object with pointers from the whole line."""
    errors = [
        {**each, "pointer": place + each.get("pointer", "")}
        for each in error.details.get("errors", ())
    ]
    return type(error)(error.message, **{**error.details, "errors": errors})
