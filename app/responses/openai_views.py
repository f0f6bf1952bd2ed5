"""Makes the answers of OpenAI's Files and Batches API from ours."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, Literal, NamedTuple

import orjson

from app.requests.openai_batch import lines_of_file
from app.responses.answer_memory import PartRoom, cut
from app.responses.completion_views import WORK_PER_BYTE, completion, most_bytes
from app.responses.views import error_lines, result_lines
from app.service import batch_waits
from app.service.callers import Caller
from app.service.components import Service
from app.service.turns import in_turns
from contract.batches import Batch, is_success_line, pieces_of_lines
from contract.errors import ClientError, JobGone, JobNotFound
from contract.grammar.completion_request import CompletionBody, Prompt
from contract.grammar.line_fields import read_openai_line
from contract.grammar.lines import Line, parse_line, whole_lines
from contract.settings import Settings
from contract.store.batches.file_store import StoredFile

Kind = Literal["output", "errors"]
_KINDS: tuple[Kind, ...] = ("output", "errors")
# Parts of a batch that are read at once.
_PAGE_LINES = 1000


class ResultFile(NamedTuple):
    """Results of a batch that are read as a file."""

    kind: Kind
    batch_id: str

    def __str__(self) -> str:
        return f"{self.kind}-{self.batch_id}"


def result_file(file_id: str) -> ResultFile | None:
    """The results that a file ID names; None for the ID of an upload."""
    kind, dash, batch_id = file_id.partition("-")
    return next((ResultFile(each, batch_id) for each in _KINDS if dash and each == kind), None)


def file_view(file: StoredFile) -> dict[str, Any]:
    """The JSON of an uploaded file."""
    return {
        "id": file.id,
        "object": "file",
        "bytes": file.num_bytes,
        "created_at": int(file.created_at),
        "expires_at": int(file.expires_at),
        "filename": file.name,
        "purpose": "batch",
        "status": "processed",
    }


def result_file_view(file: ResultFile, batch: Batch) -> dict[str, Any]:
    """The JSON of the results of a batch."""
    return {
        "id": str(file),
        "object": "file",
        "bytes": 0,
        "created_at": _seconds(batch.ended_at) or int(batch.created_at),
        "expires_at": _seconds(batch.expires_at),
        "filename": f"{file.kind}.jsonl",
        "purpose": "batch_output",
        "status": "processed",
    }


def openai_batch_view(batch: Batch, facts: dict[str, Any]) -> dict[str, Any]:
    """The JSON of a batch in OpenAI's form.

    Args:
        facts: what `FileStore.note_batch` stored.

    Raises:
        JobNotFound: it was not made of a file.
    """
    if not facts:
        raise JobNotFound(
            "This batch was not made by POST /v1/batches; read it at /batches/{id} instead."
        )
    ended_at, status = _seconds(batch.ended_at), batch.status
    return {
        "id": batch.id,
        "object": "batch",
        "endpoint": facts["endpoint"],
        "errors": None,
        "input_file_id": facts["input_file_id"],
        "completion_window": facts["completion_window"],
        "status": status,
        "output_file_id": _result_id("output", batch, batch.completed),
        "error_file_id": _result_id("errors", batch, batch.failed),
        "created_at": int(batch.created_at),
        "in_progress_at": _seconds(batch.in_progress_at),
        "expires_at": int(batch.deadline_at),
        "finalizing_at": None,
        "completed_at": ended_at if status == "completed" else None,
        "failed_at": None,
        "expired_at": ended_at if status == "expired" else None,
        "cancelling_at": _seconds(batch.cancelling_at),
        "cancelled_at": ended_at if status == "cancelled" else None,
        "request_counts": {
            "total": batch.total,
            "completed": batch.completed,
            "failed": batch.failed,
        },
        "metadata": facts.get("metadata"),
    }


def result_lines_of(
    service: Service, file: ResultFile, batch: Batch, caller: Caller
) -> Iterator[bytes]:
    """The lines of the results of a batch that has ended, in OpenAI's form and in pieces.

    Raises:
        Overloaded: answers that wait to be sent leave no room for the first line.
        JobNotFound: the batch was not made of a file.
        JobGone: the results, or for completions the uploaded file, have expired or were deleted.
        BrokerUnavailable
    """
    facts = service.files.batch_facts(batch.id)
    if not facts:
        raise JobNotFound("This batch was not made by POST /v1/batches, so it has no such file.")
    if file.kind == "output":
        yield from _completions(service, facts, batch, PartRoom(service.answers, caller))
        return
    for raw in _raw_results(service, batch, error_lines):
        result = orjson.loads(raw)
        yield _line(batch, result, _failed(result))


def _completions(
    service: Service, facts: dict[str, Any], batch: Batch, room: PartRoom
) -> Iterator[bytes]:
    """The lines of the results that are scores: completions, which repeat their prompts.

    One is in memory at once, and the forms in between only in the threads of `large_work`.
    """
    uploaded = _uploaded(service, facts)
    # The limit of a prompt may have become smaller since it was scored.
    settings = service.settings.model_copy(update={"max_text_bytes": uploaded.num_bytes})
    run, results = service.large_work.run, _raw_results(service, batch, result_lines)

    def asked(line: Line) -> tuple[CompletionBody, Prompt] | ClientError:
        return run(len(line.content or b""), partial(_asked, line, settings))

    def completed(body: CompletionBody, prompt: Prompt, raw: bytes) -> bytes:
        return run(WORK_PER_BYTE * len(raw), partial(_completed, body, prompt, raw, batch))

    lines = map(asked, lines_of_file(uploaded, service, settings))
    for each, _ in zip(lines, range(batch.total), strict=True):
        if isinstance(each, ClientError):
            # It was refused in the batch, too.
            if is_success_line(next(results)):
                raise each
            continue
        with room.reserved(most_bytes(*each)):
            yield from cut(completed(*each, next(results)))


def _uploaded(service: Service, facts: dict[str, Any]) -> StoredFile:
    try:
        return service.files.read(facts["input_file_id"])
    except JobGone:
        raise JobGone(
            "The uploaded file, whose prompts the completions repeat, has expired or was deleted; "
            "/batches/{id}/results still has the scores."
        ) from None


def _raw_results(
    service: Service, batch: Batch, choose: Callable[[Iterable[bytes]], Iterator[bytes]]
) -> Iterator[bytes]:
    """The result lines of a batch that `choose` leaves of each part, each whole."""
    after = 0
    while after < batch.total:
        parts = service.batches.results(batch.id, after, _PAGE_LINES, batch_waits.MAX_PAGE_BYTES)
        if not parts:
            raise JobGone("The results of this batch have expired or were erased.")
        for part, stored in parts:
            pieces = (
                service.batches.result_pieces(batch.id, part)
                if stored is None
                else pieces_of_lines(stored)
            )
            yield from whole_lines(in_turns(choose(pieces)))
            after = part.first + part.num_lines


def _asked(line: Line, settings: Settings) -> tuple[CompletionBody, Prompt] | ClientError:
    try:
        return read_openai_line(parse_line(line, settings.max_body_bytes), settings)
    except ClientError as error:
        return error


def _completed(body: CompletionBody, prompt: Prompt, raw: bytes, batch: Batch) -> bytes:
    """The line of a result, b'' if it holds an error."""
    result = orjson.loads(raw)
    if result["status"] != "SUCCESS":
        return b""
    request_id = f"{batch.id}-{result['index']}"
    answer = completion(
        body,
        [prompt],
        [result["result"]],
        request_id=request_id,
        model=batch.model or {"name": batch.model_name},
        now=batch.ended_at or batch.created_at,
    )
    response = {"status_code": 200, "request_id": request_id, "body": answer}
    return _line(batch, result, {"response": response, "error": None})


def _line(batch: Batch, result: dict[str, Any], answer: dict[str, Any]) -> bytes:
    named = {"id": f"{batch.id}-{result['index']}", "custom_id": result.get("custom_id"), **answer}
    return orjson.dumps(named, option=orjson.OPT_APPEND_NEWLINE)


def _failed(result: dict[str, Any]) -> dict[str, Any]:
    error = result["error"]
    if result["status"] == "REVOKED":
        code = "batch_cancelled" if error["type"] == "job_cancelled" else "batch_expired"
        return {"response": None, "error": {"code": code, "message": error["detail"]}}
    problem = {"message": error["detail"], "type": error["type"], "errors": error.get("errors")}
    answer = {"status_code": error["status"], "request_id": None, "body": {"error": problem}}
    return {"response": answer, "error": None}


def _result_id(kind: Kind, batch: Batch, num_lines: int) -> str | None:
    return str(ResultFile(kind, batch.id)) if batch.is_final and num_lines else None


def _seconds(moment: float | None) -> int | None:
    return None if moment is None else int(moment)
