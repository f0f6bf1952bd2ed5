"""Defines the JSON answers of OpenAI's Files and Batches API."""

from typing import Literal

from pydantic import Field

from app.responses.batch_models import RequestCounts
from app.responses.models import Answer
from contract.batches import BatchStatus


class FileView(Answer):
    """A file: an upload, or the results of a batch."""

    id: str
    object: Literal["file"]
    bytes: int = Field(description="0 for results, whose size is not known before they are read.")
    created_at: int = Field(description="Unix time, seconds.")
    expires_at: int | None = Field(description="Unix time, seconds.")
    filename: str
    purpose: Literal["batch", "batch_output"]
    status: Literal["processed"]


class FileDeleted(Answer):
    """A file that was deleted."""

    id: str
    object: Literal["file"]
    deleted: Literal[True]


class OpenAIBatchView(Answer):
    """A batch in OpenAI's form; `GET /batches/{id}` shows the same batch in ours."""

    id: str
    object: Literal["batch"]
    endpoint: str
    errors: None
    input_file_id: str
    completion_window: str
    status: BatchStatus
    output_file_id: str | None = Field(description="Completions, once the batch has ended.")
    error_file_id: str | None = Field(description="Errors, once the batch has ended.")
    created_at: int
    in_progress_at: int | None
    expires_at: int
    finalizing_at: None
    completed_at: int | None
    failed_at: None
    expired_at: int | None
    cancelling_at: int | None
    cancelled_at: int | None
    request_counts: RequestCounts
    metadata: dict[str, str] | None
