"""Makes a batch of a file of OpenAI's Files API."""

from collections.abc import Iterator
from typing import Any, Literal

from flask import Request, g
from pydantic import BaseModel, ConfigDict, Field

from app.requests.access import check_owned, while_valid
from app.requests.batch_upload import Receiver
from app.requests.body import read_json_body
from app.requests.clients import client_of
from app.requests.headers import idempotency_key
from app.requests.models import BatchOptions
from app.requests.upload_request import uploading
from app.requests.upload_stream import small
from app.service.components import Service
from app.service.quotas import current_quota, note_quota_left, quota_exceeded
from app.service.turns import in_turns
from contract.errors import BrokerUnavailable, ClientError, ServiceError
from contract.grammar.json_text import parse_json
from contract.grammar.line_fields import is_openai_line
from contract.grammar.lines import Line, parse_line, read_lines
from contract.grammar.validation import validated
from contract.settings import Settings
from contract.store.admission.outcomes import QuotaUsedUp
from contract.store.batches.file_store import StoredFile
from contract.store.batches.sealing import Accepted

MAX_BODY_BYTES = 64 * 1024


class OpenAIBatchBody(BaseModel):
    """Makes a batch of an uploaded file."""

    model_config = ConfigDict(extra="forbid", strict=True)

    input_file_id: str = Field(description="ID of a file of `POST /v1/files`.")
    endpoint: Literal["/v1/completions"] = Field(
        description="The route that each line asks for; only completions are batched."
    )
    completion_window: Literal["24h"] = Field(
        description="Lines that have not begun then expire; see `max_upload_deadline_s`."
    )
    metadata: dict[str, str] | None = Field(
        None, max_length=16, description="Comes back with the batch."
    )


def receive_openai_batch(request: Request, service: Service) -> tuple[OpenAIBatchBody, Accepted]:
    """Check the lines of an uploaded file, and accept them as one batch.

    Raises:
        ClientError, ModelNotFound, Overloaded, QuotaExceeded, BrokerUnavailable
    """
    fields = parse_json(read_json_body(request, MAX_BODY_BYTES))
    body = validated(fields, OpenAIBatchBody)
    check_owned(body.input_file_id)
    file = service.files.read(body.input_file_id)
    quota = current_quota()
    with uploading(request, service):
        try:
            # Before the file is read, where it would be refused afterwards.
            service.batches.check_quota(quota)
            accepted = _accepted(request, file, service)
        except QuotaUsedUp as used_up:
            raise quota_exceeded(used_up) from None
        except BrokerUnavailable:
            raise
        except ServiceError:
            # A short request can have a large file read.
            note_quota_left(service.batches.take_request(quota))
            raise
        left = service.batches.take_request(quota) if accepted.is_replay else accepted.quota_left
    note_quota_left(left)
    return body, accepted


def _accepted(request: Request, file: StoredFile, service: Service) -> Accepted:
    model = _model_of_first_line(file, service)
    # Also one that no model can have as its name.
    service.models.target(model or "")
    settings = service.models.limits(model)
    receiver = Receiver(
        service.batches,
        settings,
        options=BatchOptions.model_validate({"on_error": "skip", "model": model}),
        retry=service.retry,
        target=service.models.target,
        request_id=g.request_id,
        client=client_of(request),
        quota=current_quota(),
        answers_completions=True,
        large_work=service.large_work,
    )
    lines = lines_of_file(
        file, service, settings, digested=lambda pieces: while_valid(receiver.digested(pieces))
    )
    return receiver.receive(in_turns(lines), idempotency_key())


def lines_of_file(
    file: StoredFile, service: Service, settings: Settings, digested: Any = iter
) -> Iterator[Line]:
    """The lines of a file that are not blank.

    Args:
        digested: sees the pieces of the file on their way.
    """
    return read_lines(
        digested(in_turns(small(service.files.pieces(file)))),
        max_line_bytes=settings.max_body_bytes,
        max_lines=settings.max_upload_lines,
    )


def _model_of_first_line(file: StoredFile, service: Service) -> str | None:
    """The model that the first line names; a batch has one."""
    for line in lines_of_file(file, service, service.settings):
        try:
            fields = parse_line(line, service.settings.max_body_bytes)
        except ClientError:
            return None
        body = fields["body"] if is_openai_line(fields) else {}
        model = body.get("model") if isinstance(body, dict) else None
        return model if isinstance(model, str) and model else None
    return None
