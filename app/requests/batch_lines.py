"""From the lines of an upload to the parts of a batch: each line checked, each part one budget."""

import time
from collections.abc import Iterable, Iterator
from typing import Any

import orjson
from pydantic import ValidationError

from app.requests.body import parse_json, parse_json_array
from app.requests.intake import Checked, to_request
from app.requests.invalid import invalid, invalid_fields
from app.requests.models import MAX_CUSTOM_ID_CHARS, BatchOptions
from app.requests.query import Query, parse_options
from app.requests.upload_stream import Line
from contract import keys
from contract.batches import REFUSED, Part
from contract.errors import BodyTooLarge, ClientError, RequestInvalid
from contract.messages import Job, error_body
from contract.settings import Settings

BATCH_OPTIONS = tuple(BatchOptions.model_fields)


def read_options(query: Query, settings: Settings) -> BatchOptions:
    """What the query asks for all lines.

    Raises:
        RequestInvalid
    """
    try:
        options = BatchOptions.model_validate(parse_options(query, BATCH_OPTIONS))
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False, include_context=False)
        raise invalid_fields(
            [{"detail": e["msg"], "parameter": str(e["loc"][0])} for e in found]
        ) from None
    if (options.deadline_s or 0) > settings.batch_deadline_s:
        raise invalid(f"at most {settings.batch_deadline_s:g} seconds", parameter="deadline_s")
    return options


def lines_of_array(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The elements of a JSON array, one per line.

    Raises:
        MalformedBody, RequestInvalid
    """
    for element in parse_json_array(b"".join(pieces)):
        yield orjson.dumps(element, option=orjson.OPT_APPEND_NEWLINE)


class PartCutter:
    """Checks lines and gathers them into parts of up to one batch's budget, results included."""

    def __init__(
        self, options: BatchOptions, settings: Settings, *, deadline_at: float, request_id: str
    ) -> None:
        self.num_lines = 0
        self.num_bytes = 0
        """Of all lines that were gathered: those that are not blank, and what the model reads."""
        self.result_bytes = 0
        """What the results of all lines seen take at most."""
        self._options = options
        self._settings = settings
        self._deadline_at = deadline_at
        self._request_id = request_id
        self._requests: list[dict[str, Any]] = []
        self._part_bytes = self._part_result_bytes = 0

    def parts(self, lines: Iterable[Line]) -> Iterator[tuple[Part, Job]]:
        """The parts in which `lines` are scored, each as soon as it is full.

        Raises:
            RequestInvalid: a line is bad and `on_error` is `fail`.
        """
        settings = self._settings
        for line in lines:
            checked = self._checked(line)
            if (
                len(self._requests) >= settings.batch_texts
                or self._part_bytes + checked.num_bytes > settings.batch_bytes
                or self._part_result_bytes + checked.result_bytes > settings.max_result_bytes
            ):
                yield from self._cut()
            self._requests.append(checked.request)
            self._part_bytes += checked.num_bytes
            self._part_result_bytes += checked.result_bytes
            self.result_bytes += checked.result_bytes
        yield from self._cut()

    def _cut(self) -> Iterator[tuple[Part, Job]]:
        if not self._requests:
            return
        part = Part(self.num_lines, len(self._requests), self._part_bytes)
        job = Job(
            requests=self._requests,
            num_bytes=self._part_bytes,
            submitted_at=time.time(),
            deadline_at=self._deadline_at,
            is_single=False,
            priority=keys.BULK,
            request_id=self._request_id,
        )
        self.num_lines += part.num_lines
        self.num_bytes += part.num_bytes
        self._requests, self._part_bytes, self._part_result_bytes = [], 0, 0
        yield part, job

    def _checked(self, line: Line) -> Checked:
        fields: dict[str, Any] = {}
        try:
            fields = _parse(line, self._settings.max_body_bytes)
            return to_request(fields, self._options, self._settings)
        except ClientError as error:
            if self._options.on_error == "fail":
                raise _refusal(line, error) from None
            return Checked(_refused(line, fields.get("custom_id"), error))


def _parse(line: Line, max_line_bytes: int) -> dict[str, Any]:
    if line.content is None:
        raise BodyTooLarge(
            f"The line is over {max_line_bytes} bytes; split it.", limit_bytes=max_line_bytes
        )
    return parse_json(line.content, "line")


def _refusal(line: Line, error: ClientError) -> RequestInvalid:
    """The error of an upload that one bad line refuses as a whole."""
    told = error.details.get("errors") or [{"detail": error.message, "pointer": ""}]
    return RequestInvalid(
        f"Line {line.number} cannot be scored, so no line was accepted: {error.message}",
        **{**error.details, "errors": [{**one, "line": line.number} for one in told]},
        line=line.number,
    )


def _refused(line: Line, custom_id: Any, error: ClientError) -> dict[str, Any]:
    """What stands in place of a bad line, so that it becomes a result with its error."""
    request: dict[str, Any] = {REFUSED: {**error_body(error), "line": line.number}}
    if isinstance(custom_id, str) and 0 < len(custom_id) <= MAX_CUSTOM_ID_CHARS:
        request["custom_id"] = custom_id
    return request
