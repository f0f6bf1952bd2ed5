"""From a job's payload to the texts to be scored, and from their outcomes to its final record."""

import time
from dataclasses import dataclass, field, replace
from typing import Any

from contract.batches import (
    REFUSED,
    failed_part_results,
    part_id,
    part_results,
)
from contract.errors import BY_CODE, RequestInvalid, ServiceError
from contract.grammar.result_size import result_bytes
from contract.messages import (
    Job,
    error_body,
    error_from_body,
    failure_record,
    success_record,
)
from contract.store.endings import Ending
from model.errors import RequestInvalid as RefusedByModel
from model.scoring.passes import cut_into_parts, join_parts
from model.scoring.request import ScoreRequest
from worker.batching import Choice, OpenJob

Outcome = dict[str, Any] | ServiceError

_COUNTERS = {"job_cancelled": "jobs_cancelled", "job_expired": "jobs_expired"}


@dataclass(slots=True)
class ScoreJob(OpenJob):
    """An open job with what its result tells besides the scores."""

    job: Job = field(kw_only=True)
    owners: list[int] = field(kw_only=True)
    """The request that each text belongs to; the continuations of one may be several texts."""
    refusals: dict[int, ServiceError] = field(kw_only=True)
    """Requests that the model cannot take."""
    opened_at: float = field(kw_only=True)
    """Unix time, seconds."""
    started_at: float = 0.0
    """Unix time at which the first batch with one of its texts began, seconds."""
    compute_s: float = 0.0
    batch: dict[str, int] = field(default_factory=dict)
    """Texts and bytes of the last batch with one of its texts."""


def open_job(
    task_id: str,
    job: Job,
    *,
    num_crashes: int,
    part_bytes: int,
    max_text_bytes: int,
    window_size: int,
) -> ScoreJob:
    """Lay out a job for batching.

    Args:
        num_crashes: workers that died with the job aboard.
        part_bytes: a request with many continuations or windows is cut into parts of about this
            size, so that it shares batches like any other work.
        max_text_bytes: the longest text that the model takes.
        window_size: the model's own, which divides the stride of a request's windows.
    """
    texts: list[ScoreRequest] = []
    owners: list[int] = []
    sizes: list[int] = []
    refusals: dict[int, ServiceError] = {}
    for index, fields in enumerate(job.requests):
        if REFUSED in fields:
            refusals[index] = error_from_body(fields[REFUSED])
            continue
        try:
            request = ScoreRequest.from_json(
                fields, max_text_bytes=max_text_bytes, window_size=window_size
            )
        except RefusedByModel as refusal:
            refusals[index] = BY_CODE.get(refusal.code, RequestInvalid)(refusal.message)
            continue
        parts = _parts(request, part_bytes)
        texts += parts
        owners += [index] * len(parts)
        # Most of a long result is told byte by byte, and so are its parts.
        sizes += [result_bytes(fields) // len(parts)] * len(parts)
    return ScoreJob(
        task_id=task_id,
        texts=texts,
        deadline_at=job.deadline_at,
        priority=job.priority,
        num_crashes=num_crashes,
        result_bytes=sizes,
        job=job,
        owners=owners,
        refusals=refusals,
        opened_at=time.time(),
    )


def note_batch(choice: Choice, started_at: float, compute_s: float) -> None:
    """Tell the jobs of a batch how long it took and who shared it."""
    shared = {"texts": choice.num_texts, "bytes": choice.num_bytes}
    for part in choice.slices:
        job = part.job
        assert isinstance(job, ScoreJob)
        job.started_at = job.started_at or started_at
        job.compute_s += compute_s
        job.batch = shared


def scored_ending(job: ScoreJob, model: dict[str, Any]) -> Ending:
    """The end of a job whose every text has its outcome.

    A single text ends in its own success or failure; items end in success, each with its own. The
    scores of a part of a batch go to the batch, and its record tells only that it has ended.
    """
    outcomes = _merged(job)
    now = time.time()
    part = part_id(job.task_id)
    if part is not None:
        results = part_results(part, job.job.requests, outcomes, job.job.num_bytes, model)
        record = success_record(job.task_id, None, job.job.facts(), now)
        return Ending(job.task_id, record, results=results)
    if not job.job.is_single:
        items = [
            _item(fields, outcome)
            for fields, outcome in zip(job.job.requests, outcomes, strict=True)
        ]
        result = {"items": items, **_circumstances(job, model, now)}
    elif isinstance(outcomes[0], ServiceError):
        return failed_ending(job.task_id, job.job, outcomes[0])
    else:
        result = {**_named(job.job.requests[0]), **outcomes[0], **_circumstances(job, model, now)}
    return Ending(job.task_id, success_record(job.task_id, result, job.job.facts(), now))


def failed_ending(task_id: str, job: Job, error: ServiceError) -> Ending:
    """The end of a job as a whole: it failed, or nobody wants it any more."""
    return _failed_ending(task_id, job.facts(), job.requests, error)


def lost_ending(task_id: str, facts: dict[str, Any], error: ServiceError) -> Ending:
    """The end of a job of which only the `facts` of its record are left."""
    # Of a line without its text nothing is known, not even its custom_id.
    return _failed_ending(task_id, facts, [{}] * facts.get("num_texts", 0), error)


def _failed_ending(
    task_id: str, facts: dict[str, Any], requests: list[dict[str, Any]], error: ServiceError
) -> Ending:
    part = part_id(task_id)
    return Ending(
        task_id,
        failure_record(task_id, error, facts, time.time()),
        _COUNTERS.get(error.code, "jobs_failed"),
        failed_part_results(part, requests, error, facts["num_bytes"]) if part else None,
    )


def _parts(request: ScoreRequest, part_bytes: int) -> list[ScoreRequest]:
    """Cut the windows or the continuations of `request`; a context is read again for each part."""
    if request.num_bytes <= part_bytes:
        return [request]
    if request.window is not None:
        return cut_into_parts(request, part_bytes)
    if len(request.continuations) < 2:
        return [request]
    # At least as many bytes as the context has, so that reading it again at most doubles the work.
    room_bytes = max(part_bytes - len(request.context), len(request.context))
    parts: list[list[bytes]] = []
    num_bytes = 0
    for continuation in request.continuations:
        if not parts or num_bytes + len(continuation) > room_bytes:
            parts.append([])
            num_bytes = 0
        parts[-1].append(continuation)
        num_bytes += len(continuation)
    return [replace(request, continuations=tuple(part)) for part in parts]


def _merged(job: ScoreJob) -> list[Outcome]:
    """One outcome per request: refused, failed in one part, or its parts joined."""
    parts: dict[int, list[Outcome]] = {index: [] for index in range(len(job.job.requests))}
    texts: dict[int, ScoreRequest] = {}
    for owner, text, outcome in zip(job.owners, job.texts, job.outcomes, strict=True):
        parts[owner].append(outcome)
        texts[owner] = text
    for index, refusal in job.refusals.items():
        parts[index].append(refusal)
    return [_joined(parts[index], texts.get(index)) for index in sorted(parts)]


def _joined(parts: list[Outcome], text: ScoreRequest | None) -> Outcome:
    scores: list[dict[str, Any]] = []
    for part in parts:
        if isinstance(part, ServiceError):
            return part
        scores.append(part)
    if text is not None and text.part:
        return join_parts(text, scores)
    if len(scores) == 1:
        return scores[0]
    return {**scores[0], "continuations": [c for score in scores for c in score["continuations"]]}


def _item(fields: dict[str, Any], outcome: Outcome) -> dict[str, Any]:
    if isinstance(outcome, ServiceError):
        return {**_named(fields), "error": error_body(outcome)}
    return {**_named(fields), "result": outcome}


def _named(fields: dict[str, Any]) -> dict[str, str]:
    return {"custom_id": fields["custom_id"]} if "custom_id" in fields else {}


def _circumstances(job: ScoreJob, model: dict[str, Any], now: float) -> dict[str, Any]:
    """How the scores came about: model, times in ms, batch and bytes read."""
    submitted_at, started_at = job.job.submitted_at, job.started_at or now
    # The web tier's clock may differ from this machine's.
    queue_s = max(job.opened_at - submitted_at, 0.0)
    return {
        "model": model,
        "timings_ms": _milliseconds(
            queue=queue_s,
            batch_wait=max(started_at - job.opened_at, 0.0),
            compute=job.compute_s,
            total=max(now - submitted_at, 0.0),
        ),
        "batch": job.batch,
        "usage": {"bytes": job.job.num_bytes},
    }


def _milliseconds(**seconds: float) -> dict[str, float]:
    return {name: round(value * 1000, 3) for name, value in seconds.items()}
