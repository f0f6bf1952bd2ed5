"""Makes the HTTP answers that tell the state of a job: its JSON and its headers."""

from flask import Request, Response

from app.responses.json import json_response
from app.responses.views import job_path, job_view
from app.service.components import Service
from contract.messages import Record
from contract.store.admission import Receipt


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
    """
    headers = {}
    if not record.is_final:
        headers["Retry-After"] = str(service.retry.retry_after_s(queued_bytes))
    elif preference:
        headers["Preference-Applied"] = preference
    return json_response(job_view(record, request.script_root), status, headers=headers)


def accepted_job_answer(
    service: Service, request: Request, record: Record, receipt: Receipt, preference: str
) -> Response:
    """The state of a job that was accepted by this request, or by an earlier one with its key."""
    response = job_answer(
        service,
        request,
        record,
        status=200 if record.is_final else 202,
        preference=preference,
        queued_bytes=receipt.depth.bytes,
    )
    response.headers["Location"] = job_path(record.task_id, request.script_root)
    if receipt.is_replay:
        response.headers["Idempotency-Replayed"] = "true"
    return response
