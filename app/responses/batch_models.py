"""The JSON that the API gives of batches, as models like those of `app.responses.models`."""

from typing import Literal

from pydantic import Field

from app.responses.models import Answer, Continuations, Model, Problem, Scores, Time
from contract.batches import BatchStatus


class RequestCounts(Answer):
    """The lines of a batch; once it has ended, `completed` and `failed` make up `total`."""

    total: int
    completed: int = Field(description="Lines that were scored.")
    failed: int = Field(description="Lines that ended without a score, whatever the reason.")


class BatchLinks(Answer):
    """Paths of a batch."""

    self: str
    results: str
    events: str
    cancel: str | None = Field(None, description="While the batch goes on.")


class BatchView(Answer):
    """A batch: its state and its counts."""

    id: str = Field(description="The batch ID.")
    object: Literal["batch"]
    status: BatchStatus = Field(
        description="`completed`, `expired` (its deadline passed) and `cancelled` are final."
    )
    created_at: Time
    deadline_at: Time = Field(description="Later no line is begun any more.")
    in_progress_at: Time | None = Field(description="Since then all of it waits for workers.")
    cancelling_at: Time | None = Field(description="When it was cancelled.")
    completed_at: Time | None = Field(description="When it ended, however it did.")
    expires_at: Time | None = Field(description="When its results are erased.")
    request_counts: RequestCounts
    num_bytes: int = Field(description="Bytes that the model reads for it.")
    model: Model | None = Field(description="Which model gave the scores; null before the first.")
    links: BatchLinks


class BatchResult(Answer):
    """One line of a batch's results."""

    index: int = Field(description="Place of its line in the upload, from 0, blank ones left out.")
    status: Literal["SUCCESS", "FAILURE", "REVOKED"]
    custom_id: str | None = None
    result: Scores | Continuations | None = Field(None, description="In status SUCCESS.")
    error: Problem | None = Field(None, description="In the statuses FAILURE and REVOKED.")
