"""Defines the JSON answers of `/batches`; `/openapi.json` is made from these models."""

from typing import Literal

from pydantic import Field

from app.responses.models import Answer, Continuations, Model, Problem, Scores, Time
from contract.batches import BatchStatus


class RequestCounts(Answer):
    """The lines of a batch; when it has ended, `completed` plus `failed` is `total`."""

    total: int
    completed: int = Field(description="Lines that were scored.")
    failed: int = Field(description="Lines that ended without a score.")


class BatchLinks(Answer):
    """Paths of a batch."""

    self: str
    results: str
    events: str
    cancel: str | None = Field(None, description="Present until the batch has ended.")


class BatchView(Answer):
    """A batch: its state and its counts."""

    id: str = Field(description="The batch ID.")
    object: Literal["batch"]
    status: BatchStatus = Field(
        description="`completed`, `expired` (its deadline passed) and `cancelled` are final."
    )
    created_at: Time
    deadline_at: Time = Field(description="Lines that have not begun by then expire.")
    in_progress_at: Time | None = Field(description="When all of its lines were in the queue.")
    cancelling_at: Time | None = Field(description="When it was cancelled.")
    completed_at: Time | None = Field(description="When it ended, in any final status.")
    expires_at: Time | None = Field(description="When its results are erased.")
    request_counts: RequestCounts
    num_bytes: int = Field(description="Bytes that the model reads for it.")
    model: Model | None = Field(
        description="The model that gave the scores; null before the first score."
    )
    links: BatchLinks


class BatchResult(Answer):
    """One line of a batch's results."""

    index: int = Field(description="Index of its line in the upload, from 0, without blank lines.")
    status: Literal["SUCCESS", "FAILURE", "REVOKED"]
    custom_id: str | None = None
    result: Scores | Continuations | None = Field(None, description="Present in status SUCCESS.")
    error: Problem | None = Field(None, description="Present in the statuses FAILURE and REVOKED.")
