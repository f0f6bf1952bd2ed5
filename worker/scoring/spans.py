"""Makes a span for each job and each micro-batch, if traces are on."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from contract.messages import Job
from worker.scheduling.batching import Choice

if TYPE_CHECKING:
    from opentelemetry.trace import Span

    from contract.otel import Tracing


class JobSpans:
    """The spans of the jobs in hand; without traces it does nothing.

    A job may take part in several micro-batches, and a micro-batch has slices of several jobs. So a
    micro-batch has a trace of its own, and links lead from it to its jobs and back.
    """

    def __init__(self, tracing: "Tracing | None" = None) -> None:
        self._tracing = tracing
        self._spans: dict[str, Span] = {}

    def open(self, task_id: str, job: Job) -> None:
        """Begin the span of a job, at the time of its submission."""
        if self._tracing is None:
            return
        self._spans[task_id] = self._tracing.start(
            "job",
            {
                "evascore.task_id": task_id,
                "evascore.request_id": job.request_id,
                "evascore.texts": len(job.requests),
                "evascore.bytes": job.num_bytes,
                "evascore.priority": job.priority,
                "evascore.model": job.model,
                "evascore.fingerprint": job.fingerprint,
            },
            parent=job.traceparent,
            at_s=job.submitted_at,
        )

    @contextmanager
    def micro_batch(self, choice: Choice) -> Iterator[None]:
        """Make a span of what runs inside, linked with the jobs of the micro-batch."""
        if self._tracing is None:
            yield
            return
        found = (self._spans.get(share.job.task_id) for share in choice.shares)
        jobs = [span for span in found if span is not None]
        sizes = {
            "evascore.jobs": len(choice.shares),
            "evascore.slices": choice.num_slices,
            "evascore.bytes": choice.num_bytes,
        }
        span = self._tracing.start("micro-batch", dict(sizes), links=jobs)
        for job in jobs:
            job.add_link(span.get_span_context())
        try:
            yield
        finally:
            span.end()

    def end(self, task_id: str, state: str) -> None:
        """End the span of a job that has ended; one that was never opened has none."""
        span = self._spans.pop(task_id, None)
        if span is not None:
            span.set_attribute("evascore.state", state)
            span.end()

    def abandon(self) -> None:
        """End all spans: the jobs are redelivered, and begin new ones."""
        for task_id in list(self._spans):
            self.end(task_id, "REDELIVERED")
