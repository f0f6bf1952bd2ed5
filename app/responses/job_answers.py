"""Makes the HTTP answers that tell the state of a job: its JSON and its headers."""

import itertools
from functools import partial

import orjson
from flask import Request, Response

from app.responses.answer_memory import STREAM_BYTES, held, hold
from app.responses.compression import choose, encoded, note_encoding
from app.responses.json import json_response
from app.responses.views import job_path, job_view, with_problems
from app.service.components import Service
from app.service.turns import in_turns
from contract.errors import Overloaded
from contract.messages import Apart, Record
from contract.store.admission.outcomes import Receipt

# Ends the object, and the line for a terminal.
_END = b"}\n"


def job_answer(
    service: Service,
    request: Request,
    record: Record,
    *,
    status: int = 200,
    preference: str = "",
    queued_bytes: int = 0,
) -> Response:
    """The state of a job, and its result or error once it has ended.

    Args:
        preference: the `Prefer` header that was applied, '' for none.
        queued_bytes: bytes in the queue, for the estimate of `Retry-After`.

    Raises:
        Overloaded: the result is large, and answers that wait to be sent leave no room.
    """
    headers = {}
    if not record.is_final:
        headers["Retry-After"] = str(service.retry.retry_after_s(queued_bytes))
    elif preference:
        headers["Preference-Applied"] = preference
    view = job_view(record, request.script_root)
    if record.apart is None:
        return held(json_response(view, status, headers=headers))
    response = _streamed(service, request, record, record.apart, orjson.dumps(view))
    response.status_code = status
    response.headers.update(headers)
    return response


def accepted_job_answer(
    service: Service, request: Request, record: Record, receipt: Receipt, preference: str
) -> Response:
    """The state of a job that was accepted by this request, or by an earlier one with its key."""
    answer = partial(
        job_answer, service, request, preference=preference, queued_bytes=receipt.depth.bytes
    )
    try:
        response = answer(record, status=200 if record.is_final else 202)
    except Overloaded:
        # The job is accepted, so the client must get its ID. It reads the result later.
        response = answer(Record(record.task_id, "STARTED", job=record.job), status=202)
    response.headers["Location"] = job_path(record.task_id, request.script_root)
    if receipt.is_replay:
        response.headers["Idempotency-Replayed"] = "true"
    return response


def _streamed(
    service: Service, request: Request, record: Record, apart: Apart, view: bytes
) -> Response:
    """The JSON `view` of a job with its stored result, which is never held whole."""
    result = service.jobs.result_pieces(record)
    if apart.num_errors:
        result = with_problems(result)
    head = view.removesuffix(b"}") + b',"result":'
    encoding = choose(request)
    body = encoded(itertools.chain([head], result, [_END]), encoding)
    response = Response(in_turns(body), content_type="application/json")
    note_encoding(response, encoding)
    if not encoding and not apart.num_errors:
        response.content_length = len(head) + apart.num_bytes + len(_END)
    hold(response, min(apart.num_bytes, STREAM_BYTES))
    return response
