"""Checks the lines of an upload and cuts them into the parts of a batch."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import orjson
from pydantic import ValidationError

from app.requests.models import BatchOptions
from app.requests.query import Query, parse_options
from app.service.turns import LargeWork, in_turns
from contract import keys
from contract.batches import LINE_WORK_BYTES, REFUSED, Part
from contract.errors import ClientError, RequestInvalid, error_body
from contract.grammar.checked_text import Checked
from contract.grammar.invalid import MAX_ERRORS_SHOWN, invalid, invalid_fields
from contract.grammar.json_text import parse_json_array
from contract.grammar.line_fields import (
    Columns,
    check_line,
    completion_of_line,
    id_of_line,
    is_openai_line,
)
from contract.grammar.lines import Line, parse_line
from contract.grammar.validation import plain_errors
from contract.messages import Job
from contract.service_clock import CLOCK
from contract.settings import Settings
from contract.stored_results import promised_bytes

# The message and the record of a part in Redis while it waits in the queue.
_QUEUED_BYTES = 2048
# What surrounds the error of a line in its result.
_REFUSED_BYTES = 256

BATCH_OPTIONS = tuple(BatchOptions.model_fields)


def read_options(query: Query, settings: Settings) -> BatchOptions:
    """Read the options in the query of an upload; they hold for all lines.

    Raises:
        RequestInvalid
    """
    try:
        options = BatchOptions.model_validate(parse_options(query, BATCH_OPTIONS))
    except ValidationError as error:
        raise invalid_fields(
            [
                {"detail": detail, "parameter": str(place[0])}
                for detail, place in plain_errors(error)
            ]
        ) from None
    if (options.deadline_s or 0) > settings.max_upload_deadline_s:
        raise invalid(
            f"must be at most {settings.max_upload_deadline_s:g} seconds (max_upload_deadline_s)",
            parameter="deadline_s",
        )
    return options


def lines_of_array(pieces: Iterable[bytes], large_work: LargeWork) -> Iterator[bytes]:
    """Yield the elements of a JSON array as lines.

    Raises:
        MalformedBody, RequestInvalid
    """
    content = b"".join(in_turns(pieces))
    for element in large_work.run(len(content), partial(parse_json_array, content)):
        yield orjson.dumps(element, option=orjson.OPT_APPEND_NEWLINE)


class PartCutter:
    """Checks lines and gathers them into parts that fill one micro-batch, results included."""

    def __init__(
        self,
        options: BatchOptions,
        settings: Settings,
        *,
        deadline_at: float,
        request_id: str,
        large_work: LargeWork,
        client: str = "",
        model: str = "",
        serves: Callable[[str], bool] = bool,
        answers_completions: bool = False,
    ) -> None:
        """Start without lines.

        Args:
            large_work: checks large lines in its threads.
            serves: whether the batch's model is the one that a line names.
            answers_completions: whether lines are those of an OpenAI batch, and get completions.
        """
        self.num_lines = 0
        self.num_bytes = 0
        """Lines in all parts so far (no blank ones), and bytes that the model reads for them."""
        self.work_bytes = 0
        """Bytes of work of all parts so far, which admission control counts."""
        self.promised_bytes = 0
        """Most bytes of Redis that the results of all parts so far take."""
        self._options = options
        self._columns = Columns(options.text_field, options.id_field)
        self._settings = settings
        self._deadline_at = deadline_at
        self._request_id = request_id
        self._client, self._model = client, model
        self._serves, self._answers_completions = serves, answers_completions
        self._large_work = large_work
        self._requests: list[dict[str, Any]] = []
        self._part_bytes = self._part_work_bytes = self._part_result_bytes = 0
        self._num_bad = 0
        self._first_errors: list[dict[str, Any]] = []

    def parts(self, lines: Iterable[Line]) -> Iterator[tuple[Part, Job]]:
        """Yield the parts of `lines`, each as soon as it is full.

        Raises:
            RequestInvalid: a line is bad and `on_error` is `fail`, or too many lines are bad.
        """
        settings = self._settings
        for line in lines:
            checked = self._checked(line)
            if (
                len(self._requests) >= settings.micro_batch_texts
                or self._part_bytes + checked.num_bytes > settings.micro_batch_bytes
                or self._part_result_bytes + checked.result_bytes > settings.max_result_bytes
            ):
                yield from self._cut()
            self._requests.append(checked.request)
            self._part_bytes += checked.num_bytes
            self._part_work_bytes += max(checked.work_bytes, LINE_WORK_BYTES)
            self._part_result_bytes += checked.result_bytes
        yield from self._cut()

    def _cut(self) -> Iterator[tuple[Part, Job]]:
        if not self._requests:
            return
        promised = _QUEUED_BYTES + promised_bytes(self._part_result_bytes)
        part = Part(self.num_lines, len(self._requests), self._part_work_bytes, promised)
        job = Job(
            requests=self._requests,
            num_bytes=part.num_bytes,
            submitted_at=CLOCK.now(),
            deadline_at=self._deadline_at,
            is_single=False,
            priority=keys.BULK,
            request_id=self._request_id,
            client=self._client,
            model=self._model,
        )
        self.num_lines += part.num_lines
        self.num_bytes += self._part_bytes
        self.work_bytes += part.num_bytes
        self.promised_bytes += part.promised_bytes
        self._requests = []
        self._part_bytes = self._part_work_bytes = self._part_result_bytes = 0
        yield part, job

    def _checked(self, line: Line) -> Checked:
        fields: dict[str, Any] = {}
        run = partial(self._large_work.run, len(line.content or b""))
        try:
            fields = run(partial(parse_line, line, self._settings.max_body_bytes))
            checked = run(partial(self._check, fields))
            # It may ask Redis, so it must not run in the thread of a large line.
            self._check_model(fields)
            return checked
        except ClientError as error:
            if self._options.on_error == "fail":
                raise _refusal(line, error) from None
            self._count_bad(line, error)
            request = _refused(line, id_of_line(fields, self._columns), error)
            return Checked(request, result_bytes=_REFUSED_BYTES + len(orjson.dumps(request)))

    def _check(self, fields: dict[str, Any]) -> Checked:
        if self._answers_completions:
            return completion_of_line(fields, self._settings)
        return check_line(fields, self._settings, self._options, self._columns)

    def _check_model(self, fields: dict[str, Any]) -> None:
        if not self._columns.are_named and is_openai_line(fields):
            asked = fields["body"].get("model")
            if asked is not None and not self._serves(asked):
                raise invalid(
                    "is not the model of this batch, which scores all of its lines",
                    pointer="/body/model",
                )

    def _count_bad(self, line: Line, error: ClientError) -> None:
        """Count a skipped line, and refuse the upload once there are too many of them."""
        self._num_bad += 1
        if len(self._first_errors) < MAX_ERRORS_SHOWN:
            self._first_errors.append(_errors_of(line, error)[0])
        limit = self._settings.max_upload_errors
        if self._num_bad > limit:
            raise RequestInvalid(
                f"The upload has more than {limit} wrong lines, so no line was accepted; "
                "mend them, or leave them out. The first of them are in errors.",
                errors=self._first_errors,
                limit_errors=limit,
            )


def _errors_of(line: Line, error: ClientError) -> list[dict[str, Any]]:
    listed = error.details.get("errors") or [{"detail": error.message, "pointer": ""}]
    return [{**one, "line": line.number} for one in listed]


def _refusal(line: Line, error: ClientError) -> RequestInvalid:
    """Make the error of an upload that is refused because of one bad line."""
    return RequestInvalid(
        f"Line {line.number} cannot be scored, so no line was accepted: {error.message}",
        **{**error.details, "errors": _errors_of(line, error)},
        line=line.number,
    )


def _refused(line: Line, custom_id: str | None, error: ClientError) -> dict[str, Any]:
    """Return the request that replaces a bad line; its result is the error of the line."""
    request: dict[str, Any] = {REFUSED: {**error_body(error), "line": line.number}}
    return request if custom_id is None else {**request, "custom_id": custom_id}
