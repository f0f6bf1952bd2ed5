"""Turns the payload of a job into slices to score, and their outcomes into its final record."""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from contract.batches import (
    REFUSED,
    failed_part_results,
    part_id,
    part_results,
)
from contract.errors import (
    ClientError,
    JobCancelled,
    JobExpired,
    JobUnreadable,
    ServiceError,
    error_body,
)
from contract.grammar.result_size import result_bytes
from contract.messages import (
    Job,
    error_from_body,
    failure_record,
    success_record,
)
from contract.service_clock import CLOCK
from contract.store.jobs.endings import FAILED_WITH, TEXT_FAILED_WITH, Ending
from contract.stored_results import encode_success
from model import Plan, ScoreRequest, Slice, SliceScores
from worker.scheduling.batching import Choice
from worker.scheduling.filling import OpenJob, Outcome

# The counters of jobs that end without an answer; any other error counts as a failure.
_COUNTERS = {JobCancelled.code: "jobs_cancelled", JobExpired.code: "jobs_expired"}
# Errors that are no fault of the service.
_NO_FAILURES = (ClientError, JobCancelled, JobExpired)


@dataclass(slots=True)
class ScoreJob(OpenJob):
    """An open job with everything that its result shows besides the scores."""

    job: Job = field(kw_only=True)
    plans: list[Plan | ServiceError] = field(kw_only=True)
    """One per request, in order: how it is cut into slices, or why the model refuses it."""
    ends: Sequence[int] = field(kw_only=True)
    """Of each text that the model takes, in order: the slices of the job up to its last one."""
    opened_at: float = field(kw_only=True)
    """Unix time, seconds."""
    started_at: float = 0.0
    """Unix time at which the first micro-batch with a slice of this job began, seconds."""
    compute_s: float = 0.0
    """Compute time of all micro-batches with a slice of this job."""
    micro_batch: dict[str, int] = field(default_factory=dict)
    """Texts and bytes of the last micro-batch with a slice of this job."""


def open_job(
    task_id: str,
    job: Job,
    *,
    num_crashes: int,
    max_slice_bytes: int,
    max_text_bytes: int,
    window_size: int,
) -> ScoreJob:
    """Cut the requests of a job into slices.

    Args:
        num_crashes: workers that died while they scored the job.
        max_slice_bytes: a longer request is cut between its continuations or windows.
        max_text_bytes: the longest text that the model takes.
        window_size: the model's attention window; the stride of a window is a multiple of it.
    """
    plans = [_plan(fields, max_slice_bytes, max_text_bytes, window_size) for fields in job.requests]
    slices: list[Slice] = []
    ends: list[int] = []
    sizes: list[int] = []
    for fields, plan in zip(job.requests, plans, strict=True):
        if isinstance(plan, ServiceError):
            continue
        slices += plan.slices
        ends.append(len(slices))
        # A long result holds numbers for each byte, so each slice has about the same share of it.
        sizes += [result_bytes(fields) // len(plan.slices)] * len(plan.slices)
    return ScoreJob(
        task_id=task_id,
        slices=slices,
        deadline_at=job.deadline_at,
        priority=job.priority,
        client=job.client,
        num_crashes=num_crashes,
        result_bytes=sizes,
        job=job,
        plans=plans,
        ends=ends,
        opened_at=CLOCK.now(),
    )


def _plan(
    fields: dict[str, Any], max_slice_bytes: int, max_text_bytes: int, window_size: int
) -> Plan | ServiceError:
    """Cut one request into slices; return the error of one that was refused, or is here."""
    if REFUSED in fields:
        return error_from_body(fields[REFUSED])
    try:
        request = ScoreRequest.from_json(
            fields, max_text_bytes=max_text_bytes, window_size=window_size
        )
    except ClientError as refusal:
        return refusal
    return Plan.of(request, max_slice_bytes)


def note_micro_batch(choice: Choice, started_at: float, compute_s: float) -> None:
    """Note in each job of a micro-batch when it began, how long it took and how large it was."""
    size = {"texts": choice.num_slices, "bytes": choice.num_bytes}
    for share in choice.shares:
        job = share.job
        assert isinstance(job, ScoreJob)
        job.started_at = job.started_at or started_at
        job.compute_s += compute_s
        job.micro_batch = size


def num_texts_ended(choice: Choice) -> int:
    """Return how many texts have their last slice in a micro-batch.

    Its outcomes are not in its jobs yet.
    """
    num_texts = 0
    for share in choice.shares:
        job, before = share.job, len(share.job.outcomes)
        assert isinstance(job, ScoreJob)
        after = before + len(share.slices)
        num_texts += bisect_right(job.ends, after) - bisect_right(job.ends, before)
    return num_texts


def scored_ending(job: ScoreJob, model: dict[str, Any]) -> Ending:
    """Return the end of a job whose every slice has its outcome.

    A job of one text succeeds or fails with it. A job of many items succeeds, and each item has
    its own result or error. The results of a part go to its batch: the record of the part only
    says that it has ended.
    """
    outcomes = list(_outcomes_of_requests(job))
    now = CLOCK.now()
    # Two names may share a fingerprint: the result has the name that the job is bound to.
    model = {**model, "name": job.job.model or model["name"]}
    fingerprint = model["fingerprint"]
    counters = " ".join(["jobs_succeeded", *_failed_texts(outcomes)])
    part = part_id(job.task_id)
    if part is not None:
        results = part_results(part, job.job.requests, outcomes, job.job.num_bytes, model)
        record = success_record(job.task_id, None, job.job.facts(), now)
        return Ending(job.task_id, record, counters, results, fingerprint=fingerprint)
    if not job.job.is_single:
        items = [
            _item(fields, outcome)
            for fields, outcome in zip(job.job.requests, outcomes, strict=True)
        ]
        result = {"items": items, **_circumstances(job, model, now)}
    elif isinstance(outcomes[0], ServiceError):
        ending = failed_ending(job.task_id, job.job, outcomes[0])
        return replace(ending, fingerprint=fingerprint)
    else:
        result = {**_named(job.job.requests[0]), **outcomes[0], **_circumstances(job, model, now)}
    if not job.job.may_store_apart:
        record = success_record(job.task_id, result, job.job.facts(), now)
        return Ending(job.task_id, record, counters, fingerprint=fingerprint)
    record, stored = encode_success(job.task_id, result, job.job.facts(), now)
    return Ending(job.task_id, record, counters, None, stored, fingerprint)


def failed_ending(task_id: str, job: Job, error: ServiceError) -> Ending:
    """Return the end of a job that failed as a whole, expired or was cancelled."""
    return _failed_ending(task_id, job.facts(), job.requests, error)


def job_expired() -> JobExpired:
    """Return the error of a job that was not scored in time."""
    return JobExpired(
        "The job's deadline passed before it was scored; ask for a longer deadline_s."
    )


def lost_ending(task_id: str, facts: dict[str, Any], error: ServiceError) -> Ending:
    """Return the end of a job whose texts are gone; `facts` are those of its record."""
    # Of a line without its text nothing is known, not even its custom_id.
    return _failed_ending(task_id, facts, [{}] * facts.get("num_texts", 0), error)


def unreadable_ending(task_id: str, facts: dict[str, Any]) -> Ending:
    """Return the end of a job whose stored data cannot be read."""
    error = JobUnreadable("What is stored of the job cannot be read; send it again.")
    return lost_ending(task_id, facts, error)


def _failed_ending(
    task_id: str, facts: dict[str, Any], requests: list[dict[str, Any]], error: ServiceError
) -> Ending:
    part = part_id(task_id)
    counter = _COUNTERS.get(error.code) or f"jobs_failed {FAILED_WITH}{error.code}"
    # A refused line of a batch keeps the error that its client made.
    texts = _failed_texts(error for fields in requests if REFUSED not in fields)
    return Ending(
        task_id,
        failure_record(task_id, error, facts, CLOCK.now()),
        " ".join([counter, *texts]),
        # Of a part whose batch was erased nothing is known; its results are dropped.
        failed_part_results(part, requests, error, facts.get("num_bytes", 0)) if part else None,
    )


def _failed_texts(outcomes: Iterable[dict[str, Any] | ServiceError]) -> Iterator[str]:
    """Yield a counter for each text that failed by no fault of its client."""
    for outcome in outcomes:
        if isinstance(outcome, ServiceError) and not isinstance(outcome, _NO_FAILURES):
            yield f"{TEXT_FAILED_WITH}{outcome.code}"


def _outcomes_of_requests(job: ScoreJob) -> Iterator[dict[str, Any] | ServiceError]:
    """Yield for each request its result or the error that it met."""
    of_slices = iter(job.outcomes)
    for plan in job.plans:
        if isinstance(plan, ServiceError):
            yield plan
        else:
            yield _joined(plan, [next(of_slices) for _ in plan.slices])


def _joined(plan: Plan, outcomes: list[Outcome]) -> dict[str, Any] | ServiceError:
    """Join the scores of the slices of a request; the first slice that failed fails the request."""
    scores: list[SliceScores] = []
    for outcome in outcomes:
        if isinstance(outcome, ServiceError):
            return outcome
        scores.append(outcome)
    return plan.join(scores)


def _item(fields: dict[str, Any], outcome: dict[str, Any] | ServiceError) -> dict[str, Any]:
    if isinstance(outcome, ServiceError):
        return {**_named(fields), "error": error_body(outcome)}
    return {**_named(fields), "result": outcome}


def _named(fields: dict[str, Any]) -> dict[str, str]:
    return {"custom_id": fields["custom_id"]} if "custom_id" in fields else {}


def _circumstances(job: ScoreJob, model: dict[str, Any], now: float) -> dict[str, Any]:
    """Return what a result shows besides scores: model, times, micro-batch and bytes read."""
    submitted_at, started_at = job.job.submitted_at, job.started_at or now
    # The clock of Redis may have been set meanwhile.
    queue_s = max(job.opened_at - submitted_at, 0.0)
    return {
        "model": model,
        "timings_ms": _milliseconds(
            queue=queue_s,
            batch_wait=max(started_at - job.opened_at, 0.0),
            compute=job.compute_s,
            total=max(now - submitted_at, 0.0),
        ),
        "batch": job.micro_batch,
        "usage": {"bytes": job.job.num_bytes},
    }


def _milliseconds(**seconds: float) -> dict[str, float]:
    return {name: round(value * 1000, 3) for name, value in seconds.items()}
